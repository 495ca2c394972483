package ptxsim

import (
	"maps"
	"math/bits"
)

// Blocks of a launch are ordered by messages through memory alone: what comes before a fence of the whole GPU, and an
// atomic operation by the same thread after it, comes before all that follows a later atomic operation at the same
// address and, by the thread that did that, a fence.

// heard is what a thread knows of other blocks: a vector clock of each, by the stamp of its cluster. It is shared and never changed.
type heard map[uint32][]uint32

// and is what both know.
func (h heard) and(o heard) heard {
	switch {
	case len(h) == 0:
		return o
	case len(o) == 0:
		return h
	}
	all := maps.Clone(h)
	for stamp, clock := range o {
		if was := all[stamp]; was != nil && len(was) == len(clock) {
			clock = join(was, clock)
		}
		all[stamp] = clock
	}
	return all
}

// A mailbox is a lane's: what its next atomic operation tells, and what it has been told since its last fence.
type mailbox struct{ told, offers heard }

// fenceBlocks is a fence of the whole GPU.
func (w *warp) fenceBlocks(lanes uint32) {
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		w.heard[l] = w.heard[l].and(w.mail[l].told)
		mine := append([]uint32(nil), w.known[l]...)
		mine[w.clock+l] = w.time[l]
		w.time[l]++
		w.mail[l] = mailbox{offers: w.heard[l].and(heard{w.block.stamp: mine})}
	}
}

// message is what an atomic operation of global memory tells and is told.
func (w *warp) message(at uint64, lane int) {
	d, m := w.block.Device, &w.mail[lane]
	there := d.messages[at]
	m.told = m.told.and(there)
	if m.offers != nil {
		if d.messages == nil {
			d.messages = map[uint64]heard{}
		}
		d.messages[at] = there.and(m.offers)
	}
}

// A deed is a write, by a thread of a block at its time.
type deed struct {
	block, time uint32
	thread      int32
}

// follows reports whether a lane has heard of another block's deed.
func (w *warp) follows(d deed, lane int) bool {
	clock := w.heard[lane][d.block]
	return int(d.thread) < len(clock) && clock[d.thread] >= d.time
}
