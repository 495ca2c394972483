package cuda

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

func newSimulator() driver.Device { return ptxsim.New(ptxsim.Options{}) }

// simulated opens a device on a simulator of its own.
func simulated(t *testing.T) *Device {
	t.Helper()
	return simulatedBy(t, ptxsim.OneAhead)
}

// simulatedBy does so with an order of warps.
func simulatedBy(t *testing.T, order ptxsim.Order) *Device {
	t.Helper()
	return simulatedAs(t, ptxsim.Options{Order: order})
}

// simulatedAs does so with a capability too.
func simulatedAs(t *testing.T, o ptxsim.Options) *Device {
	t.Helper()
	d, err := On(ptxsim.New(o), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.processors, d.clusters = 5, [mostShare + 1]int{1: 5, 2: 2, 4: 1} // so that tiles are cut
	return d
}

// A mutant is a device that changes each module before it loads it.
type mutant struct {
	driver.Device
	edit func(text string) string
}

func (m mutant) Load(image []byte) (driver.Module, error) {
	return m.Device.Load([]byte(m.edit(string(image))))
}
