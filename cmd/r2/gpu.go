//go:build gpu

package main

import (
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda"
)

// openGPU opens an NVIDIA GPU. What loads its driver at run time needs the C library's loader, so a program
// built with it is no longer static: hence the tag.
func openGPU(n int) (kernels.Backend, error) {
	d, err := cuda.Open(n, cuda.Options{})
	if err != nil {
		return nil, usage("--device %v; use --device cpu", err)
	}
	return d, nil
}
