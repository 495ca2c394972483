package cuda

import (
	"os"
	"slices"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
)

// needGPU opens the GPU to be tested; without one the test is skipped, or fails where R2_NEED_GPU is set. With
// R2_DEVICE=ptxsim it is the simulator.
func needGPU(t *testing.T) *Device {
	t.Helper()
	if drivertest.Simulated() {
		return simulated(t)
	}
	d, err := Open(drivertest.NeedGPU(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// The backend on a libcuda of our own, in processes that load it: what it says of what is not there, and that
// a few operations pass what they should.
func TestFakeDriver(t *testing.T) {
	lib := drivertest.FakeLibrary(t)
	drivertest.Child(t, lib, "TestChildOperations")
	for _, c := range []struct{ env, want string }{
		{"FAKE_INIT=100", "cuda:1: cuInit: a fake error (CUDA_ERROR_FAKE): no GPU is seen"},
		{"FAKE_DEVICES=1", "cuda:1: there is no such device: this machine has 1, numbered from 0"},
		{"FAKE_REJECT=218", "cuda:1 (Fake 1): load attention: the driver does not take the kernels: cuModuleLoadDataEx: a PTX JIT compilation failed"},
	} {
		drivertest.Child(t, lib, "TestChildRefused", "FAKE_DEVICES=4", c.env, "FAKE_WANT="+c.want)
	}
}

func TestChildRefused(t *testing.T) {
	drivertest.OnlyChild(t)
	_, err := Open(1, Options{})
	if want := os.Getenv("FAKE_WANT"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v; want one with %q", err, want)
	}
}

func TestChildOperations(t *testing.T) {
	drivertest.OnlyChild(t)
	d, err := Open(0, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Name() != "cuda (Fake)" || d.mostShared != 232448 {
		t.Errorf("the device is %s with %d bytes of shared memory", d.Name(), d.mostShared)
	}
	if err := d.Attach(); err != nil {
		t.Fatal(err)
	}
	defer d.Detach()
	x := d.New(k.F32, 3, 5)
	d.Write(x, floatBytes([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}))
	d.Fill(x.Slice(1, 2).Columns(1, 2), -0.5)
	if got := bits(t, d, x); !slices.Equal(got, floatBytes([]float32{1, 2, 3, 4, 5, 6, -0.5, -0.5, 9, 10, 11, -0.5, -0.5, 14, 15})) {
		t.Errorf("fill wrote % x", got)
	}
	graph, err := d.Capture(func() { d.Fill(x, 2); d.Fill(x.Slice(0, 1), 3) })
	if err != nil {
		t.Fatal(err)
	}
	if got := bits(t, d, x.Slice(1, 1)); !slices.Equal(got[:4], floatBytes([]float32{6})) {
		t.Error("a recording ran")
	}
	graph.Launch()
	if got := bits(t, d, x); !slices.Equal(got[:4], floatBytes([]float32{3})) || !slices.Equal(got[20:], floatBytes(slices.Repeat([]float32{2}, 10))) {
		t.Errorf("the graph wrote % x", got)
	}
	graph.Free()
	d.New(k.F32, 1<<16, 1<<16)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "65536 x 65536 of 17179869184 bytes (1000 of the device's 2000 bytes are free, other processes' taken off): cuMemAlloc: out of memory (CUDA_ERROR_OUT_OF_MEMORY)") {
		t.Errorf("too much memory: %v", err)
	}
	d.Add(x, x, x)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "cuda: Add of 1 x 15, 1 x 15, 1 x 15 (add, 1 × 1 × 1 blocks of 256): cuLaunchKernel: a fake error") {
		t.Errorf("a launch that fails: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
