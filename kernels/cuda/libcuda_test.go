package cuda

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// needGPU opens the first GPU; without one the test is skipped, or fails where R2_NEED_GPU is set.
func needGPU(t *testing.T) *Device {
	t.Helper()
	d, err := Open(0, Options{})
	if err == nil {
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	if os.Getenv("R2_NEED_GPU") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
	return nil
}

// Where there is no driver, that is one clear error.
func TestNoDriver(t *testing.T) {
	d, err := Open(0, Options{})
	if err == nil {
		_ = d.Close()
		t.Skip("there is a GPU")
	}
	if !errors.Is(err, driver.ErrNoDriver) {
		t.Skipf("there is a driver: %v", err)
	}
	if want := "cuda:0: no CUDA driver: libcuda.so.1 was not found"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error reads %q", err)
	}
}

// The driver's calls against a libcuda of our own, in processes that load it: see driver/testdata/fakecuda.c.
func TestFakeDriver(t *testing.T) {
	dir := t.TempDir()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", filepath.Join(dir, "libcuda.so.1"), "driver/testdata/fakecuda.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct{ env, want string }{
		{"", ""},
		{"FAKE_INIT=100", "cuda:0: cuInit: a fake error (CUDA_ERROR_FAKE)"},
		{"FAKE_DRIVER=11080", "the driver is of CUDA 11.8; the kernels need 12.4 or later"},
		{"FAKE_MAJOR=7", "the Fake is of compute capability 7.0, without bf16; the oldest that is supported is 8.0"},
		{"FAKE_REJECT=1", "the driver does not take the kernels: cuModuleLoadDataEx: a fake error (CUDA_ERROR_FAKE)"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOnFakeDriver$", "-test.count=1")
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, "R2_FAKE_CUDA="+c.want+" ", c.env)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", c.env, err, out)
		}
	}
}

// TestOnFakeDriver is what TestFakeDriver runs.
func TestOnFakeDriver(t *testing.T) {
	want, ok := os.LookupEnv("R2_FAKE_CUDA")
	if !ok {
		t.Skip("run by TestFakeDriver")
	}
	d, err := Open(0, Options{})
	if want = strings.TrimSpace(want); want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("the error is %v; want one with %q", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(1, Options{}); err == nil || err.Error() != "cuda:1: there is no such device: this machine has 1, numbered from 0" {
		t.Errorf("a device that is not there: %v", err)
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
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "cuda: Add (add, 1 × 1 × 1 blocks of 256): cuLaunchKernel: a fake error") {
		t.Errorf("a launch that fails: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
