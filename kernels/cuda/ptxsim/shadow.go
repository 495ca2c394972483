package ptxsim

import (
	"fmt"
	"math/bits"
)

// A shadow knows of each grain of a memory who has accessed it since when: two accesses that nothing orders, one
// of them a write, are a race. A grain is as large as the kernel's smallest access, so that an access is whole
// grains.
type shadow struct {
	grain  uint // log2 of the bytes
	cells  []cell
	blocks []use    // of global memory, by other blocks
	more   []reader // readers beyond a cell's first, which next chains, of one block
	stamp  uint32   // of that block
}

// A cell is what the threads of one cluster have done to a grain.
type cell struct {
	stamp  uint32 // of the cluster; another's is as if empty
	time   uint32 // of the write
	writer int32  // thread, -1: none
	line   int32  // of the write: an index into the code
	first  reader // no lanes: none
	async  bool   // the writer is a thread's own copy under way (cp.async)
	unit   bool   // the writer is a unit that works by itself
	strong bool   // the write is
}

// A reader is lanes of a warp that have read at a time.
type reader struct {
	lanes  uint32
	time   uint32
	warp   int16
	strong bool
	line   int32
	next   int32 // index into more, plus 1
}

// nobody is the writer of memory that no thread of the block has written to.
const nobody = -1

// of is the cell of a grain, empty where it was of another block.
func (s *shadow) of(g uint64, stamp uint32) *cell {
	c := &s.cells[g]
	if c.stamp != stamp {
		*c = cell{stamp: stamp, writer: nobody}
	}
	return c
}

// ready makes the shadow of n bytes ready for a block. What other blocks have left in it counts as empty.
func (s *shadow) ready(n int, grain uint, stamp uint32) {
	if want := (n + 1<<grain - 1) >> grain; len(s.cells) < want {
		s.cells, s.blocks = make([]cell, want), nil
	}
	s.grain, s.stamp, s.more = grain, stamp, s.more[:0]
}

// observeShared puts down an access of a block's shared memory.
func (w *warp) observeShared(of *block, off uint64, n int, how access, lane int) bool {
	s := &of.shared.shadow
	for g := off >> s.grain; g < (off+uint64(n)+1<<s.grain-1)>>s.grain; g++ {
		c := s.of(g, w.block.stamp)
		if f := &c.first; how == reading && int(f.warp) == w.clock/32 && f.time == w.time[lane] && f.lanes != 0 && !f.strong && !c.async &&
			c.writer != nobody && (int(c.writer) == w.clock+lane || w.known[lane][c.writer] >= c.time) {
			f.lanes |= 1 << lane // what read would do, at the rate at which shared memory is read
			continue
		}
		if how&writing == 0 && c.writer == nobody {
			w.fault(codeLaunch, lane, "reads shared memory at %d, which nothing has been written to", g<<s.grain)
			return false
		}
		if !w.note(s, c, how, lane) {
			return w.race(s, c, how, lane, "shared memory", g<<s.grain)
		}
	}
	return true
}

// note puts an access down in a cell; it is false, and the cell as it was, where the access races.
func (w *warp) note(s *shadow, c *cell, how access, lane int) bool {
	t := w.clock + lane
	if w.unordered(c, how, lane) {
		return false
	}
	if how&writing == 0 {
		w.read(s, c, how, lane)
		return true
	}
	if c.first.lanes != 0 {
		for r := &c.first; ; r = &s.more[r.next-1] {
			if !(r.strong && how&strong != 0) && !w.after(r, lane) {
				return false
			}
			if r.next == 0 {
				break
			}
		}
		c.first = reader{}
	}
	c.writer, c.time, c.line, c.strong, c.unit = int32(t), w.time[lane], int32(w.at), how&strong != 0, false
	return true
}

// observeUnit puts down an access of a block's shared memory by an agent, at its time c, that a lane starts: others must have done
// what they do before the lane starts it, and by way of a fence; and do what they do after they have learned of time c.
func (w *warp) observeUnit(of *block, off uint64, n int, how access, lane, agent int, time uint32) bool {
	s := &of.shared.shadow
	for g := off >> s.grain; g < (off+uint64(n)+1<<s.grain-1)>>s.grain; g++ {
		c := s.of(g, w.block.stamp)
		if how == reading && c.first.time == time && c.first.lanes>>(agent&31)&1 != 0 && int(c.first.warp) == agent>>5 {
			continue // it has read this already, and nobody has written since
		}
		if how == reading && c.writer == nobody {
			w.fault(codeLaunch, lane, "reads shared memory at %d, which nothing has been written to", g<<s.grain)
			return false
		}
		if c.writer != nobody && !c.unit && !c.async && w.knows(lane, int(c.writer), c.time) && !w.seen(lane, int(c.writer), c.time) {
			w.fault(codeLaunch, lane, "%v shared memory at %d by another way than line %d (%s) wrote it: fence.proxy.async is missing between the two",
				how, g<<s.grain, w.block.kernel.code[c.line].line, w.block.kernel.code[c.line].op)
			return false
		}
		switch {
		case how == writing:
			if !w.note(s, c, how, lane) {
				return w.race(s, c, how, lane, "shared memory", g<<s.grain)
			}
			c.writer, c.time, c.unit = int32(agent), time, true
		case w.unordered(c, how, lane):
			return w.race(s, c, how, lane, "shared memory", g<<s.grain)
		default:
			s.addReader(c, reader{lanes: 1 << (agent & 31), time: time, warp: int16(agent >> 5), line: int32(w.at)})
		}
	}
	return true
}

// addReader adds an agent as a reader, in the place of what it read before: its accesses end in their order.
func (s *shadow) addReader(c *cell, r reader) {
	if c.first.lanes == 0 {
		c.first = r
		return
	}
	var free *reader
	for x := &c.first; ; x = &s.more[x.next-1] {
		if x.warp == r.warp {
			if x.time == r.time {
				x.lanes |= r.lanes
				if f := &c.first; f.lanes == 0 { // which says that there are none
					x.next, f.next = f.next, x.next
					*x, *f = *f, *x
				}
				return
			}
			if x.lanes &^= r.lanes; x.lanes == 0 {
				free = x
			}
		}
		if x.next == 0 {
			break
		}
	}
	if free != nil {
		r.next = free.next
		*free = r
		return
	}
	r.next = c.first.next
	s.more = append(s.more, r)
	c.first.next = int32(len(s.more))
}

// unordered reports whether an access races with the last write.
func (w *warp) unordered(c *cell, how access, lane int) bool {
	return c.writer != nobody && (c.async || int(c.writer) != w.clock+lane && w.known[lane][c.writer] < c.time) && !(how&strong != 0 && c.strong)
}

// after reports whether all that reader r did comes before what a lane does now.
func (w *warp) after(r *reader, lane int) bool {
	first := int(r.warp) * 32
	if int(r.warp) == w.clock/32 && r.lanes == 1<<lane {
		return true
	}
	for m := r.lanes; m != 0; m &= m - 1 {
		if !w.knows(lane, first+bits.TrailingZeros32(m), r.time) {
			return false
		}
	}
	return true
}

// read adds a lane to a cell's readers, in the place of those it comes after.
func (w *warp) read(s *shadow, c *cell, how access, lane int) {
	bit, time, id, st := uint32(1)<<lane, w.time[lane], int16(w.clock/32), how&strong != 0
	f := &c.first
	if f.lanes == 0 {
		*f = reader{lanes: bit, time: time, warp: id, strong: st, line: int32(w.at)}
		return
	}
	if f.warp == id && f.time == time && f.strong == st {
		f.lanes |= bit
		return
	}
	if f.next == 0 && (f.strong == st || !st) && w.after(f, lane) {
		*f = reader{lanes: bit, time: time, warp: id, strong: st, line: int32(w.at)}
		return
	}
	for r := f; r.next != 0; {
		r = &s.more[r.next-1]
		if r.warp == id && r.time == time && r.strong == st { // to the front: the warp's other lanes are to come
			r.lanes |= bit
			next := r.next
			r.next, f.next = f.next, next
			*r, *f = *f, *r
			return
		}
	}
	s.more = append(s.more, reader{lanes: bit, time: time, warp: id, strong: st, line: int32(w.at), next: f.next})
	f.next = int32(len(s.more))
}

// race tells of the access that cannot be, and of the one it races with.
func (w *warp) race(s *shadow, c *cell, how access, lane int, where string, off uint64) bool {
	code := w.block.kernel.code
	switch {
	case c.writer != nobody && c.async:
		w.fault(codeLaunch, lane, "%v %s at %d, which the copy that thread %d began in line %d has not brought yet: it has not been waited for",
			how, where, off, c.writer, code[c.line].line)
	case c.writer != nobody && c.unit && !w.knows(lane, int(c.writer), c.time):
		w.fault(codeLaunch, lane, "a race: %v %s at %d, which line %d (%s) brings or uses by itself, and that has not been waited for",
			how, where, off, code[c.line].line, code[c.line].op)
	case c.writer != nobody && !w.knows(lane, int(c.writer), c.time):
		w.fault(codeLaunch, lane, "a race: %v %s at %d, which thread %d writes in line %d (%s), and nothing orders the two",
			how, where, off, c.writer, code[c.line].line, code[c.line].op)
	default:
		for r := &c.first; ; r = &s.more[r.next-1] {
			if !w.after(r, lane) {
				if int(r.warp)*32%w.block.each >= 32*len(w.block.warps) {
					w.fault(codeLaunch, lane, "a race: %v %s at %d, which line %d (%s) reads by itself, and that has not been waited for",
						how, where, off, code[r.line].line, code[r.line].op)
					return false
				}
				other := int(r.warp)*32 + bits.TrailingZeros32(r.lanes&^(1<<lane))
				w.fault(codeLaunch, lane, "a race: %v %s at %d, which thread %d reads in line %d (%s), and nothing orders the two",
					how, where, off, other, code[r.line].line, code[r.line].op)
				return false
			}
			if r.next == 0 {
				break
			}
		}
	}
	return false
}

// A use is what the blocks of one launch have done to a grain of global memory: for each way the block, plus 1, or
// -1 for several.
type use struct {
	launch                           uint32
	read, write, strongRead, strongW int32
	last                             deed // that is no strong one
}

func (w *warp) observeGlobal(b *buffer, off uint64, n int, how access, lane int) bool {
	s := &b.shadow
	if s.stamp != w.block.stamp {
		s.ready(len(b.bytes), w.block.kernel.grainGlobal, w.block.stamp)
		if s.blocks == nil {
			s.blocks = make([]use, len(s.cells))
		}
	}
	me := int32(w.block.blocks[0].number + 1) // between blocks of a cluster order is kept by clocks
	for g := off >> s.grain; g < (off+uint64(n)+1<<s.grain-1)>>s.grain; g++ {
		if !w.note(s, s.of(g, w.block.stamp), how, lane) {
			return w.race(s, &s.cells[g], how, lane, "global memory", g<<s.grain)
		}
		u := &s.blocks[g]
		if u.launch != w.block.launch {
			if w.block.early && u.launch == w.block.launch-1 && w.depends>>lane&1 == 0 && (u.write|u.strongW != 0 || how&writing != 0) {
				w.fault(codeLaunch, lane, "a race: %v global memory at %d, which the launch before uses, and griddepcontrol.wait has not been come to", how, g<<s.grain)
				return false
			}
			*u = use{launch: w.block.launch}
		}
		heard := u.write > 0 && u.write != me && w.follows(u.last, lane)
		if !u.put(how, me, heard) {
			w.fault(codeLaunch, lane, "a race: %v global memory at %d, which %s", how, g<<s.grain, u.others(me))
			return false
		}
		if how == writing {
			u.last = deed{w.block.stamp, w.time[lane], int32(w.clock + lane)}
		}
	}
	return true
}

// put adds an access of a block; it is false where it races with another block's. heard: it has heard of the one plain
// write that there was.
func (u *use) put(how access, me int32, heard bool) bool {
	other := func(x int32) bool { return x != 0 && x != me }
	mark := &u.read
	switch how {
	case writing:
		if other(u.read) || other(u.strongRead) || other(u.strongW) {
			return false
		}
		mark = &u.write
	case strong:
		mark = &u.strongRead
	case writing | strong:
		if other(u.read) {
			return false
		}
		mark = &u.strongW
	default:
		if other(u.strongW) {
			return false
		}
	}
	if other(u.write) && !heard {
		return false
	}
	if *mark == 0 || heard && how == writing {
		*mark = me
	} else if *mark != me {
		*mark = -1
	}
	return true
}

// others says what other blocks have done.
func (u *use) others(me int32) string {
	for _, x := range []struct {
		by  int32
		did string
	}{{u.write, "writes"}, {u.strongW, "writes atomically"}, {u.read, "reads"}, {u.strongRead, "reads"}} {
		switch {
		case x.by == -1:
			return "another block of the launch " + x.did + " too, and nothing orders blocks"
		case x.by != 0 && x.by != me:
			return fmt.Sprintf("block %d of the launch %s, and nothing orders blocks", x.by-1, x.did)
		}
	}
	return "another block uses"
}
