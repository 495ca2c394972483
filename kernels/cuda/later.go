package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A later is the reads that wait to be taken. Each has pinned memory of its own, for what the fault word and its tensors
// were at its place in the stream, and an event that says that they are there.
type later struct {
	reads          [2]deferred
	first, waiting int
}

type deferred struct {
	event  driver.Event
	pinned []byte
	bytes  int // of its tensors
}

// openLater makes the events and the memory, when they are first asked for.
func (d *Device) openLater() {
	for i := range d.later.reads {
		r := &d.later.reads[i]
		if r.pinned != nil || d.err != nil {
			continue
		}
		var err error
		if r.event, err = d.gpu.NewEvent(); err == nil {
			r.pinned, err = d.gpu.Pin(boxBytes)
		}
		d.check("Defer", err)
	}
}

// Defer queues a read of a and b: see kernels.Deferrer. It reads at most boxBytes.
func (d *Device) Defer(a, b k.Tensor) {
	l := &d.later
	bytes := 4 * (a.Rows*a.Cols + b.Rows*b.Cols)
	lies := func(t k.Tensor) bool { return t.Rows <= 1 || t.Stride == t.Cols }
	need(bytes <= boxBytes-faultBytes && lies(a) && lies(b), "Defer", a, b)
	if l.waiting == len(l.reads) {
		panic(fmt.Sprintf("cuda: Defer: %d reads wait already", l.waiting))
	}
	d.openLater()
	r := &l.reads[(l.first+l.waiting)%len(l.reads)]
	r.bytes = bytes
	l.waiting++
	d.collect(a, b)
	if d.err == nil {
		d.check("Defer", errors.Join(d.gpu.Download(r.pinned[:faultBytes+bytes], d.post.outbox), d.gpu.Record(r.event)))
	}
}

// Take waits for the first read that was deferred and not taken.
func (d *Device) Take(dst []byte) error {
	l := &d.later
	if l.waiting == 0 {
		return errors.New("cuda: Take: no read waits")
	}
	r := &l.reads[l.first]
	if len(dst) != r.bytes {
		panic(fmt.Sprintf("cuda: Take: %d bytes of a read of %d", len(dst), r.bytes))
	}
	l.first, l.waiting = (l.first+1)%len(l.reads), l.waiting-1
	if d.err == nil {
		if err := d.gpu.Wait(r.event); err != nil {
			d.fail(fmt.Errorf("cuda: the device failed%s: %w", d.suspects(), err))
		}
	}
	if d.err == nil && binary.LittleEndian.Uint64(r.pinned) == noFault {
		copy(dst, r.pinned[faultBytes:])
		return nil
	}
	l.waiting = 0 // what is queued behind a failure has done nothing
	return d.Sync()
}
