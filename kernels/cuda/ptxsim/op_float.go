package ptxsim

import "math"

// rounding takes the modifier of a rounding to the nearest. Others, flushing to zero and saturating are not
// simulated: the instruction is refused for the modifier that is left.
func (c *compiler) rounding() { c.oneOf("rn") }

// small1, small2 and small3 make functions of bf16 or f16 numbers, one or two a word.
func (c *compiler) small2(t scalar, f func(a, b float32) float32) {
	s, pair := smallOf(t), t.bits == 32
	c.binary32(func(a, b uint32) uint32 {
		v := uint32(s.narrow(f(s.widen(uint16(a)), s.widen(uint16(b))), false))
		if pair {
			v |= uint32(s.narrow(f(s.widen(uint16(a>>16)), s.widen(uint16(b>>16))), false)) << 16
		}
		return v
	})
}

// sum is add and sub of floating point.
func (c *compiler) sum(t scalar, minus bool) {
	c.rounding()
	sign := uint32(0)
	if minus {
		sign = 1 << 31
	}
	switch {
	case t.name == "f32":
		d, a, b := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2))
		c.count(3, 3)
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r32[d], &w.r32[a], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = bits32(float(A[l]) + float(B[l]^sign))
				}
			}
		}
	case t.name == "f64":
		c.binary64(func(a, b uint64) uint64 { return bits64(double(a) + double(b^uint64(sign)<<32)) })
	case t.kind == 'f' || t.kind == 'h':
		c.small2(t, func(a, b float32) float32 {
			return oddFloat(sumToOdd(float64(a), float64(float(math.Float32bits(b)^sign))))
		})
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func (c *compiler) product(t scalar) {
	c.rounding()
	switch {
	case t.name == "f32":
		d, a, b := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2))
		c.count(3, 3)
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B := &w.r32[d], &w.r32[a], &w.r32[b]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = bits32(float(A[l]) * float(B[l]))
				}
			}
		}
	case t.name == "f64":
		c.binary64(func(a, b uint64) uint64 { return bits64(double(a) * double(b)) })
	case t.kind == 'f' || t.kind == 'h':
		c.small2(t, func(a, b float32) float32 { return oddFloat(float64(a) * float64(b)) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func fusedMultiplyAdd(c *compiler) {
	t := c.typ()
	c.need("rn")
	switch {
	case t.name == "f32":
		d, a, b, e := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2)), c.source32(c.op(3))
		c.count(4, 4)
		c.in.run = func(w *warp, lanes uint32) {
			D, A, B, E := &w.r32[d], &w.r32[a], &w.r32[b], &w.r32[e]
			for l := range 32 {
				if lanes>>l&1 == 0 {
					continue
				}
				if s := float64(float(A[l]))*float64(float(B[l])) + float64(float(E[l])); onceMore(math.Float64bits(s)) { // rounding again is rounding once
					D[l] = math.Float32bits(float32(s))
				} else {
					D[l] = carefulFMA(A[l], B[l], E[l])
				}
			}
		}
	case t.name == "f64":
		c.ternary64(func(a, b, e uint64) uint64 { return bits64(math.FMA(double(a), double(b), double(e))) })
	case t.kind == 'f' || t.kind == 'h':
		s, pair := smallOf(t), t.bits == 32
		one := func(a, b, e uint16) uint32 { // the product of two is exact in float64
			return uint32(s.narrow(oddFloat(sumToOdd(float64(s.widen(a))*float64(s.widen(b)), float64(s.widen(e)))), false))
		}
		c.ternary32(func(a, b, e uint32) uint32 {
			v := one(uint16(a), uint16(b), uint16(e))
			if pair {
				v |= one(uint16(a>>16), uint16(b>>16), uint16(e>>16)) << 16
			}
			return v
		})
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func (c *compiler) quotient(t scalar) {
	switch t.name {
	case "f32": // the approximate ones are simulated as exact: a GPU's last bits may differ
		c.need("rn", "full", "approx")
		c.binary32(func(a, b uint32) uint32 { return bits32(float(a) / float(b)) })
	case "f64":
		c.need("rn")
		c.binary64(func(a, b uint64) uint64 { return bits64(double(a) / double(b)) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func root(c *compiler) {
	switch t := c.typ(); t.name {
	case "f32": // rounding the root in float64 again is rounding it once
		c.need("rn", "approx")
		c.unary32(func(a uint32) uint32 { return bits32(float32(math.Sqrt(float64(float(a))))) })
	case "f64":
		c.need("rn")
		c.unary64(func(a uint64) uint64 { return bits64(math.Sqrt(double(a))) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

func reciprocal(c *compiler) {
	switch t := c.typ(); t.name {
	case "f32":
		c.need("rn", "approx")
		c.unary32(func(a uint32) uint32 { return bits32(1 / float(a)) })
	case "f64":
		c.need("rn")
		c.unary64(func(a uint64) uint64 { return bits64(1 / double(a)) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

// approximate functions are simulated as the nearest number: a GPU's last bits may differ.
func approximate(c *compiler) {
	f := map[string]func(float64) float64{"ex2": math.Exp2, "lg2": math.Log2, "sin": math.Sin, "cos": math.Cos, "tanh": math.Tanh,
		"rsqrt": func(x float64) float64 { return 1 / math.Sqrt(x) }}[c.name]
	if t := c.typ(); t.name != "f32" {
		c.bad("type .%s is not simulated", t.name)
	}
	c.need("approx")
	flush := c.has("ftz")
	c.unary32(func(a uint32) uint32 {
		if flush {
			a = flushed(a)
		}
		v := bits32(float32(f(float64(float(a)))))
		if flush {
			v = flushed(v)
		}
		return v
	})
}

// flushed is zero for a number below the normal ones.
func flushed(a uint32) uint32 {
	if a&0x7f800000 == 0 {
		return a & (1 << 31)
	}
	return a
}

// signBit makes abs and neg: functions of the bits that know which is the sign.
func (c *compiler) signBit(t scalar, f func(sign, a uint64) uint64) {
	switch {
	case t.name == "f64":
		c.unary64(func(a uint64) uint64 { return f(1<<63, a) })
	case t.name == "f32" || t.bits == 16:
		c.unary32(func(a uint32) uint32 { return uint32(f(1<<(t.bits-1), uint64(a))) })
	case t.bits == 32:
		c.unary32(func(a uint32) uint32 { return uint32(f(1<<31|1<<15, uint64(a))) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

// copySign takes the sign of the first and the rest of the second.
func copySign(c *compiler) {
	switch t := c.typ(); t.name {
	case "f32":
		c.binary32(func(a, b uint32) uint32 { return a&(1<<31) | b&^(1<<31) })
	case "f64":
		c.binary64(func(a, b uint64) uint64 { return a&(1<<63) | b&^(1<<63) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}

// choice is the larger or the smaller number: a NaN loses unless it is to be passed on; -0 is below +0.
func choice(a, b float64, largest, pass bool) float64 {
	switch {
	case a != a && b != b || pass && (a != a || b != b):
		return math.NaN()
	case a != a:
		return b
	case b != b:
		return a
	case largest:
		return math.Max(a, b)
	}
	return math.Min(a, b)
}

func (c *compiler) floatExtreme(t scalar, largest bool) {
	pass := c.has("NaN")
	switch {
	case t.name == "f32" && !pass:
		c.binary32(func(a, b uint32) uint32 {
			x, y := float(a), float(b)
			switch {
			case x != x && y != y:
				return nan32
			case x != x:
				return b
			case y != y:
				return a
			case x == y: // zeros of either sign
				if (a>>31 == 0) == largest {
					return a
				}
				return b
			case (x > y) == largest:
				return a
			}
			return b
		})
	case t.name == "f32":
		c.binary32(func(a, b uint32) uint32 {
			return bits32(float32(choice(float64(float(a)), float64(float(b)), largest, pass)))
		})
	case t.name == "f64" && !pass:
		c.binary64(func(a, b uint64) uint64 { return bits64(choice(double(a), double(b), largest, false)) })
	case t.kind == 'h' || t.kind == 'f' && t.bits < 64:
		c.small2(t, func(a, b float32) float32 { return float32(choice(float64(a), float64(b), largest, pass)) })
	default:
		c.bad("type .%s is not simulated", t.name)
	}
}
