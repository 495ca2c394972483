package ptxsim

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
)

// The simulator is a device as the conformance suite has it, in each order of warps.
func TestDevice(t *testing.T) {
	for _, order := range Orders {
		t.Run(order.String(), func(t *testing.T) {
			drivertest.Run(t, func(*testing.T) driver.Device { return New(Options{Order: order}) })
		})
	}
	t.Run("fault", func(t *testing.T) { drivertest.Fault(t, New(Options{})) })
}
