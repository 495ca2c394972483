package cpu

import "math"

// The exponential of a float32, by Cody and Waite's reduction x = n·ln2 + r and a polynomial on
// |r| ≤ ln2/2 (coefficients from Cephes' expf). The worst error over every third float32 is 1.010 ulp,
// subnormals included; -Inf gives 0, +Inf and what overflows give +Inf, NaN stays. The assembly does the
// same operations in the same order.
const (
	expLeast  = -104 // exp of it rounds to 0
	expMost   = 89   // exp of it rounds to +Inf
	expLog2e  = 1.44269504088896341
	expLn2Hi  = -0.693359375 // negative, for the fused multiply-add
	expLn2Lo  = 2.12194440e-4
	expCoeff5 = 1.9875691500e-4
	expCoeff4 = 1.3981999507e-3
	expCoeff3 = 8.3334519073e-3
	expCoeff2 = 4.1665795894e-2
	expCoeff1 = 1.6666665459e-1
	expCoeff0 = 5.0000001201e-1
)

// exp32 is the exponential that every leaf uses.
func exp32(x float32) float32 {
	if x != x {
		return x
	}
	x = min(max(x, expLeast), expMost)
	n := float32(math.RoundToEven(float64(float32(x * expLog2e))))
	r := fma32(n, expLn2Hi, x)
	r = fma32(n, expLn2Lo, r)
	p := float32(expCoeff5)
	p = fma32(p, r, expCoeff4)
	p = fma32(p, r, expCoeff3)
	p = fma32(p, r, expCoeff2)
	p = fma32(p, r, expCoeff1)
	p = fma32(p, r, expCoeff0)
	p = fma32(p, float32(r*r), r) + 1
	// The product is exact in float64, so that a subnormal result is rounded once.
	return float32(float64(p) * math.Float64frombits(uint64(int(n)+1023)<<52))
}

func expGo(out, x []float32) {
	for i, v := range x {
		out[i] = exp32(v)
	}
}

// allowed reports whether bit i of bits is set; nil allows all.
func allowed(bits []uint32, i int) bool { return bits == nil || bits[i/32]>>(i%32)&1 != 0 }

func maxScaledGo(x []float32, bits []uint32, a float32) float32 {
	var m partials
	for l := range m {
		m[l] = float32(math.Inf(-1))
	}
	for i, v := range x {
		if v *= a; allowed(bits, i) && v > m[i%len(m)] {
			m[i%len(m)] = v
		}
	}
	return m.max()
}

func softmaxGo(p, x []float32, a, m float32) float32 {
	var s partials
	for i, v := range x {
		p[i] = exp32(fma32(v, a, -m))
		s[i%len(s)] += p[i]
	}
	return s.sum()
}

func sumExpGo(x []float32, bits []uint32, a, m float32) float32 {
	var s partials
	for i, v := range x {
		if allowed(bits, i) {
			s[i%len(s)] += exp32(fma32(v, a, -m))
		}
	}
	return s.sum()
}

func expScaledGo(out, x []float32, bits []uint32, a, m, c float32) {
	for i, v := range x {
		if allowed(bits, i) {
			out[i] = float32(exp32(fma32(v, a, -m)) * c)
		} else {
			out[i] = 0
		}
	}
}

func swigluGo(out, gate, up []float32) {
	for i, g := range gate {
		out[i] = float32(g/(exp32(-g)+1)) * up[i]
	}
}

func swigluGradGo(dgate, dup, dy, gate, up []float32) {
	for i, g := range gate {
		s := 1 / (exp32(-g) + 1)
		d := dy[i]
		dup[i] = fma32(d, float32(g*s), dup[i])
		slope := float32(s * fma32(1-s, g, 1)) // of silu
		dgate[i] = fma32(float32(d*up[i]), slope, dgate[i])
	}
}
