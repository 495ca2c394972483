package trace_test

import (
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
	"github.com/r2-reasoner/r2/kernels/trace"
)

// A traced device is a device: nothing is lost or changed on the way.
func TestConforms(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) k.Backend {
		d := cpu.New(1)
		t.Cleanup(d.Close)
		return trace.New(d)
	})
}
