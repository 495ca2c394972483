//go:build !gpu

package main

import (
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
)

// openAuto opens the processor: this build has nothing else.
func openAuto() (kernels.Backend, error) { return cpu.New(0), nil }

// openGPU says that this build is the static one.
func openGPU(n int) (kernels.Backend, error) {
	return nil, usage("--device cuda:%d: this build is static and loads no GPU driver: make build-gpu makes one that does; or use --device cpu", n)
}

func openSimulator() (kernels.Backend, error) {
	return nil, usage("--device ptxsim: this build has no simulator of a GPU: make build-gpu makes one that does; or use --device cpu")
}
