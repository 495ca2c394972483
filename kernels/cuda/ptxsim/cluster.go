package ptxsim

import (
	"fmt"
	"math/bits"
)

// A cluster is the blocks of a launch that run beside each other and reach each other's shared memory: one, where a launch asks
// for no clusters. Its threads, and the units that work by themselves, are numbered together: `each` numbers a block.
type cluster struct {
	of     [3]int // blocks
	blocks []*block
	warps  []*warp // of all blocks
	each   int
	stamp  uint32 // its own, of all clusters of the device

	turn     int      // the warp that ran last
	events   int      // what warps may wait for and has happened
	arriving []func() // copies of tiles under way
	gate     gate     // barrier.cluster

	steps  int // that are left until it is taken for one that does not end
	failed error
}

// assemble makes the cluster of a launch, with its blocks.
func (d *Device) assemble(k *kernel, of, grid, size [3]int, dynamic int, params []byte) *cluster {
	c := &cluster{of: of, each: (size[0]*size[1]*size[2] + 31) / 32 * 32}
	if k.agents {
		c.each += mostAgents
	}
	for range of[0] * of[1] * of[2] {
		c.prepare(d, k, grid, size, dynamic, params)
	}
	return c
}

// begin makes c another cluster of the same launch.
func (c *cluster) begin(number int) {
	b := c.blocks[0]
	b.clusterCount++
	c.stamp, c.steps, c.failed, c.turn, c.events = b.clusterCount, b.mostSteps*len(c.blocks), nil, -1, 1
	c.arriving, c.gate = c.arriving[:0], gate{meeting: meeting{warps: c.gate.warps[:0]}}
	nothing := make([]uint32, c.each*len(c.blocks))
	wide, high := b.grid[0]/c.of[0], b.grid[1]/c.of[1]
	first := [3]int{number % wide * c.of[0], number / wide % high * c.of[1], number / wide / high * c.of[2]}
	for r, b := range c.blocks {
		b.begin([3]int{first[0] + r%c.of[0], first[1] + r/c.of[0]%c.of[1], first[2] + r/c.of[0]/c.of[1]}, nothing)
	}
}

// run runs the cluster to its end.
func (c *cluster) run(order Order) error {
	turn := 1 << 20
	if order == RoundRobin {
		turn = 1
	}
	for looks := 0; ; {
		w, live, running := c.next(order)
		switch {
		case !live:
			return c.failed
		case w != nil:
			before := c.events
			w.run(turn)
			if c.events != before {
				looks = 0
			}
		case len(c.arriving) > 0: // what is under way arrives as late as it can
			c.arrive()
		case !running || looks == mostLooks:
			return c.deadlock()
		default: // all look for what has not happened: once more
			looks++
			c.events++
		}
		if c.failed != nil {
			return c.failed
		}
		if c.steps <= 0 {
			c.warps[0].fault(codeTimeout, 0, "the block has not ended after %d instructions of warps", c.blocks[0].mostSteps*len(c.blocks))
			return c.failed
		}
	}
}

// mostLooks is how often warps may look for something, with nothing happening, until it is a deadlock.
const mostLooks = 1000

// next is the warp to run, by the device's order. live says whether there is one that has not ended, running
// whether one is at no barrier.
func (c *cluster) next(order Order) (w *warp, live, running bool) {
	n := len(c.warps)
	for i := range n {
		switch order {
		case RoundRobin:
			i = (c.turn + 1 + i) % n
		case LastFirst:
			i = n - 1 - i
		}
		x := c.warps[i]
		live = live || x.alive != 0
		if x.alive == 0 || x.waiting != nil {
			continue
		}
		running = true
		if x.idle != c.events {
			c.turn = i
			return x, true, true
		}
	}
	return nil, live, running
}

// arrive lets the oldest copy under way arrive.
func (c *cluster) arrive() {
	f := c.arriving[0]
	c.arriving = c.arriving[1:]
	f()
	c.events++
}

// deadlock tells where the warps wait.
func (c *cluster) deadlock() error {
	text := ""
	for _, w := range c.warps {
		if w.alive == 0 {
			continue
		}
		in := w.block.kernel.code[max(w.at-1, 0)]
		text += fmt.Sprintf("; warp %d", w.id)
		if len(c.blocks) > 1 {
			text += fmt.Sprintf(" of block %d", w.block.number)
		}
		text += fmt.Sprintf(" waits in line %d (%s)", in.line, in.op)
	}
	w := c.warps[0]
	w.fault(codeLaunch, bits.TrailingZeros32(w.alive|1<<31), "no warp can go on%s", text)
	return c.failed
}

// ---- barrier.cluster

// A gate is the barrier of a cluster's threads: all that have not ended come, and then each waits.
type gate struct {
	meeting
	done signal // what those let know who came the last time
}

// Where a warp is at the gate.
const (
	away   = iota
	come   // it has come, and others have not
	passed // all have come, and it has not waited yet
)

// gateway is barrier.cluster.arrive and barrier.cluster.wait.
func gateway(c *compiler) {
	kind := c.need("arrive", "wait")
	orders := c.oneOf("release", "acquire", "relaxed") != "relaxed"
	c.has("aligned")
	c.count(0, 0)
	c.in.kind = atBarrier
	if kind == "arrive" {
		c.in.run = func(w *warp, lanes uint32) { w.comeToGate(lanes, orders) }
		return
	}
	c.in.run = func(w *warp, lanes uint32) {
		g := &w.block.cluster.gate
		switch w.gate {
		case away:
			w.fault(codeLaunch, bits.TrailingZeros32(lanes), "waits at the cluster's barrier, and has not come to it")
		case come:
			w.waiting, g.warps = &g.meeting, append(g.warps, w)
		case passed:
			g.done.take(w, w.alive)
			w.gate = away
		}
	}
}

func (w *warp) comeToGate(lanes uint32, orders bool) {
	c := w.block.cluster
	if w.gate != away {
		w.fault(codeLaunch, bits.TrailingZeros32(lanes), "comes to the cluster's barrier again, and has not waited at it")
		return
	}
	w.gate = come
	if orders {
		c.gate.give(w, lanes)
	}
	c.events++
	c.openGate()
}

// openGate lets the warps go on, once all that have not ended have come.
func (c *cluster) openGate() {
	any := false
	for _, w := range c.warps {
		if w.alive != 0 && w.gate != come {
			return
		}
		any = any || w.alive != 0
	}
	if !any {
		return
	}
	g := &c.gate
	g.done, g.signal = g.signal, signal{}
	for _, w := range c.warps {
		w.gate = passed
	}
	for _, w := range g.warps {
		w.waiting, w.gate = nil, away
		g.done.take(w, w.alive)
	}
	g.warps = g.warps[:0]
	c.events++
}

// ---- shared memory of other blocks

// Addresses of a cluster's shared memory: an offset alone is of the block itself.
const rankBits = 24

// remote is the block that an address of shared::cluster is of, and the offset there; nil on a fault.
func (w *warp) remote(at uint64, lane int) (*block, uint64) {
	rank := int(uint32(at) >> rankBits)
	if rank == 0 {
		return w.block, uint64(uint32(at))
	}
	if rank > len(w.block.blocks) {
		w.fault(codeAddress, lane, "there is no block %d of the cluster at shared memory %#x", rank-1, at)
		return nil, 0
	}
	b := w.block.blocks[rank-1]
	if !w.reachable(b, lane) {
		return nil, 0
	}
	return b, uint64(uint32(at) & (1<<rankBits - 1))
}

// reachable says whether a block's shared memory is still there.
func (w *warp) reachable(b *block, lane int) bool {
	if b.ended {
		w.fault(codeLaunch, lane, "uses shared memory of block %d of the cluster, which has ended: a barrier of the cluster is missing before its end", b.rank)
	}
	return !b.ended
}

// mapAddress is mapa: the address in another block's shared memory of what has an address in this one's.
func mapAddress(c *compiler) {
	c.need("shared::cluster")
	if c.typ().bits != 32 {
		c.bad("addresses of shared::cluster are of 32 bits here")
		return
	}
	d, a, r := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2))
	c.count(3, 3)
	c.eachLane(func(w *warp, l int) {
		rank, at := w.r32[r][l], w.r32[a][l]
		if int(rank) >= len(w.block.blocks) || at >= 1<<rankBits {
			w.fault(codeAddress, l, "maps %#x to block %d of a cluster of %d", at, rank, len(w.block.blocks))
			return
		}
		w.r32[d][l] = (rank+1)<<rankBits | at
	})
}
