//go:build nvgpu

package gorgonia_test

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/gorgonia"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

func open(t *testing.T) driver.Device {
	t.Helper()
	d, err := gorgonia.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The suite that the first driver runs; what gorgonia.org/cu lacks is left out.
func TestDevice(t *testing.T) { drivertest.Run(t, open) }

func TestLost(t *testing.T) { drivertest.Child(t, "", "TestChildFault") }

func TestChildFault(t *testing.T) {
	drivertest.OnlyChild(t)
	drivertest.Fault(t, open(t))
}

// The same kernels through it. A library that is imagined runs none.
func TestKernels(t *testing.T) {
	if d := open(t); d.Name() == "Fake" {
		t.Skip("the driver is an imagined one")
	}
	kerneltest.Run(t, func(t *testing.T) kernels.Backend {
		d, err := cuda.On(open(t), cuda.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
