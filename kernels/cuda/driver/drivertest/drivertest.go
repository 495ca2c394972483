// Package drivertest is the conformance suite of driver.Device: what any of them, a GPU's or a simulator's,
// must do. What a device returns ErrUnsupported for is left out. Its kernels are a few lines of PTX written by hand.
package drivertest

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

//go:embed drivertest.ptx
var image []byte

// Run tests a device: each test opens one, which it closes.
func Run(t *testing.T, open func(t *testing.T) driver.Device) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"what it is", identity}, {"memory", memory}, {"stream-ordered memory", ordered}, {"pinned memory", pinned}, {"launches", launches},
		{"shared memory", shared}, {"events", events}, {"graphs", graphs}, {"updated graphs", updates}, {"bad code", badCode},
		{"tensor maps", maps},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newBench(t, open(t))) })
	}
}

// A bench is a device with the kernels loaded. Its methods end the test on an error.
type bench struct {
	*testing.T
	driver.Device
	module driver.Module
	args   driver.Args
}

func newBench(t *testing.T, d driver.Device) *bench {
	b := &bench{T: t, Device: d}
	b.ok(d.Bind())
	var err error
	b.module, err = d.Load(image)
	b.ok(err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// ok ends the test on an error; what the device says it has not is not tested.
func (b *bench) ok(err error) {
	b.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) function(name string) driver.Function {
	b.Helper()
	f, err := b.Function(b.module, name)
	b.ok(err)
	return f
}

// words returns memory of n words, each so.
func (b *bench) words(n int, v byte) uint64 {
	b.Helper()
	at, err := b.Alloc(4 * n)
	b.ok(err)
	b.ok(b.Set(at, v, 4*n))
	b.Cleanup(func() { b.ok(b.Free(at)) })
	return at
}

// countUp queues count_up with a block of 32 threads, and more where n needs them.
func (b *bench) countUp(at uint64, n, first int) {
	b.Helper()
	b.args.Reset()
	b.args.Add(at, uint64(n), uint64(first))
	b.ok(b.Launch(b.function("count_up"), driver.Launch{Grid: driver.Dim{X: (n + 31) / 32, Y: 1, Z: 1}, Block: driver.Dim{X: 32, Y: 1, Z: 1}}, &b.args))
}

// want reads n words and compares them.
func (b *bench) want(what string, at uint64, want []uint32) {
	b.Helper()
	raw := make([]byte, 4*len(want))
	b.ok(b.Download(raw, at))
	b.ok(b.Sync())
	got := make([]uint32, len(want))
	for i := range got {
		got[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	if !slices.Equal(got, want) {
		b.Errorf("%s: %d, want %d", what, got, want)
	}
}

// upFrom is n numbers from first on.
func upFrom(first, n int) []uint32 {
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(first + i)
	}
	return all
}

func same(v uint32, n int) []uint32 { return slices.Repeat([]uint32{v}, n) }

func identity(b *bench) {
	if b.Name() == "" {
		b.Error("it has no name")
	}
	for a, least := range map[driver.Attribute]int{driver.CapabilityMajor: 8, driver.Multiprocessors: 1, driver.MaxSharedPerBlock: 48 << 10} {
		if v, err := b.Attribute(a); err != nil || v < least {
			b.Errorf("attribute %d is %d (%v), want %d or more", a, v, err, least)
		}
	}
}

func badCode(b *bench) {
	if _, err := b.Function(b.module, "missing"); err == nil || !strings.Contains(err.Error(), "missing") {
		b.Errorf("a kernel that is not there: %v", err)
	}
	text := strings.Replace(string(image), "bar.sync 0;", "bar.sink 0;", 1)
	if _, err := b.Load([]byte(text)); err == nil {
		b.Error("an instruction that is not there is taken")
	}
	b.ok(b.Sync())
	b.ok(b.Unload(b.module))
}

// Fault runs a kernel that stores where nothing is. That is an error, and the device is lost: so this must
// run in a process of its own.
func Fault(t *testing.T, d driver.Device) {
	b := newBench(t, d)
	x, err := b.Alloc(128)
	b.ok(err)
	b.args.Reset()
	b.args.Add(8)
	one := driver.Dim{X: 1, Y: 1, Z: 1}
	err = b.Launch(b.function("wild"), driver.Launch{Grid: one, Block: one}, &b.args)
	if err == nil {
		err = b.Sync()
	}
	if !driver.Fatal(err) {
		t.Errorf("a store at address 8: %v, which is not fatal", err)
	}
	if err = b.Set(x, 1, 128); err == nil {
		err = b.Sync()
	}
	if !driver.Fatal(err) {
		t.Errorf("after it: %v, which is not fatal", err)
	}
}

// Simulated reports whether R2_DEVICE asks for the simulator where tests want a GPU.
func Simulated() bool { return os.Getenv("R2_DEVICE") == "ptxsim" }

// NeedGPU gives the number of the GPU to test, R2_DEVICE's cuda:N or the first, and skips a test where none can
// be opened; where R2_NEED_GPU is set, that is a failure.
func NeedGPU(t *testing.T) int {
	t.Helper()
	index, err := strconv.Atoi(strings.TrimPrefix(os.Getenv("R2_DEVICE"), "cuda:"))
	if err != nil {
		index = 0
	}
	n, err := driver.Count()
	if err == nil && n <= index {
		err = fmt.Errorf("the driver sees %d GPUs, and number %d is asked for", n, index)
	}
	switch {
	case err == nil:
	case os.Getenv("R2_NEED_GPU") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return index
}
