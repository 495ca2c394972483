package ptxsim

import "math/bits"

// same makes an integer instruction whose words of 32 and of 64 bits do the same; narrower ones are masked.
func (c *compiler) same(t scalar, f32 func(a, b uint32) uint32, f64 func(a, b uint64) uint64) {
	switch {
	case !t.integer():
		c.bad("type .%s is not simulated", t.name)
	case t.bits == 64:
		c.binary64(f64)
	case t.bits == 32:
		c.binary32(f32)
	default:
		mask := uint32(t.mask())
		c.binary32(func(a, b uint32) uint32 { return f32(a, b) & mask })
	}
}

func add(c *compiler) {
	t := c.typ()
	switch {
	case !t.integer():
		c.sum(t, false)
	case t.bits == 32:
		d, a, b := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2))
		c.count(3, 3)
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r32[d], &w.r32[a], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l] + B[l]
				}
			}
		}
	case t.bits == 64:
		d, a, b := c.target(c.op(0), 64), c.source64(c.op(1)), c.source64(c.op(2))
		c.count(3, 3)
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r64[d], &w.r64[a], &w.r64[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l] + B[l]
				}
			}
		}
	default:
		c.same(t, func(a, b uint32) uint32 { return a + b }, nil)
	}
}

func subtract(c *compiler) {
	t := c.typ()
	if !t.integer() {
		c.sum(t, true)
		return
	}
	c.same(t, func(a, b uint32) uint32 { return a - b }, func(a, b uint64) uint64 { return a - b })
}

func multiply(c *compiler) {
	t := c.typ()
	if !t.integer() {
		c.product(t)
		return
	}
	switch part := c.need("lo", "hi", "wide"); part {
	case "lo":
		c.same(t, func(a, b uint32) uint32 { return a * b }, func(a, b uint64) uint64 { return a * b })
	case "hi":
		if t.bits == 64 {
			c.binary64(func(a, b uint64) uint64 { return high64(t, a, b) })
			return
		}
		mask := uint32(t.mask())
		c.binary32(func(a, b uint32) uint32 {
			return uint32(t.extend(uint64(a))*t.extend(uint64(b))>>t.bits) & mask
		})
	case "wide":
		c.wide(t, false)
	}
}

// high64 is the upper half of a product of 128 bits.
func high64(t scalar, a, b uint64) uint64 {
	hi, _ := bits.Mul64(a, b)
	if t.signed() {
		hi -= uint64(int64(a)>>63)&b + uint64(int64(b)>>63)&a
	}
	return hi
}

// wide makes a product of twice the type's bits, and adds the fourth operand to it.
func (c *compiler) wide(t scalar, plus bool) {
	if t.bits > 32 {
		c.bad("type .%s is not simulated", t.name)
		return
	}
	a, b, n := c.source32(c.op(1)), c.source32(c.op(2)), 2*t.bits
	d, e := c.destination(c.op(0), n), value{}
	if n < 64 && c.op(0).reg.bits != n {
		c.bad("%s is no register of %d bits", c.op(0).name, n)
	}
	if plus {
		e = c.source(c.op(3), n)
		c.count(4, 4)
	} else {
		c.count(3, 3)
	}
	if n == 64 && !plus && t.signed() {
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r64[d.reg], &w.r32[a], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = uint64(int64(int32(A[l])) * int64(int32(B[l])))
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
			v := t.extend(uint64(w.r32[a][l])) * t.extend(uint64(w.r32[b][l]))
			if plus {
				v += e.get(w, l)
			}
			d.set(w, l, v)
		}
	}
}

func multiplyAdd(c *compiler) {
	t := c.typ()
	if !t.integer() {
		c.bad("mad of floating point is fma: type .%s is not simulated", t.name)
		return
	}
	part, mask := c.need("lo", "hi", "wide"), uint32(t.mask())
	switch {
	case part == "wide":
		c.wide(t, true)
	case part == "lo" && t.bits == 64:
		c.ternary64(func(a, b, e uint64) uint64 { return a*b + e })
	case part == "lo":
		c.ternary32(func(a, b, e uint32) uint32 { return (a*b + e) & mask })
	case t.bits == 64:
		c.ternary64(func(a, b, e uint64) uint64 { return high64(t, a, b) + e })
	default:
		c.ternary32(func(a, b, e uint32) uint32 {
			return (uint32(t.extend(uint64(a))*t.extend(uint64(b))>>t.bits) + e) & mask
		})
	}
}

// Division by zero has no defined result; here it is all ones, as on present GPUs.
func divide(c *compiler) {
	t := c.typ()
	switch {
	case !t.integer():
		c.quotient(t)
	case t.signed():
		c.integer(t, func(a, b uint64) uint64 {
			switch int64(b) {
			case 0:
				return ^uint64(0)
			case -1:
				return -a
			}
			return uint64(int64(a) / int64(b))
		})
	default:
		c.integer(t, func(a, b uint64) uint64 {
			if b == 0 {
				return ^uint64(0)
			}
			return a / b
		})
	}
}

// remainder by zero has no defined result; here it is the dividend.
func remainder(c *compiler) {
	t := c.typ()
	if t.signed() {
		c.integer(t, func(a, b uint64) uint64 {
			switch int64(b) {
			case 0:
				return a
			case -1:
				return 0
			}
			return uint64(int64(a) % int64(b))
		})
		return
	}
	c.integer(t, func(a, b uint64) uint64 {
		if b == 0 {
			return a
		}
		return a % b
	})
}

func absolute(c *compiler) {
	t := c.typ()
	switch {
	case !t.integer():
		c.signBit(t, func(sign, a uint64) uint64 { return a &^ sign })
	case t.bits == 64:
		c.unary64(func(a uint64) uint64 { return uint64(max(int64(a), -int64(a))) })
	default:
		c.unary32(func(a uint32) uint32 {
			v := int64(t.extend(uint64(a)))
			return uint32(uint64(max(v, -v)) & t.mask())
		})
	}
}

func negate(c *compiler) {
	t := c.typ()
	switch {
	case !t.integer():
		c.signBit(t, func(sign, a uint64) uint64 { return a ^ sign })
	case t.bits == 64:
		c.unary64(func(a uint64) uint64 { return -a })
	default:
		mask := uint32(t.mask())
		c.unary32(func(a uint32) uint32 { return -a & mask })
	}
}

// extreme is the smaller or the larger.
func extreme(c *compiler) {
	t, largest := c.typ(), c.name == "max"
	switch {
	case !t.integer():
		c.floatExtreme(t, largest)
	case t.signed():
		c.integer(t, func(a, b uint64) uint64 {
			if (int64(a) > int64(b)) == largest {
				return a
			}
			return b
		})
	default:
		c.integer(t, func(a, b uint64) uint64 {
			if (a > b) == largest {
				return a
			}
			return b
		})
	}
}
