package cpu

import (
	"math"
	"testing"
)

// ulps is how far got is from want, in units of the last place of a float32 at want.
func ulps(got float32, want float64) float64 {
	w := float32(want)
	if math.IsInf(float64(w), 0) || math.IsInf(float64(got), 0) {
		if w == got {
			return 0
		}
		// Either side of the largest number: one ulp from it to infinity.
		return math.Abs(math.Min(want, math.MaxFloat32)-math.Min(float64(got), math.MaxFloat32)) / math.Exp2(104)
	}
	_, e := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Exp2(float64(max(e-24, -149)))
}

func TestExpEnds(t *testing.T) {
	inf := math.Inf(1)
	x := []float32{0, float32(math.Copysign(0, -1)), float32(inf), float32(-inf), 88.8, 1000, -104, -1e30, 1e-45, -1e-45, -103.9, math.MaxFloat32}
	want := []float64{1, 1, inf, 0, inf, inf, 0, 0, 1, 1, math.SmallestNonzeroFloat32, inf}
	y := make([]float32, len(x))
	exp(y, x)
	for i := range x {
		if y[i] != float32(want[i]) || exp32(x[i]) != y[i] {
			t.Errorf("exp(%g) = %g and, in Go, %g, want %g", x[i], y[i], exp32(x[i]), want[i])
		}
	}
	nan := []float32{float32(math.NaN())}
	if exp(nan, nan); nan[0] == nan[0] {
		t.Errorf("exp(NaN) = %g", nan[0])
	}
}

// The exponential's error: over every third float32 (a stride of 3, a minute) the worst is 1.010 ulp.
func TestExpError(t *testing.T) {
	stride := uint64(1021) // a prime: every exponent and every last bit is met
	if !useAssembly && !useNarrow {
		stride = 40009
	}
	x, y := make([]float32, 1<<12), make([]float32, 1<<12)
	worst, at, n := 0.0, float32(0), 0
	for b := uint64(0); b < 1<<32; {
		k := 0
		for ; k < len(x) && b < 1<<32; b += stride {
			if v := math.Float32frombits(uint32(b)); v == v && v > -110 && v < 90 {
				x[k] = v
				k++
			}
		}
		exp(y[:k], x[:k])
		for i, v := range x[:k] {
			if e := ulps(y[i], math.Exp(float64(v))); e > worst {
				worst, at = e, v
			}
		}
		n += k
	}
	t.Logf("worst of %d: %.3f ulp at %g", n, worst, at)
	if worst > 1.02 {
		t.Errorf("exp(%g) is %.3f ulp off", at, worst)
	}
}
