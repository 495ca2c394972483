package main

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A blas is NVIDIA's matrix product, the yardstick: loaded where it is installed, never needed.
type blas struct {
	gemm, synchronize uintptr
	handle            uintptr
	alpha, beta       *float32
}

// The values of cuBLAS's enumerations that are used.
const (
	opNone, opTransposed = 0, 1
	typeF32, typeBF16    = 0, 14
	computeF32           = 68
	algorithmAny         = ^uintptr(0)
)

// openBLAS loads cuBLAS. The device's context must be the thread's.
func openBLAS(path string) (*blas, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	cuda, err := purego.Dlopen("libcuda.so.1", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	create, err := purego.Dlsym(lib, "cublasCreate_v2")
	if err != nil {
		return nil, err
	}
	b := &blas{alpha: new(float32), beta: new(float32)}
	*b.alpha = 1
	if b.gemm, err = purego.Dlsym(lib, "cublasGemmEx"); err != nil {
		return nil, err
	}
	if b.synchronize, err = purego.Dlsym(cuda, "cuCtxSynchronize"); err != nil {
		return nil, err
	}
	if status, _, _ := purego.SyscallN(create, uintptr(unsafe.Pointer(&b.handle))); int32(status) != 0 {
		return nil, fmt.Errorf("cublasCreate: status %d", int32(status))
	}
	return b, nil
}

// product queues out = x·wᵀ, row by row: x of rows × k and w of n × k in bf16, out of rows × n in f32.
func (b *blas) product(out, x, w uint64, rows, n, k int) error {
	status, _, _ := purego.SyscallN(b.gemm, b.handle, opTransposed, opNone, uintptr(n), uintptr(rows), uintptr(k),
		uintptr(unsafe.Pointer(b.alpha)), uintptr(w), typeBF16, uintptr(k), uintptr(x), typeBF16, uintptr(k),
		uintptr(unsafe.Pointer(b.beta)), uintptr(out), typeF32, uintptr(n), computeF32, algorithmAny)
	if int32(status) != 0 {
		return fmt.Errorf("cublasGemmEx: status %d", int32(status))
	}
	return nil
}

func (b *blas) sync() error {
	if code, _, _ := purego.SyscallN(b.synchronize); int32(code) != 0 {
		return fmt.Errorf("cuCtxSynchronize: error %d", int32(code))
	}
	return nil
}
