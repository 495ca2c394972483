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

// The first version of each operation gives the shipped one's bits.
func TestVersions(t *testing.T) {
	kerneltest.Same(t,
		func(t *testing.T) k.Backend { return firstVersions(simulated(t)) },
		func(t *testing.T) k.Backend { return simulated(t) })
}

// The order in which warps run changes no bit.
func TestWarpOrder(t *testing.T) {
	for _, order := range ptxsim.Orders[1:] {
		t.Run(order.String(), func(t *testing.T) {
			kerneltest.Same(t, func(t *testing.T) k.Backend { return simulated(t) },
				func(t *testing.T) k.Backend { return simulatedBy(t, order) })
		})
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
