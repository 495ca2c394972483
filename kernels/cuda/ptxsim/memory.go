package ptxsim

import (
	"encoding/binary"
	"fmt"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A buffer is an allocation, exactly as large as was asked for, or a block's shared memory.
type buffer struct {
	bytes []byte
	shadow
}

// Addresses: an allocation's number in the bits from 36 on, and within it the offset. Shared memory has a window
// of generic addresses.
const (
	offsetBits   = 36
	sharedWindow = uint64(1) << 60
	mostMemory   = 8 << 30 // of all allocations, which are memory of this process
)

// Alloc returns memory whose bytes are 0xff: NaN as numbers, and far outside as indices.
func (d *Device) Alloc(bytes int) (uint64, error) { return d.alloc("cuMemAlloc", bytes) }

func (d *Device) alloc(call string, bytes int) (uint64, error) {
	if d.lost != nil {
		return 0, d.lost
	}
	if bytes <= 0 {
		return 0, refuse(call, codeInvalid, "%d bytes are asked for", bytes)
	}
	if bytes > mostMemory-d.used {
		return 0, refuse(call, codeMemory, "%d bytes are asked for, and %d of the simulator's %d are free", bytes, mostMemory-d.used, mostMemory)
	}
	b := &buffer{bytes: make([]byte, bytes)}
	if !d.survey {
		poison(b.bytes)
	}
	d.used += bytes
	d.buffers = append(d.buffers, b)
	return uint64(len(d.buffers)) << offsetBits, nil
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

func (d *Device) Free(at uint64) error { return d.free("cuMemFree", at) }

func (d *Device) free(call string, at uint64) error {
	if d.lost != nil {
		return d.lost
	}
	id := at >> offsetBits
	if at&(1<<offsetBits-1) != 0 || id < 1 || id > uint64(len(d.buffers)) {
		return refuse(call, codeInvalid, "%#x is not where an allocation begins", at)
	}
	b := d.buffers[id-1]
	if b == nil {
		return refuse(call, codeInvalid, "%#x has been freed", at)
	}
	d.used -= len(b.bytes)
	d.buffers[id-1] = nil // its number is not given again: what still uses it is found
	return nil
}

func (d *Device) AllocAsync(bytes int) (uint64, error) {
	if d.capturing {
		return 0, refuse("cuMemAllocAsync", codeCapture, "memory cannot be had while a graph is recorded")
	}
	return d.alloc("cuMemAllocAsync", bytes)
}

func (d *Device) FreeAsync(at uint64) error {
	return d.queue(work{call: "cuMemFreeAsync", run: func() error { return d.free("cuMemFreeAsync", at) }})
}

func (d *Device) MemInfo() (free, total int, err error) {
	return mostMemory - d.used, mostMemory, d.lost
}

func (d *Device) Pin(bytes int) ([]byte, error) {
	if bytes <= 0 {
		return nil, refuse("cuMemHostAlloc", codeInvalid, "%d bytes are asked for", bytes)
	}
	b := make([]byte, bytes)
	d.pinned[&b[0]] = true
	return b, d.lost
}

func (d *Device) Unpin(b []byte) error {
	if len(b) == 0 || !d.pinned[&b[0]] {
		return refuse("cuMemFreeHost", codeInvalid, "the memory was not pinned")
	}
	delete(d.pinned, &b[0])
	return d.lost
}

// span is n bytes of an allocation.
func (d *Device) span(call string, at uint64, n int) ([]byte, error) {
	b, why := d.find(at, n)
	if why != "" {
		return nil, refuse(call, codeInvalid, "%s", why)
	}
	off := at & (1<<offsetBits - 1)
	return b.bytes[off : off+uint64(n)], nil
}

// find is the allocation that holds n bytes from address at on, or why there is none.
func (d *Device) find(at uint64, n int) (*buffer, string) {
	id, off := at>>offsetBits, at&(1<<offsetBits-1)
	switch {
	case id < 1 || id > uint64(len(d.buffers)):
		return nil, fmt.Sprintf("%d bytes at %#x, where nothing is", n, at)
	case d.buffers[id-1] == nil:
		return nil, fmt.Sprintf("%d bytes at %#x, which has been freed", n, at)
	}
	b := d.buffers[id-1]
	if off+uint64(n) > uint64(len(b.bytes)) {
		return nil, fmt.Sprintf("%d bytes at offset %d of an allocation of %d", n, off, len(b.bytes))
	}
	return b, ""
}

func (d *Device) Upload(to uint64, from []byte) error {
	return d.queue(work{call: "cuMemcpyHtoDAsync", size: len(from), run: func() error {
		b, err := d.span("cuMemcpyHtoDAsync", to, len(from))
		copy(b, from)
		return err
	}})
}

func (d *Device) Download(to []byte, from uint64) error {
	return d.queue(work{call: "cuMemcpyDtoHAsync", size: len(to), run: func() error {
		b, err := d.span("cuMemcpyDtoHAsync", from, len(to))
		copy(to, b)
		return err
	}})
}

func (d *Device) Copy(to, from uint64, bytes int) error {
	return d.queue(work{call: "cuMemcpyDtoDAsync", size: bytes, run: func() error {
		src, err := d.span("cuMemcpyDtoDAsync", from, bytes)
		if err != nil {
			return err
		}
		dst, err := d.span("cuMemcpyDtoDAsync", to, bytes)
		copy(dst, src)
		return err
	}})
}

func (d *Device) Set(at uint64, v byte, bytes int) error {
	return d.queue(work{call: "cuMemsetD8Async", size: bytes, run: func() error {
		b, err := d.span("cuMemsetD8Async", at, bytes)
		if d.survey { // fresh memory is zeros there, and takes no room until it is used
			return err
		}
		if v == 0 {
			clear(b)
			return err
		}
		for i := range b {
			b[i] = v
		}
		return err
	}})
}

// A space of addresses.
type space uint8

const (
	generic space = iota // global or shared
	global
	shared
)

// How memory is accessed.
type access uint8

const (
	reading access = 0
	writing access = 1 << iota
	strong         // with the order of the whole GPU: such accesses do not race with each other
)

func (a access) String() string {
	if a&writing != 0 {
		return "writes"
	}
	return "reads"
}

// locate is where n bytes at address at are. On a fault the buffer is nil. n is a power of two.
func (w *warp) locate(at uint64, n int, in space, how access, lane int) (b *buffer, off uint64) {
	return w.locateIn(w.block, at, n, in, how, lane)
}

// locateIn is the same with shared memory of a block of the cluster.
func (w *warp) locateIn(of *block, at uint64, n int, in space, how access, lane int) (b *buffer, off uint64) {
	switch {
	case in == shared:
		b, off = &of.shared, uint64(uint32(at))
	case at >= sharedWindow && in == generic:
		b, off = &w.block.shared, at-sharedWindow
	default:
		id := at >> offsetBits
		if id < 1 || id > uint64(len(w.block.buffers)) || w.block.buffers[id-1] == nil {
			_, why := w.block.find(at, n)
			w.fault(codeAddress, lane, "%v %s", how, why)
			return nil, 0
		}
		b, off = w.block.buffers[id-1], at&(1<<offsetBits-1)
	}
	if off+uint64(n) > uint64(len(b.bytes)) {
		what := "an allocation"
		if b == &of.shared {
			what = "shared memory"
		}
		w.fault(codeAddress, lane, "%v %d bytes at offset %d of %s of %d", how, n, off, what, len(b.bytes))
		return nil, 0
	}
	if off&uint64(n-1) != 0 {
		w.fault(codeMisaligned, lane, "%v %d bytes at offset %d, which is no multiple of %d", how, n, off, n)
		return nil, 0
	}
	return b, off
}

// reach is n bytes of memory, checked and put down in its shadow; nil on a fault.
func (w *warp) reach(at uint64, n int, in space, how access, lane int) []byte {
	b, off := w.locate(at, n, in, how, lane)
	if b == nil || !w.observe(b, off, n, how, lane) {
		return nil
	}
	return b.bytes[off : off+uint64(n) : off+uint64(n)]
}

// observe puts an access down in the memory's shadow. It is false where there is a race.
func (w *warp) observe(b *buffer, off uint64, n int, how access, lane int) bool {
	if w.block.survey {
		return true
	}
	if b == &w.block.shared {
		return w.observeShared(w.block, off, n, how, lane)
	}
	return w.observeGlobal(b, off, n, how, lane)
}

// element reads and writes numbers of 1, 2, 4 or 8 bytes.
func element(b []byte, size int) uint64 {
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func putElement(b []byte, size int, v uint64) {
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}

var _ driver.Memory = (*Device)(nil)
