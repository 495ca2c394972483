// Package ptxsim is a GPU in software: a driver.Device that parses PTX and runs it, thread by thread, on the
// processor. It is there to prove kernels where there is no GPU, so it is strict where a GPU is not:
//
//   - Every access is checked for bounds, against memory exactly as large as was asked for, and for alignment.
//   - Fresh memory, shared memory and copies under way read as NaN. To read shared memory that nothing has been
//     written to, or that a copy has not brought yet, is an error.
//   - Two accesses of shared or global memory that nothing orders, one of them a write, are an error that names the
//     lines and threads. Order within a block comes of barriers alone: bar.sync and bar.arrive, bar.warp.sync of a
//     warp's lanes. Blocks of a launch are ordered by fences and atomic operations (see message.go), threads of one
//     block are not; atomic and relaxed accesses do not race with each other.
//   - Blocks of a cluster run beside each other and reach each other's mbarriers and tiles (see cluster.go); a block that
//     ends while another still uses it is an error.
//   - Warps run in one of three orders; kernels must not depend on it.
//   - Arguments and sizes of a launch are checked against what the kernel declares.
//   - An instruction, type or modifier that is not known is an error with its line, when the module is loaded.
//
// It cannot prove what a GPU's weak memory order would show, nor any speed. Numbers are those of PTX's definition;
// where it leaves them open (the order of sums within matrix instructions, approximate functions) they are one possibility.
package ptxsim

import (
	"fmt"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A Device is a simulated GPU. Launches are done when the call returns.
type Device struct {
	order           Order
	capability      int
	multiprocessors int

	modules   []map[string]*kernel
	functions []function
	buffers   []*buffer // by number, from 1; nil: freed
	used      int       // bytes of memory
	pinned    map[*byte]bool
	tiles     []driver.Tile // by the number in a tensor map, from 1
	lost      error         // the fault after which nothing goes

	launchCount, clusterCount uint32
	mostSteps                 int // instructions of warps that a block can take
	count                     func(Counts)
	survey                    bool
	surveyed                  int // blocks that run of a launch, 0: all

	messages map[uint64]heard // of the launch, by the address of an atomic operation

	stream
}

var _ driver.Device = (*Device)(nil)

// Options are what can be chosen of a device.
type Options struct {
	Order Order
	// Capability is the GPU's generation: 80 or, if it is 0, 90.
	Capability int
	// Count, if it is not nil, is called after each launch that did not fail. To count takes time: it is for
	// predictions, and for tests of what a kernel moves.
	Count func(Counts)
	// Survey makes a device that is for counting launches of real sizes: it checks no order between threads, tensor maps
	// and matrix units move no numbers, and of a large launch it runs some blocks alone (see Survey). What it computes is
	// wrong; what it counts is right where neither addresses nor branches depend on that.
	Survey bool
	// Multiprocessors is how many the device says it has, 1 if it is 0.
	Multiprocessors int
}

// New returns a device without memory in use.
func New(o Options) *Device {
	if o.Capability == 0 {
		o.Capability = 90
	}
	d := &Device{order: o.Order, capability: o.Capability, pinned: map[*byte]bool{}, mostSteps: 1 << 26, count: o.Count, survey: o.Survey,
		multiprocessors: max(o.Multiprocessors, 1)}
	if d.survey {
		d.mostSteps = 1 << 36 // sizes are real
	}
	return d
}

// Survey lets a surveying device run so many blocks of each launch, one somewhere in each of n equal parts, or all of them
// where n is 0.
func (d *Device) Survey(n int) { d.surveyed = n }

func (d *Device) Name() string { return fmt.Sprintf("simulated sm_%d", d.capability) }
func (d *Device) Bind() error  { return nil }

// Close lets go of all memory.
func (d *Device) Close() error {
	d.buffers, d.modules, d.functions, d.used = nil, nil, nil, 0
	return nil
}

// The memory that a block can have, once allowed and without that.
const (
	usualShared  = 48 << 10
	mostShared90 = 227 << 10
	mostShared80 = 163 << 10
)

func (d *Device) mostShared() int {
	if d.capability < 90 {
		return mostShared80
	}
	return mostShared90
}

func (d *Device) Attribute(a driver.Attribute) (int, error) {
	switch a {
	case driver.CapabilityMajor:
		return d.capability / 10, nil
	case driver.CapabilityMinor:
		return d.capability % 10, nil
	case driver.Multiprocessors:
		return d.multiprocessors, nil
	case driver.MaxSharedPerBlock:
		return d.mostShared(), nil
	case driver.SharedPerSM:
		return d.mostShared() + 1<<10, nil
	case driver.Clock, driver.MemoryClock, driver.MemoryBusWidth, driver.L2Size:
		return 0, nil // it has no speed
	}
	return 0, refuse("cuDeviceGetAttribute", codeInvalid, "the simulator has no attribute %d", a)
}
