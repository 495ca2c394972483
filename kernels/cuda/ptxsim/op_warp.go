package ptxsim

import "math/bits"

// shuffle is shfl.sync.mode.b32 d[|p], a, b, c, membermask: c holds the last lane of a segment and, from bit 8
// on, the mask of segments. It orders no memory.
func shuffle(c *compiler) {
	c.need("sync")
	mode := c.need("bfly", "idx", "up", "down")
	if t := c.typ(); t.name != "b32" {
		c.bad("type .%s is not simulated", t.name)
	}
	d, a, b, e := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2)), c.source32(c.op(3))
	p := -1
	if o := c.op(0).pair; o != nil {
		p = c.target(*o, 1)
	}
	c.count(5, 5)
	c.collective(c.members(c.op(4)), func(w *warp, lanes uint32) {
		from, inside := w.r32[a], uint32(0)
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			n, segment, bound := int(w.r32[b][l]&31), int(w.r32[e][l]>>8&31), int(w.r32[e][l]&31)
			first := l & segment
			last := first | bound&^segment
			j, ok := l, true
			switch mode {
			case "bfly":
				j = l ^ n
				ok = j <= last
			case "down":
				j = l + n
				ok = j <= last
			case "up":
				j = l - n
				ok = j >= last
			case "idx":
				j = first | n&^segment
				ok = j <= last
			}
			if !ok {
				j = l
			}
			if lanes>>j&1 == 0 {
				w.fault(codeLaunch, l, "takes a value of lane %d, which does not take part", j)
				return
			}
			w.r32[d][l] = from[j]
			if ok {
				inside |= 1 << l
			}
		}
		if p >= 0 {
			w.pred[p] = w.pred[p]&^lanes | inside
		}
	})
}

// vote is vote.sync.{all,any,uni}.pred and vote.sync.ballot.b32.
func vote(c *compiler) {
	c.need("sync")
	mode := c.need("all", "any", "uni", "ballot")
	c.typ()
	a, not := c.predicate(c.op(1))
	bank := 1
	if mode == "ballot" {
		bank = 32
	}
	d := c.target(c.op(0), bank)
	c.count(3, 3)
	c.collective(c.members(c.op(2)), func(w *warp, lanes uint32) {
		yes := (w.pred[a] ^ not) & lanes
		if mode == "ballot" {
			c.spread(w, d, lanes, yes)
			return
		}
		hold := mode == "any" && yes != 0 || mode != "any" && yes == lanes || mode == "uni" && yes == 0
		w.pred[d] &^= lanes
		if hold {
			w.pred[d] |= lanes
		}
	})
}

// spread gives all the lanes one value.
func (c *compiler) spread(w *warp, d int, lanes, v uint32) {
	for l := range 32 {
		if lanes>>l&1 != 0 {
			w.r32[d][l] = v
		}
	}
}

// match is match.any.sync and match.all.sync: which lanes hold the same.
func match(c *compiler) {
	all := c.need("any", "all") == "all"
	c.need("sync")
	t := c.typ()
	d, a, p := c.target(c.op(0), 32), c.source(c.op(1), t.bits), -1
	if o := c.op(0).pair; o != nil {
		p = c.target(*o, 1)
	}
	c.count(3, 3)
	c.collective(c.members(c.op(2)), func(w *warp, lanes uint32) {
		same := uint32(0)
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			same = 0
			for j := range 32 {
				if lanes>>j&1 != 0 && a.get(w, j) == a.get(w, l) {
					same |= 1 << j
				}
			}
			if all && same != lanes {
				same = 0
			}
			w.r32[d][l] = same
		}
		if p >= 0 {
			w.pred[p] &^= lanes
			if same == lanes {
				w.pred[p] |= lanes
			}
		}
	})
}

func activeMask(c *compiler) {
	c.typ()
	d := c.target(c.op(0), 32)
	c.count(1, 1)
	c.in.run = func(w *warp, lanes uint32) { c.spread(w, d, lanes, lanes) }
}

// reduce is redux.sync: an integer of all lanes.
func reduce(c *compiler) {
	c.need("sync")
	op, t := c.need("add", "min", "max", "and", "or", "xor"), c.typ()
	if t.bits != 32 || !t.integer() {
		c.bad("type .%s is not simulated", t.name)
	}
	d, a := c.target(c.op(0), 32), c.source32(c.op(1))
	c.count(3, 3)
	c.collective(c.members(c.op(2)), func(w *warp, lanes uint32) {
		first := bits.TrailingZeros32(lanes) & 31
		v := t.extend(uint64(w.r32[a][first]))
		for m := lanes & (lanes - 1); m != 0; m &= m - 1 {
			v = combined(op, t, v, t.extend(uint64(w.r32[a][bits.TrailingZeros32(m)&31])))
		}
		c.spread(w, d, lanes, uint32(v))
	})
}

// elect is elect.sync d|p, membermask: the first of the lanes is told that it is the one.
func elect(c *compiler) {
	c.need("sync")
	d, p := c.target(c.op(0), 32), -1
	if o := c.op(0).pair; o != nil {
		p = c.target(*o, 1)
	} else {
		c.bad("a predicate is missing")
	}
	c.count(2, 2)
	c.collective(c.members(c.op(1)), func(w *warp, lanes uint32) {
		first := bits.TrailingZeros32(lanes)
		c.spread(w, d, lanes, uint32(first))
		w.pred[p] = w.pred[p]&^lanes | 1<<first
	})
}
