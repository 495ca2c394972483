package ptxsim

import "math/bits"

func leave(c *compiler) {
	c.in.kind = leaving
	c.has("uni")
	c.count(0, 0)
}

func branch(c *compiler) {
	c.in.kind = branching
	c.has("uni")
	c.p.jumps = append(c.p.jumps, jump{len(c.p.k.code), c.in.line, c.text[0]})
}

func trap(c *compiler) {
	c.count(0, 0)
	c.in.run = func(w *warp, lanes uint32) { w.fault(codeLaunch, bits.TrailingZeros32(lanes), "has come to a trap") }
}

// pause lets other warps go on.
func pause(c *compiler) {
	c.typ()
	c.in.run = func(w *warp, lanes uint32) { w.yield = true }
}

// dependency is griddepcontrol. Launches run one after another here; but one that may begin early must wait before it
// uses what the launch before it writes, or writes what that uses.
func dependency(c *compiler) {
	wait := c.need("wait", "launch_dependents") == "wait"
	c.count(0, 0)
	c.in.run = func(w *warp, lanes uint32) {
		if wait {
			w.depends |= lanes
		}
	}
}

// registersAllowed is setmaxnreg: a number that is a multiple of 8 from 24 to 256, for the whole warp.
func registersAllowed(c *compiler) {
	c.need("inc", "dec")
	c.need("sync")
	c.need("aligned")
	c.typ()
	if n := c.constant(c.op(0)); n < 24 || n > 256 || n%8 != 0 {
		c.bad("%d registers: want a multiple of 8 from 24 to 256", n)
	}
	c.collective(everyLane, func(w *warp, lanes uint32) {})
}

// collective makes an instruction for which the lanes of want must come together.
func (c *compiler) collective(want func(w *warp, lane int) uint32, run func(w *warp, lanes uint32)) {
	c.in.kind, c.in.want, c.in.run = collective, want, run
}

func everyLane(*warp, int) uint32 { return allBits }

// members makes the want of a mask that an operand holds.
func (c *compiler) members(o operand) func(w *warp, lane int) uint32 {
	r := c.source32(o)
	return func(w *warp, lane int) uint32 { return w.r32[r][lane&31] }
}

// A meeting is one of a block's 16 barriers. What it lets those know who wait is in the signal.
type meeting struct {
	signal
	count int     // threads that it is for, 0: all that have not ended
	come  int     // threads that have come, by whole warps
	warps []*warp // those that wait
}

// barrier is bar.sync and bar.arrive, barrier.sync and barrier.arrive, and bar.warp.sync.
func barrier(c *compiler) {
	if c.has("warp") {
		c.need("sync")
		c.count(1, 1)
		c.collective(c.members(c.op(0)), func(w *warp, lanes uint32) {
			var s signal
			s.give(w, lanes)
			s.take(w, lanes)
		})
		return
	}
	if c.has("cluster") {
		gateway(c)
		return
	}
	c.has("cta")
	kind := c.need("sync", "arrive")
	c.has("aligned")
	id, count := c.source32(c.op(0)), -1
	if c.count(1, 2); len(c.ops) == 2 {
		count = c.source32(c.op(1))
	} else if kind == "arrive" {
		c.bad("the number of threads is missing")
	}
	c.in.kind = atBarrier
	c.in.run = func(w *warp, lanes uint32) {
		l, n := bits.TrailingZeros32(lanes), 0
		if count >= 0 {
			n = int(w.r32[count][l])
			if n == 0 || n%32 != 0 {
				w.fault(codeLaunch, l, "a barrier of %d threads: want a multiple of 32", n)
				return
			}
		}
		if w.r32[id][l] > 15 {
			w.fault(codeLaunch, l, "barrier %d: there are 0 to 15", w.r32[id][l])
			return
		}
		w.block.meet(w, lanes, &w.block.barriers[w.r32[id][l]], n, kind == "sync")
	}
}

// meet lets a warp come to a barrier, and wait there for the others unless it only arrives.
func (b *block) meet(w *warp, lanes uint32, m *meeting, n int, wait bool) {
	if m.come > 0 && m.count != n {
		w.fault(codeLaunch, bits.TrailingZeros32(lanes), "a barrier of %d threads, to which others came as to one of %d", n, m.count)
		return
	}
	m.count, m.come = n, m.come+32
	m.give(w, lanes)
	if wait {
		m.warps = append(m.warps, w)
		w.waiting = m
	}
	b.events++
	b.open(m)
	if n > 0 && m.come > n {
		w.fault(codeLaunch, bits.TrailingZeros32(lanes), "is one too many at a barrier of %d threads", n)
	}
}

// open lets those go on who wait at a barrier that all have come to.
func (b *block) open(m *meeting) {
	need := m.count
	if need == 0 {
		for _, w := range b.warps {
			if w.alive != 0 {
				need += 32
			}
		}
	}
	if m.come == 0 || m.come != need {
		return
	}
	for _, w := range m.warps {
		w.take(m)
	}
	*m = meeting{warps: m.warps[:0]}
	b.events++
}

// take ends a warp's wait.
func (w *warp) take(m *meeting) {
	m.signal.take(w, w.alive)
	w.waiting = nil
}

// left tells of a warp that has ended: barriers for all no longer wait for it.
func (b *block) left() {
	b.events++
	for i := range b.barriers {
		b.open(&b.barriers[i])
	}
	for _, w := range b.warps {
		if w.alive != 0 {
			return
		}
	}
	b.finish()
	b.openGate()
}

// fence is fence.proxy.async, and the fences that order a thread's own accesses for others who learn of them in
// another way: of those the ones of the whole GPU count here, between blocks.
func fence(c *compiler) {
	c.count(0, 0)
	c.in.run = func(w *warp, lanes uint32) {}
	switch {
	case c.name == "membar":
		if c.need("gl", "cta", "sys") != "cta" {
			c.in.run = func(w *warp, lanes uint32) { w.fenceBlocks(lanes) }
		}
	case c.has("proxy"):
		c.need("async")
		c.oneOf("global", "shared::cta", "shared::cluster")
		c.p.k.agents = true
		c.in.run = func(w *warp, lanes uint32) { w.fence(lanes) }
	case c.has("mbarrier_init"):
		c.need("release")
		c.need("cluster")
	default:
		c.oneOf("sc", "acq_rel")
		if scope := c.need("cta", "gpu", "sys", "cluster"); scope == "gpu" || scope == "sys" {
			c.in.run = func(w *warp, lanes uint32) { w.fenceBlocks(lanes) }
		}
	}
}
