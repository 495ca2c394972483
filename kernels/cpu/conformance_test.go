package cpu_test

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

// of opens a device of some threads.
func of(threads int) func(*testing.T) kernels.Backend {
	return func(t *testing.T) kernels.Backend {
		d := cpu.New(threads)
		t.Cleanup(d.Close)
		return d
	}
}

func TestConformance(t *testing.T) { kerneltest.Run(t, of(2)) }

// The number of threads changes no bit.
func TestThreads(t *testing.T) { kerneltest.Same(t, of(1), of(3)) }

// Weights whose products round x.
func TestFormats(t *testing.T) {
	formats := []kernels.Format{{Type: kernels.BF16, Acts: kernels.BF16}}
	for _, typ := range []kernels.DType{kernels.Q8_0, kernels.Q4_0, kernels.Q4_1} {
		formats = append(formats, kernels.Format{Type: typ}, kernels.Format{Type: typ, Acts: kernels.I8})
	}
	for _, f := range formats {
		kerneltest.RunFormat(t, of(2), f)
	}
}
