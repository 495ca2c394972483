package ptxsim

import (
	"fmt"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// Results, by CUDA's numbers.
const (
	codeInvalid    = 1
	codeMemory     = 2
	codeNoBinary   = 209
	codePTX        = 218
	codeNotFound   = 500
	codeAddress    = 700
	codeResources  = 701
	codeTimeout    = 702
	codeMisaligned = 716
	codeLaunch     = 719
	codeCluster    = 912
	codeCapture    = 900
	codeUpdate     = 910
)

var codeNames = map[int]string{codeInvalid: "CUDA_ERROR_INVALID_VALUE", codeMemory: "CUDA_ERROR_OUT_OF_MEMORY",
	codeNoBinary: "CUDA_ERROR_NO_BINARY_FOR_GPU", codePTX: "CUDA_ERROR_INVALID_PTX", codeNotFound: "CUDA_ERROR_NOT_FOUND",
	codeAddress: "CUDA_ERROR_ILLEGAL_ADDRESS", codeResources: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", codeTimeout: "CUDA_ERROR_LAUNCH_TIMEOUT",
	codeMisaligned: "CUDA_ERROR_MISALIGNED_ADDRESS", codeCluster: "CUDA_ERROR_INVALID_CLUSTER_SIZE", codeLaunch: "CUDA_ERROR_LAUNCH_FAILED",
	codeCapture: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", codeUpdate: "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"}

// refuse is the error of a call that cannot be.
func refuse(call string, code int, format string, args ...any) error {
	return &driver.Error{Call: call, Code: code, Name: codeNames[code], Text: fmt.Sprintf(format, args...)}
}

// fault ends a launch for what a lane does at the warp's instruction. The first stands.
func (w *warp) fault(code, lane int, format string, args ...any) {
	b := w.block
	if b.failed != nil {
		return
	}
	in := b.kernel.code[min(w.at, len(b.kernel.code)-1)]
	text := fmt.Sprintf(format, args...)
	b.failed = refuse("cuLaunchKernel", code, "kernel %s, line %d (%s): thread %d of block %d,%d,%d %s", b.kernel.name, in.line, in.op,
		w.first+lane, b.at[0], b.at[1], b.at[2], text)
}
