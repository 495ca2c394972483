//go:build gpu

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// openAuto opens the first GPU where there is one, else the processor. A GPU that is there and cannot be used
// is said.
func openAuto() (kernels.Backend, error) {
	n, err := driver.Count()
	if n > 0 {
		var d *cuda.Device
		if d, err = cuda.Open(0, cuda.Options{}); err == nil {
			return d, nil
		}
	}
	if err != nil && !errors.Is(err, driver.ErrNoDriver) {
		fmt.Fprintf(os.Stderr, "r2: the processor is used, not a GPU: %v\n", err)
	}
	return cpu.New(0), nil
}

// openGPU opens an NVIDIA GPU. What loads its driver at run time needs the C library's loader, so a program
// built with it is no longer static: hence the tag.
func openGPU(n int) (kernels.Backend, error) {
	d, err := cuda.Open(n, cuda.Options{})
	if err != nil {
		return nil, usage("--device %v; use --device cpu", err)
	}
	return d, nil
}

// openSimulator opens a GPU in software. It is slow beyond use, and there to test what a GPU would run.
func openSimulator() (kernels.Backend, error) {
	return cuda.On(ptxsim.New(ptxsim.Options{}), cuda.Options{})
}
