package ptxsim

import "math/bits"

// An mbarrier is a barrier in shared memory. A phase is complete when as many have arrived as it was made for, and the bytes that were
// announced have come.
type mbarrier struct {
	count   int // arrivals that complete a phase
	left    int // of this phase
	bytes   int // announced and not come; below zero: come before they were announced
	phase   uint64
	now     signal  // what those let know who arrive in this phase
	done    signal  // and in the last
	agent   int     // of the copies that complete on it
	copied  uint64  // the phases up to the last that a copy completes in
	awaited uint64  // the phases that somebody has waited for
	far     [2]bool // a thread of another block arrives in this phase, and did in the last
}

const mostCount = 1<<20 - 1 // of arrivals and of bytes

// mbarriers is what an mbarrier instruction does, and how it names its barrier.
func mbarriers(c *compiler) {
	c.p.k.agents = true
	kind := c.need("init", "inval", "arrive", "expect_tx", "test_wait", "try_wait")
	expect := kind == "arrive" && c.has("expect_tx")
	parity := c.has("parity")
	c.oneOf("release", "acquire", "relaxed")
	scope := c.oneOf("cta", "cluster")
	in := c.need("shared", "shared::cta", "shared::cluster")
	if in == "shared::cluster" && (kind != "arrive" || expect || scope != "cluster") {
		c.bad("of another block's mbarriers an arrival alone is simulated, with .cluster: with .cta it lets that block know of nothing")
	}
	c.need("b64")
	c.accessed(shared, 8)
	switch kind {
	case "init":
		c.initBarrier()
	case "inval":
		a := c.address(c.op(0), shared)
		c.count(1, 1)
		c.eachLane(func(w *warp, l int) {
			if m := w.barrierAt(a.of(w, l), l, writing); m != nil {
				delete(w.block.mbarriers, a.of(w, l))
			}
		})
	case "expect_tx":
		a, n := c.address(c.op(0), shared), c.source32(c.op(1))
		c.count(2, 2)
		c.eachLane(func(w *warp, l int) {
			if m := w.barrierAt(a.of(w, l), l, reading|strong); m != nil {
				m.announce(w, l, int(w.r32[n][l]))
			}
		})
	case "arrive":
		c.arriveAt(expect, in == "shared::cluster")
	default:
		c.waitFor(parity, scope == "cluster")
	}
}

// eachLane makes an instruction that lanes run one after another.
func (c *compiler) eachLane(f func(w *warp, lane int)) {
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0 && w.block.failed == nil; m &= m - 1 {
			f(w, bits.TrailingZeros32(m)&31)
		}
	}
}

func (c *compiler) initBarrier() {
	a, n := c.address(c.op(0), shared), c.source32(c.op(1))
	c.count(2, 2)
	c.eachLane(func(w *warp, l int) {
		at, count := a.of(w, l), int(w.r32[n][l])
		if count < 1 || count > mostCount {
			w.fault(codeLaunch, l, "makes an mbarrier for %d arrivals: 1 to %d", count, mostCount)
			return
		}
		if w.reach(at, 8, shared, writing, l) == nil {
			return
		}
		if agent, ok := w.agent(at, l); ok {
			w.block.mbarriers[at] = &mbarrier{count: count, left: count, agent: agent}
		}
	})
}

// barrierAt is the mbarrier at an address.
func (w *warp) barrierAt(at uint64, lane int, how access) *mbarrier {
	return w.barrierOf(w.block, at, lane, how)
}

// barrierOf is the mbarrier at an address of a block's.
func (w *warp) barrierOf(of *block, at uint64, lane int, how access) *mbarrier {
	if b, _ := w.locateIn(of, at, 8, shared, how, lane); b == nil {
		return nil
	}
	m := of.mbarriers[at]
	switch {
	case m == nil && of != w.block:
		w.fault(codeLaunch, lane, "there is no mbarrier at shared memory %d of block %d of the cluster", at, of.rank)
		return nil
	case m == nil:
		w.fault(codeLaunch, lane, "there is no mbarrier at shared memory %d", at)
		return nil
	}
	if !w.block.survey && !w.observeShared(of, at, 8, how, lane) {
		return nil
	}
	return m
}

// announce adds bytes that the phase waits for.
func (m *mbarrier) announce(w *warp, lane, n int) {
	if n < 0 || m.bytes+n > mostCount {
		w.fault(codeLaunch, lane, "announces %d bytes more at an mbarrier that waits for %d: at most %d", n, m.bytes, mostCount)
		return
	}
	m.bytes += n
}

func (c *compiler) arriveAt(expect, remote bool) {
	state := value{reg: -1}
	if o := c.op(0); o.kind != '_' {
		state = c.destination(o, 64)
		if remote {
			c.bad("an arrival at another block's mbarrier has no state")
		}
	}
	a, n := c.address(c.op(1), shared), -1
	if c.count(2, 3); len(c.ops) == 3 {
		n = c.source32(c.op(2))
	} else if expect {
		c.bad("the number of bytes is missing")
	}
	c.eachLane(func(w *warp, l int) {
		of, at := w.block, a.of(w, l)
		if remote {
			if of, at = w.remote(at, l); of == nil {
				return
			}
		}
		m := w.barrierOf(of, at, l, reading|strong)
		if m == nil {
			return
		}
		m.far[0] = m.far[0] || of != w.block
		if state.reg >= 0 {
			state.set(w, l, m.phase)
		}
		count := 1
		if expect {
			m.announce(w, l, int(w.r32[n][l]))
		} else if n >= 0 {
			count = int(w.r32[n][l])
		}
		if count < 1 || count > m.left {
			w.fault(codeLaunch, l, "arrives %d times at an mbarrier that waits for %d", count, m.left)
			return
		}
		m.left -= count
		m.now.give(w, 1<<l)
		m.turn(w.block)
	})
}

// turn begins the next phase once this one is complete.
func (m *mbarrier) turn(b *block) {
	if m.left > 0 || m.bytes != 0 {
		return
	}
	if m.now.known != nil {
		m.now.known[m.agent] = max(m.now.known[m.agent], uint32(m.phase+1))
	}
	m.done, m.now = m.now, signal{}
	m.far = [2]bool{false, m.far[0]}
	m.phase++
	m.left = m.count
	b.events++
}

// waitFor is test_wait and try_wait, which here are the same: whether the phase of a state, or of a parity, is
// complete. Where it is not, other warps go on.
func (c *compiler) waitFor(parity, cluster bool) {
	d, a := c.target(c.op(0), 1), c.address(c.op(1), shared)
	bits := 64
	if parity {
		bits = 32
	}
	of := c.source(c.op(2), bits)
	if c.count(3, 4); len(c.ops) == 4 {
		c.source32(c.op(3)) // for how long to try
	}
	c.eachLane(func(w *warp, l int) {
		m := w.barrierAt(a.of(w, l), l, reading|strong)
		if m == nil {
			return
		}
		x := of.get(w, l)
		complete := m.phase > x
		if parity {
			if x > 1 {
				w.fault(codeLaunch, l, "waits for the phase of parity %d: 0 or 1", x)
				return
			}
			complete = m.phase&1 != x
		}
		w.pred[d] &^= 1 << l
		if !complete {
			w.yield = true
			return
		}
		if m.far[1] && !cluster {
			w.fault(codeLaunch, l, "waits for what another block of the cluster did, and learns of it with .cluster alone")
			return
		}
		w.pred[d] |= 1 << l
		m.awaited = m.phase
		m.done.take(w, 1<<l)
	})
}
