package ptxsim

import "math"

// Numbers are kept as their bits, those of up to 32 bits in the low part of a word. A result that is no
// number is PTX's canonical NaN.
const (
	nan32   = 0x7fffffff
	nan64   = 0x7fffffffffffffff
	nan16   = 0x7fff // of f16 and of bf16
	allBits = ^uint32(0)
)

func float(b uint32) float32  { return math.Float32frombits(b) }
func double(b uint64) float64 { return math.Float64frombits(b) }

// bits32 and bits64 are the bits of a result.
func bits32(f float32) uint32 {
	if f != f {
		return nan32
	}
	return math.Float32bits(f)
}

func bits64(f float64) uint64 {
	if f != f {
		return nan64
	}
	return math.Float64bits(f)
}

// onceMore reports whether a float64 is a number, normal in float32, and no tie of two; or zero.
func onceMore(u uint64) bool {
	return u&(1<<29-1) != 1<<28 && uint32(u>>52&0x7ff)-897 < 0x7ff-897 || u<<1 == 0
}

// carefulFMA is a·b + c, rounded once. The product is exact in float64.
func carefulFMA(a, b, c uint32) uint32 {
	return bits32(float32(sumToOdd(float64(float(a))*float64(float(b)), float64(float(c)))))
}

// sumToOdd is p + q; where that is not exact, of the two neighbours the one whose last bit is 1. It can be rounded
// again to fewer bits as if it were exact.
func sumToOdd(p, q float64) float64 {
	s := p + q
	v := s - p
	rest := (p - (s - v)) + (q - v) // what s leaves out, exactly
	u := math.Float64bits(s)
	if rest != 0 && u&1 == 0 && !math.IsNaN(rest) && !math.IsInf(s, 0) {
		if (rest > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return math.Float64frombits(u)
}

// oddFloat is x in float32, by the rule of sumToOdd.
func oddFloat(x float64) float32 {
	f := float32(x)
	if x != x || float64(f) == x {
		return f
	}
	u := math.Float32bits(f)
	if math.Abs(float64(f)) > math.Abs(x) {
		u-- // towards zero, from infinity too
	}
	return math.Float32frombits(u | 1)
}

// A small is a format of 16 bits: bf16 or f16.
type small struct{ exponent, fraction int }

var (
	bfloat = small{8, 7}
	half   = small{5, 10}
)

func smallOf(t scalar) small {
	if t.kind == 'h' {
		return bfloat
	}
	return half
}

// widen is the number of which h is the bits.
func (s small) widen(h uint16) float32 {
	if s == bfloat {
		return float(uint32(h) << 16)
	}
	sign, e, f := uint32(h)>>15<<31, int(h>>10&31), uint32(h&1023)
	switch e {
	case 31:
		return float(sign | 0x7f800000 | f<<13)
	case 0:
		v := float32(f) / (1 << 24)
		return float(math.Float32bits(v) | sign)
	}
	return float(sign | uint32(e+112)<<23 | f<<13)
}

// narrow rounds x to the nearest, ties to even, or towards zero; with saturate to the largest number at most.
func (s small) narrow(x float32, towardsZero bool) uint16 {
	if x != x {
		return nan16
	}
	u := math.Float32bits(x)
	sign, mag := uint16(u>>31<<15), u&0x7fffffff
	if mag == 0x7f800000 {
		return sign | uint16(1<<s.exponent-1)<<s.fraction
	}
	drop := 23 - s.fraction
	shift := 127 - (1<<(s.exponent-1) - 1) // of the exponents
	significand, e := uint64(mag&(1<<23-1)), int(mag>>23)
	if e > 0 {
		significand |= 1 << 23
	} else {
		e = 1
	}
	if e -= shift; e < 1 { // below the normal numbers
		drop, e = min(drop+1-e, 40), 1
	}
	kept, rest, tie := significand>>drop, significand&(1<<drop-1), uint64(1)<<(drop-1)
	if !towardsZero && (rest > tie || rest == tie && kept&1 == 1) {
		kept++
	}
	// A significand that has no leading 1 is that of exponent 0; one that was rounded up to the next power carries.
	v := uint64(e-1)<<s.fraction + kept
	if most := uint64(1<<s.exponent-1) << s.fraction; v >= most {
		v = most
		if towardsZero {
			v--
		}
	}
	return sign | uint16(v)
}
