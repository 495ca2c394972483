package driver_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/driver/drivertest"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

func open(t *testing.T) driver.Device { return openAt(t, 0) }

// The suite and what is libcuda's own, against a libcuda that is imagined: it sees that each call passes what
// it should.
func TestFake(t *testing.T) {
	lib := drivertest.FakeLibrary(t)
	drivertest.Child(t, lib, "TestChildConformance")
	drivertest.Child(t, lib, "TestChildFault")
	drivertest.Child(t, lib, "TestChildOwn", "FAKE_DEVICES=3")
	for _, c := range []struct{ env, want string }{
		{"FAKE_INIT=100", "cuInit: a fake error (CUDA_ERROR_FAKE): no GPU is seen: is there one, and does CUDA_VISIBLE_DEVICES hide it?"},
		{"FAKE_INIT=999", "Xid"},
		{"FAKE_DEVICES=0", "no GPU is seen"},
		{"FAKE_DEVICES=2", "there is no such device: this machine has 2, numbered from 0"},
	} {
		drivertest.Child(t, lib, "TestChildRefused", c.env, "FAKE_OPEN=9", "FAKE_WANT="+c.want)
	}
	for _, c := range []struct{ env, want string }{
		{"FAKE_DRIVER=11080", "the driver is of CUDA 11.8; the kernels need 12.4 or later: update the NVIDIA driver"},
		{"FAKE_MAJOR=7", "the Fake is of compute capability 7.0, without bf16; the oldest that is supported is 8.0 (A100, RTX 30)"},
		{"FAKE_TAKEN=46", "cuDevicePrimaryCtxRetain: busy or unavailable (CUDA_ERROR_DEVICE_UNAVAILABLE): another process has the GPU to itself"},
	} {
		drivertest.Child(t, lib, "TestChildRefused", c.env, "FAKE_WANT="+c.want)
	}
	drivertest.Child(t, lib, "TestChildRejected", "FAKE_REJECT=218", "FAKE_WANT=the driver does not take the kernels: cuModuleLoadDataEx: "+
		"a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX)\nline 9: no such thing")
	drivertest.Child(t, lib, "TestChildRejected", "FAKE_REJECT=222", "FAKE_WANT=the driver is older than the kernels: update the NVIDIA driver")
}

func TestChildConformance(t *testing.T) {
	drivertest.OnlyChild(t)
	drivertest.Run(t, open)
}

func TestChildFault(t *testing.T) {
	drivertest.OnlyChild(t)
	drivertest.Fault(t, openAt(t, 0))
}

func TestChildRefused(t *testing.T) {
	drivertest.OnlyChild(t)
	d, err := driver.Open(len(os.Getenv("FAKE_OPEN")) * 9)
	if err == nil {
		t.Fatalf("%s was opened", d.Name())
	}
	if want := os.Getenv("FAKE_WANT"); !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v; want one with %q", err, want)
	}
}

func TestChildRejected(t *testing.T) {
	drivertest.OnlyChild(t)
	_, err := open(t).Load([]byte("anything"))
	if want := os.Getenv("FAKE_WANT"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v; want one with %q", err, want)
	}
}

// described is what the imagined library's kernel describe leaves: its second argument, a tensor map as that
// library writes them, and how it was launched.
type described struct {
	address    uint64
	dims       [2]uint64
	stride     uint64
	box        [2]uint32
	kind, rank int32
	swizzle    int32
	promote    int32
	interleave int32
	fill       int32
	_          [128 - 64]byte
	cluster    [3]uint32
	early      uint32
}

func TestChildOwn(t *testing.T) {
	drivertest.OnlyChild(t)
	if n, err := driver.Count(); n != 3 || err != nil {
		t.Errorf("there are %d devices (%v), want 3", n, err)
	}
	d, err := driver.Open(2)
	if err != nil || d.Name() != "Fake 2" {
		t.Fatalf("the third device is %v (%v)", d, err)
	}
	m, err := d.Load([]byte("\x7fELF and more")) // a cubin
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Function(m, "describe")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := d.FunctionAttribute(f, driver.Registers); n != 40 || err != nil {
		t.Errorf("the kernel has %d registers (%v)", n, err)
	}
	at, err := d.Alloc(256)
	if err != nil {
		t.Fatal(err)
	}
	tile := driver.Tile{Type: driver.TileBF16, Address: at, Dims: []uint64{64, 33}, Strides: []uint64{256}, Box: []uint32{32, 8},
		Swizzle: driver.Swizzle64, Promote: driver.Promote256}
	tm, err := d.Encode(tile)
	if err != nil {
		t.Fatal(err)
	}
	var args driver.Args
	args.Add(at).AddMap(&tm)
	one := driver.Dim{X: 1, Y: 1, Z: 1}
	for _, l := range []driver.Launch{{Grid: one, Block: one}, {Grid: one, Block: one, Cluster: driver.Dim{X: 2, Y: 3, Z: 1}, Early: true},
		{Grid: one, Block: one, Early: true}} {
		if err := d.Launch(f, l, &args); err != nil {
			t.Fatal(err)
		}
		var got described
		if err := errors.Join(d.Download(unsafe.Slice((*byte)(unsafe.Pointer(&got)), unsafe.Sizeof(got)), at), d.Sync()); err != nil {
			t.Fatal(err)
		}
		want := described{address: at, dims: [2]uint64{64, 33}, stride: 256, box: [2]uint32{32, 8}, kind: 9, rank: 2, swizzle: 2, promote: 3,
			cluster: [3]uint32{uint32(l.Cluster.X), uint32(l.Cluster.Y), uint32(l.Cluster.Z)}}
		if l.Early {
			want.early = 1
		}
		if got != want {
			t.Errorf("%+v was launched as %+v", l, got)
		}
	}
	if n, err := d.Clusters(f, driver.Launch{Grid: driver.Dim{X: 2, Y: 3, Z: 1}, Block: one, Cluster: driver.Dim{X: 2, Y: 3, Z: 1}}); n != 2 || err != nil {
		t.Errorf("there is room for %d clusters of six (%v), want 2 of 13", n, err)
	}
	if _, err := d.Alloc(1 << 40); !driver.OutOfMemory(err) || driver.Fatal(err) {
		t.Errorf("a terabyte: %v", err)
	}
	nothingAllocated(t, d)
}

// What a step calls allocates nothing in Go.
func nothingAllocated(t *testing.T, d driver.Device) {
	m, err := d.Load([]byte(".entry"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Function(m, "count_up")
	if err != nil {
		t.Fatal(err)
	}
	at, _ := d.Alloc(256)
	host, _ := d.Pin(256)
	if err := d.Begin(); err != nil {
		t.Fatal(err)
	}
	g, _ := d.End()
	e, err := d.Instantiate(g)
	if err != nil {
		t.Fatal(err)
	}
	var args driver.Args
	step := func() {
		args.Reset()
		args.Add(at, 64, 3)
		err = errors.Join(err, d.Upload(at, host), d.Launch(f, driver.Launch{Grid: driver.Dim{X: 2, Y: 1, Z: 1}, Block: driver.Dim{X: 32, Y: 1, Z: 1}}, &args),
			d.Launch(f, driver.Launch{Grid: driver.Dim{X: 2, Y: 1, Z: 1}, Block: driver.Dim{X: 32, Y: 1, Z: 1}, Cluster: driver.Dim{X: 2, Y: 1, Z: 1}}, &args),
			d.Replay(e), d.Download(host, at), d.Sync())
	}
	step()
	if n := testing.AllocsPerRun(50, step); n != 0 || err != nil {
		t.Errorf("a step allocates %g times (%v)", n, err)
	}
	if !slices.Equal(host[:8], []byte{3, 0, 0, 0, 4, 0, 0, 0}) {
		t.Errorf("the step left % x", host[:8])
	}
}

// The suite on a GPU, where there is one, or on the simulator where R2_DEVICE says so.
func TestGPU(t *testing.T) {
	index := 0
	if !drivertest.Simulated() {
		index = drivertest.NeedGPU(t)
	}
	drivertest.Run(t, func(t *testing.T) driver.Device { return openAt(t, index) })
	drivertest.Child(t, "", "TestChildFault")
}

func openAt(t *testing.T, index int) driver.Device {
	t.Helper()
	if drivertest.Simulated() {
		return ptxsim.New(ptxsim.Options{})
	}
	d, err := driver.Open(index)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Where there is no driver, that is one clear error.
func TestNoDriver(t *testing.T) {
	d, err := driver.Open(0)
	if err == nil {
		_ = d.Close()
		t.Skip("there is a GPU")
	}
	if !errors.Is(err, driver.ErrNoDriver) {
		t.Skipf("there is a driver: %v", err)
	}
	if want := "no CUDA driver: libcuda.so.1 was not found (it comes with the NVIDIA driver)"; err.Error() != want {
		t.Errorf("the error reads %q, want %q", err, want)
	}
}
