package cuda

import (
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/probe"
)

// Roof measures what the device can do at most: operations a second of the matrix instruction that the kernels
// use, on bf16, and bytes of memory a second. It takes a few milliseconds.
func (d *Device) Roof() (flops, bytes float64, err error) {
	if err := d.Attach(); err != nil {
		return 0, 0, err
	}
	defer d.Detach()
	processors, err := d.gpu.Attribute(driver.Multiprocessors) // a simulator has few
	if err != nil {
		return 0, 0, err
	}
	if flops, err = probe.Rate(d.gpu, 64*processors); err != nil {
		return 0, 0, err
	}
	bytes, err = probe.Bandwidth(d.gpu, min(processors<<23, 1<<30))
	return flops, bytes, err
}
