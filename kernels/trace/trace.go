// Package trace counts and times what a device does: a kernels.Backend round another one.
package trace

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	k "github.com/r2-reasoner/r2/kernels"
)

// A Device passes every operation on and waits for it, so that its time is known. A failure found by
// waiting is kept as the inner device would have kept it.
type Device struct {
	k.Backend
	stats map[string]*Stat
	err   error
}

var _ k.Backend = (*Device)(nil)

// A Stat is what one operation has done. Bytes are those of its operands' views, each counted once a call.
type Stat struct {
	Op    string
	Calls int
	Bytes int64
	Time  time.Duration
}

// String is one line: calls, time, the operation's share of memory traffic in GB/s.
func (s Stat) String() string {
	return fmt.Sprintf("%-14s %7d calls %12v %8.2f GB/s", s.Op, s.Calls, s.Time.Round(time.Microsecond),
		float64(s.Bytes)/1e9/max(s.Time.Seconds(), 1e-9))
}

// New returns a tracing device round be.
func New(be k.Backend) *Device { return &Device{Backend: be, stats: map[string]*Stat{}} }

// Stats returns what was done since New or Reset, the longest time first.
func (d *Device) Stats() []Stat {
	var all []Stat
	for _, s := range d.stats {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Stat) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(a.Op, b.Op))
	})
	return all
}

// Reset forgets what was done.
func (d *Device) Reset() { clear(d.stats) }

// op counts an operation that touches n bytes and times f, unless a failure stands.
func (d *Device) op(name string, n int64, f func()) {
	if d.err != nil {
		return
	}
	start := time.Now()
	f()
	d.count(name, n, start)
}

// count counts an operation begun at start, unless a failure stands.
func (d *Device) count(name string, n int64, start time.Time) {
	if d.err != nil {
		return
	}
	d.err = d.Backend.Sync()
	s := d.stats[name]
	if s == nil {
		s = &Stat{Op: name}
		d.stats[name] = s
	}
	s.Calls, s.Bytes, s.Time = s.Calls+1, s.Bytes+n, s.Time+time.Since(start)
}

// Sync reports and clears the failure that stands.
func (d *Device) Sync() error {
	err := d.err
	d.err = nil
	return cmp.Or(err, d.Backend.Sync())
}

// Read is the inner device's, counted.
func (d *Device) Read(dst []byte, src k.Tensor) (err error) {
	d.op("Read", int64(len(dst)), func() { err = d.Backend.Read(dst, src) })
	return cmp.Or(d.Sync(), err)
}

// RoundsKeys reports whether the inner device does.
func (d *Device) RoundsKeys() bool {
	r, ok := d.Backend.(k.KeyRounder)
	return ok && r.RoundsKeys()
}

// size is the bytes of tensors' views.
func size(ts ...k.Tensor) (n int64) {
	for _, t := range ts {
		n += int64(t.Rows) * int64(t.Cols) * int64(t.Type.Size())
	}
	return n
}

// sizeW is the bytes of a weight's elements.
func sizeW(w k.Weight) int64 { return int64(w.Rows) * int64(w.Type.Bytes(w.Cols)) }
