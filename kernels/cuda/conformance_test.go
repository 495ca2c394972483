package cuda

import (
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

// Every operation, forward and backward, on the simulator: the shipped kernels.
func TestConformance(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) k.Backend { return simulated(t) })
}

// Every operation gives the same bits by its first version and by the shipped one, whatever the order of warps.
// What runs is the list of operations, versions and orders.
func TestVersions(t *testing.T) {
	for _, version := range []string{"first", "shipped"} {
		for _, order := range ptxsim.Orders {
			if version == "shipped" && order == ptxsim.OneAhead {
				continue // which the others are compared with
			}
			t.Run(version+", "+order.String(), func(t *testing.T) {
				kerneltest.Same(t, func(t *testing.T) k.Backend { return simulated(t) }, func(t *testing.T) k.Backend {
					d := simulatedBy(t, order)
					d.naive = version == "first"
					return d
				})
			})
		}
	}
}

// TestConformance on a GPU, where there is one.
func TestConformanceOnGPU(t *testing.T) {
	needGPU(t).Close()
	kerneltest.Run(t, func(t *testing.T) k.Backend { return needGPU(t) })
}

func TestVersionsOnGPU(t *testing.T) {
	needGPU(t).Close()
	kerneltest.Same(t, func(t *testing.T) k.Backend { return firstVersions(needGPU(t)) }, func(t *testing.T) k.Backend { return needGPU(t) })
}

func firstVersions(d *Device) *Device {
	d.naive = true
	return d
}
