package cpu

import "math"

// fma32 is x·y + z rounded once, as the processor's fused multiply-add does it. The product of two
// float32 is exact in float64. When the float64 sum does not lie halfway between two float32, it lies
// on the same side of every such point as the exact sum does, and rounding it again is harmless. The
// remaining cases, and subnormal results, where those points lie elsewhere, go the long way.
// (float32(math.FMA(…)) rounds twice and is wrong once in some 10⁸.)
func fma32(x, y, z float32) float32 {
	s := float64(x)*float64(y) + float64(z)
	if b := math.Float64bits(s); b&(1<<29-1) == 1<<28 || b<<1 < (1023-126)<<53 {
		return fma32Odd(x, y, z)
	}
	return float32(s)
}

// fma32Odd rounds the sum to odd in float64 (Boldo and Melquiond 2008), so that the rounding to float32
// sees on which side of a halfway point the exact sum is.
//
//go:noinline
func fma32Odd(x, y, z float32) float32 {
	p, c := float64(float64(x)*float64(y)), float64(z)
	s := p + c
	t := s - p
	e := (p - (s - t)) + (c - t) // p + c - s, exactly (TwoSum)
	if e != 0 && e == e {        // NaN where s is Inf or NaN, with nothing to correct
		b := math.Float64bits(s)
		if b&1 == 0 {
			if math.Signbit(e) == math.Signbit(s) {
				b++
			} else {
				b--
			}
		}
		s = math.Float64frombits(b)
	}
	return float32(s)
}
