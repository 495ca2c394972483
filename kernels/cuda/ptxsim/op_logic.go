package ptxsim

// logic of words, or of predicates.
func logic(c *compiler) {
	t := c.typ()
	f := map[string]func(a, b uint64) uint64{
		"and": func(a, b uint64) uint64 { return a & b },
		"or":  func(a, b uint64) uint64 { return a | b },
		"xor": func(a, b uint64) uint64 { return a ^ b },
	}[c.name]
	switch t.kind {
	case 'p':
		d := c.target(c.op(0), 1)
		a, notA := c.predicate(c.op(1))
		b, notB, of := 0, uint32(0), ^uint32(0)
		if last := c.op(2); last.kind != 'i' {
			b, notB = c.predicate(last)
		} else if of = 0; c.constant(last) != 0 { // a constant is true or false of all lanes
			notB = ^notB
		}
		c.count(3, 3)
		c.in.run = func(w *warp, lanes uint32) {
			v := uint32(f(uint64(w.pred[a]^notA), uint64(w.pred[b]&of^notB)))
			w.pred[d] = w.pred[d]&^lanes | v&lanes
		}
	case 'b':
		c.same(t, func(a, b uint32) uint32 { return uint32(f(uint64(a), uint64(b))) }, f)
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func invert(c *compiler) {
	t := c.typ()
	switch {
	case t.kind == 'p':
		d := c.target(c.op(0), 1)
		a, not := c.predicate(c.op(1))
		c.count(2, 2)
		c.in.run = func(w *warp, lanes uint32) { w.pred[d] = w.pred[d]&^lanes | ^(w.pred[a]^not)&lanes }
	case t.kind != 'b':
		c.bad("type .%s is not simulated", t.name)
	case t.bits == 64:
		c.unary64(func(a uint64) uint64 { return ^a })
	default:
		mask := uint32(t.mask())
		c.unary32(func(a uint32) uint32 { return ^a & mask })
	}
}

func logicalNot(c *compiler) {
	t := c.typ()
	if t.bits == 64 {
		c.unary64(func(a uint64) uint64 {
			if a == 0 {
				return 1
			}
			return 0
		})
		return
	}
	c.unary32(func(a uint32) uint32 {
		if a == 0 {
			return 1
		}
		return 0
	})
}

// A shift by more than the type's bits is one by all of them. The number of bits is of 32 bits always.
func shift(c *compiler) {
	t, left := c.typ(), c.name == "shl"
	d, a, b := c.destination(c.op(0), t.bits), c.source(c.op(1), t.bits), c.source32(c.op(2))
	c.count(3, 3)
	if !t.integer() || left && t.kind != 'b' {
		c.bad("type .%s is not simulated", t.name)
	}
	if t.bits == 32 && left {
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r32[d.reg], &w.r32[a.reg], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l] << B[l]
				}
			}
		}
		return
	}
	if t.bits == 64 && left {
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r64[d.reg], &w.r64[a.reg], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l] << B[l]
				}
			}
		}
		return
	}
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			v, n := t.extend(a.get(w, l)), w.r32[b][l]
			switch {
			case left:
				v <<= n
			case t.signed():
				v = uint64(int64(v) >> n)
			default:
				v >>= n
			}
			d.set(w, l, v&t.mask())
		}
	}
}

// funnel shifts the 64 bits of two words.
func funnel(c *compiler) {
	c.typ()
	left, wrap := c.need("l", "r") == "l", c.need("wrap", "clamp") == "wrap"
	c.ternary32(func(lo, hi, n uint32) uint32 {
		if wrap {
			n &= 31
		}
		both := uint64(hi)<<32 | uint64(lo)
		n = min(n, 32)
		if left {
			return uint32(both << n >> 32)
		}
		return uint32(both >> n)
	})
}
