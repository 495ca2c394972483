package ptxsim

import "math"

// convert is cvt: between integers, between floating point, and from one to the other.
func convert(c *compiler) {
	from := c.typ()
	to := c.typ()
	if c.err != nil {
		return
	}
	switch isInt := (scalar).integer; {
	case from.name == "s32" && to.bits == 64 && isInt(to) && c.op(1).reg.bank != 64: // the most frequent, of addresses
		d, a := c.target(c.op(0), 64), c.source32(c.op(1))
		c.count(2, 2)
		c.in.run = func(w *warp, lanes uint32) {
			D, A := &w.r64[d], &w.r32[a]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = uint64(int64(int32(A[l])))
				}
			}
		}
	case isInt(from) && isInt(to):
		c.each(to, from, func(v uint64) uint64 { return from.extend(v) })
	case isInt(from):
		c.need("rn")
		c.each(to, from, fromInteger(c, to, from))
	case isInt(to):
		c.each(to, from, toInteger(c, to, from))
	case to.bits == 32 && to.name != "f32":
		c.pair(to, from)
	default:
		c.each(to, from, betweenFloats(c, to, from))
	}
}

// each makes an instruction of one operand; the result is cut to type to, and for a signed one in a wider
// register extended by its sign.
func (c *compiler) each(to, from scalar, f func(v uint64) uint64) {
	o := c.op(1)
	if o.kind == 'r' && o.reg.bank == 64 && from.bits < 64 && from.integer() { // a part of a wider register
		from.bits = 64
	}
	d, a := c.destination(c.op(0), to.bits), c.source(o, from.bits)
	c.count(2, 2)
	width := scalar{kind: 'b', bits: c.op(0).reg.bits}
	if width.bits == 0 {
		width.bits = 64
	}
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 != 0 {
				d.set(w, l, to.extend(f(a.get(w, l)))&width.mask())
			}
		}
	}
}

// pair is cvt.rn.bf16x2.f32 d, high, low, and that of f16x2.
func (c *compiler) pair(to, from scalar) {
	zero := c.need("rn", "rz") == "rz"
	if from.name != "f32" {
		c.bad("type .%s is not simulated", from.name)
	}
	s := smallOf(to)
	c.binary32(func(hi, lo uint32) uint32 {
		return uint32(s.narrow(float(hi), zero))<<16 | uint32(s.narrow(float(lo), zero))
	})
}

// wholes are the roundings to whole numbers.
var wholes = map[string]func(float64) float64{"rni": math.RoundToEven, "rzi": math.Trunc, "rmi": math.Floor, "rpi": math.Ceil}

// number64 is what the bits of a floating-point type stand for.
func number64(t scalar, v uint64) float64 {
	switch t.name {
	case "f64":
		return double(v)
	case "f32":
		return float64(float(uint32(v)))
	}
	return float64(smallOf(t).widen(uint16(v)))
}

func betweenFloats(c *compiler, to, from scalar) func(uint64) uint64 {
	if to == from {
		round := wholes[c.need("rni", "rzi", "rmi", "rpi")]
		if to.bits == 16 {
			c.bad("type .%s is not simulated", to.name)
			return nil
		}
		return func(v uint64) uint64 { return encode(to, round(number64(from, v))) }
	}
	if to.bits > from.bits { // exact
		return func(v uint64) uint64 { return encode(to, number64(from, v)) }
	}
	mode := c.need("rn", "rz")
	switch {
	case to.bits == 16 && from.name == "f32":
		s := smallOf(to)
		return func(v uint64) uint64 { return uint64(s.narrow(float(uint32(v)), mode == "rz")) }
	case to.name == "f32" && mode == "rn":
		return func(v uint64) uint64 { return encode(to, double(v)) }
	}
	c.bad("%s from %s is not simulated", to.name, from.name)
	return nil
}

// encode is x as f32, rounded, or f64.
func encode(to scalar, x float64) uint64 {
	if to.bits == 64 {
		return bits64(x)
	}
	return uint64(bits32(float32(x)))
}

func fromInteger(c *compiler, to, from scalar) func(uint64) uint64 {
	signed := from.signed()
	switch to.name {
	case "f32":
		return func(v uint64) uint64 {
			if v = from.extend(v); signed {
				return uint64(bits32(float32(int64(v))))
			}
			return uint64(bits32(float32(v)))
		}
	case "f64":
		return func(v uint64) uint64 {
			if v = from.extend(v); signed {
				return bits64(float64(int64(v)))
			}
			return bits64(float64(v))
		}
	}
	c.bad("%s from %s is not simulated", to.name, from.name)
	return nil
}

// toInteger rounds, and keeps what is out of range at the range's end; a NaN is 0.
func toInteger(c *compiler, to, from scalar) func(uint64) uint64 {
	round := wholes[c.need("rni", "rzi", "rmi", "rpi")]
	low, high := 0.0, math.Ldexp(1, to.bits) // high is out of range
	if to.signed() {
		low, high = -math.Ldexp(1, to.bits-1), math.Ldexp(1, to.bits-1)
	}
	return func(v uint64) uint64 {
		x := number64(from, v)
		if x != x {
			return 0
		}
		switch x = round(x); {
		case x <= low:
			return uint64(int64(low))
		case x >= high && to.signed():
			return to.mask() >> 1
		case x >= high:
			return to.mask()
		case to.signed():
			return uint64(int64(x))
		}
		return uint64(x)
	}
}
