// Package gorgonia is a second driver.Device, through gorgonia.org/cu: an independent binding of CUDA's driver
// that runs the same conformance suite and the same kernels, so that a mistake in the first shows. It is built
// with the tag nvgpu alone, needs cgo, the headers of CUDA 12 or before and libcuda to link with:
//
//	CGO_CFLAGS=-I<cuda>/include CGO_LDFLAGS=-L<folder of libcuda.so> go test -tags nvgpu ./kernels/cuda/driver/gorgonia/
//
// The headers are in PyPI's nvidia-cuda-runtime-cu12, where there is no toolkit. A program that holds this package ends
// at its start where there is no GPU: that is what gorgonia.org/cu does. What that lacks is ErrUnsupported here:
// recordings, attributes of kernels to be set (so no more than 48 KB of shared memory), launches with
// attributes, tensor maps, stream-ordered memory. Pinned memory is ordinary memory, which the driver copies first.
package gorgonia
