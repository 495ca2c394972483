package ptxsim

import "math/bits"

// A pending copy of n bytes from global memory, and zeros up to all of them, to shared memory. known is what its
// thread knew when it began: what others do to its source must come before that, or after the wait.
type pending struct {
	to, from uint64
	all, n   int
	known    []uint32
	line     int
}

// copies are a thread's asynchronous copies: queue[:ends[0]] is the oldest group, and so on; what is beyond the
// last is in no group yet.
type copies struct {
	queue []pending
	ends  []int
}

func (c *copies) clear() { c.queue, c.ends = c.queue[:0], c.ends[:0] }

// copyAsync is cp.async and its groups.
func copyAsync(c *compiler) {
	c.need("async")
	if c.has("bulk") {
		bulk(c)
		return
	}
	switch {
	case c.has("commit_group"):
		c.count(0, 0)
		c.in.run = func(w *warp, lanes uint32) {
			for m := lanes; m != 0; m &= m - 1 {
				q := &w.copies[bits.TrailingZeros32(m)&31]
				q.ends = append(q.ends, len(q.queue))
			}
		}
	case c.has("wait_group"):
		c.count(1, 1)
		c.wait(int(c.constant(c.op(0))), false)
	case c.has("wait_all"):
		c.count(0, 0)
		c.wait(0, true)
	default:
		c.beginCopy()
	}
}

// wait makes the wait until at most n groups are under way; all says that copies in no group are waited for too.
func (c *compiler) wait(n int, all bool) {
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			q := &w.copies[l]
			if all {
				q.ends = append(q.ends, len(q.queue))
			}
			done := len(q.ends) - n
			if done <= 0 {
				continue
			}
			upto := q.ends[done-1]
			for i := range q.queue[:upto] {
				if !w.finish(&q.queue[i], l) {
					return
				}
			}
			q.queue = append(q.queue[:0], q.queue[upto:]...)
			q.ends = append(q.ends[:0], q.ends[done:]...)
			for i := range q.ends {
				q.ends[i] -= upto
			}
		}
	}
}

func (c *compiler) beginCopy() {
	most := 16
	if c.need("ca", "cg") == "ca" {
		most = 4
	}
	c.need("shared", "shared::cta")
	c.need("global")
	c.cached()
	to, from := c.address(c.op(0), shared), c.address(c.op(1), global)
	size, n := int(c.constant(c.op(2))), -1
	if most == 16 && size != 16 || most == 4 && size != 4 && size != 8 && size != 16 {
		c.bad("a copy of %d bytes: cg takes 16, ca 4, 8 or 16", size)
		return
	}
	if c.count(3, 4); len(c.ops) == 4 {
		n = c.source32(c.op(3))
	}
	c.accessed(generic, size)
	c.in.meter = func(t *tally, w *warp, lanes uint32) {
		t.access(w, lanes, to, size, writing)
		t.copies(w, lanes, from, n, size)
	}
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			p := pending{to: to.of(w, l), from: from.of(w, l), all: size, n: size, known: w.known[l], line: w.at}
			if n >= 0 {
				if p.n = int(w.r32[n][l]); p.n > size {
					w.fault(codeLaunch, l, "copies %d bytes of %d", p.n, size)
					return
				}
			}
			if !w.begin(p, l) {
				return
			}
		}
	}
}

// begin takes the place of a copy: until it has been waited for, nobody may read or write it. Its bytes are NaN.
func (w *warp) begin(p pending, lane int) bool {
	b, off := w.locate(p.to, p.all, shared, writing, lane)
	if b == nil || !w.observe(b, off, p.all, writing, lane) {
		return false
	}
	if s := &b.shadow; !w.block.survey {
		for g := off >> s.grain; g < (off+uint64(p.all)+1<<s.grain-1)>>s.grain; g++ {
			s.cells[g].async = true
		}
	}
	poison(b.bytes[off : off+uint64(p.all)])
	if w.source(&p, lane); w.block.failed != nil {
		return false
	}
	w.copies[lane].queue = append(w.copies[lane].queue, p)
	return true
}

// finish brings the bytes of a copy that has been waited for.
func (w *warp) finish(p *pending, lane int) bool {
	b, off := &w.block.shared, uint64(uint32(p.to))
	if s := &b.shadow; !w.block.survey {
		for g := off >> s.grain; g < (off+uint64(p.all)+1<<s.grain-1)>>s.grain; g++ {
			s.cells[g].async, s.cells[g].time = false, w.time[lane]
		}
	}
	to := b.bytes[off : off+uint64(p.all)]
	clear(to)
	if p.n == 0 {
		return true
	}
	at, now := w.at, w.known[lane]
	w.known[lane], w.at = p.known, p.line
	src, off := w.source(p, lane)
	ok := src != nil && w.observe(src, off, p.n, reading, lane)
	w.known[lane] = now
	if ok {
		copy(to, src.bytes[off:off+uint64(p.n)])
		w.at = at
	}
	return ok
}

// source is where a copy reads its n bytes, in memory that is aligned for all of them.
func (w *warp) source(p *pending, lane int) (*buffer, uint64) {
	if p.from%uint64(p.all) != 0 {
		w.fault(codeMisaligned, lane, "copies %d bytes from %#x, which is no multiple of that", p.all, p.from)
		return nil, 0
	}
	if p.n == 0 {
		return nil, 0
	}
	b, why := w.block.find(p.from, p.n)
	if b == nil {
		w.fault(codeAddress, lane, "copies %s", why)
	}
	return b, p.from & (1<<offsetBits - 1)
}
