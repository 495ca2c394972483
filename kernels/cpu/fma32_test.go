package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// same reports whether a and b are the same bits, or both NaN.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// hardFMA calls try with operands where double rounding, cancellation, underflow and overflow bite.
func hardFMA(r *rand.Rand, n int, try func(x, y, z float32)) {
	bits := func(exp, spread int) float32 { // random sign and fraction, biased exponent near exp
		e := exp + r.IntN(2*spread+1) - spread
		return math.Float32frombits(r.Uint32()&0x807fffff | uint32(min(max(e, 0), 255))<<23)
	}
	few := func(x float32) float32 { // clears a random number of low bits
		return math.Float32frombits(math.Float32bits(x) &^ (1<<uint(r.IntN(24)) - 1))
	}
	for range n {
		try(math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32()))
		x, y := bits(127, 20), bits(127, 20)
		p := float64(x) * float64(y)
		z := float32(-p)
		try(x, y, z)
		try(x, y, math.Float32frombits(math.Float32bits(z)+r.Uint32N(5)-2))
		try(x, y, bits(int(math.Float64bits(p)>>52&0x7ff)-1023+127, 60))
		try(few(bits(127, 30)), few(bits(127, 30)), few(bits(127, 60)))
		try(bits(40, 40), bits(60, 40), bits(3, 3))
		try(bits(64, 1), bits(64, 1), bits(0, 0))
		try(bits(190, 64), bits(190, 64), bits(252, 3))
		// A sum that lies on a halfway point but for what lies far below it.
		try(math.Float32frombits(0x3f800000|1<<uint(r.IntN(23))), math.Float32frombits(0x3f800000|r.Uint32N(4)),
			math.Float32frombits(0x3f800000+uint32(r.IntN(60)-30)<<23|r.Uint32N(4)))
		try(float32(r.NormFloat64()), float32(r.NormFloat64()), float32(r.NormFloat64()))
	}
}

// fma32 is the exact sum of arbitrary precision, rounded once.
func TestFMA32IsRoundedOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	finite := func(x float32) bool { return !math.IsInf(float64(x), 0) && x == x }
	seen := 0
	hardFMA(r, 3000, func(x, y, z float32) {
		if !finite(x) || !finite(y) || !finite(z) {
			return
		}
		exact := new(big.Float).SetPrec(2000).SetFloat64(float64(x))
		exact.Mul(exact, new(big.Float).SetFloat64(float64(y)))
		exact.Add(exact, new(big.Float).SetFloat64(float64(z)))
		want, _ := exact.Float32()
		if got := fma32(x, y, z); got != want {
			t.Errorf("fma32(%x, %x, %x) = %x, want %x", x, y, z, got, want)
		}
		seen++
	})
	if seen < 20000 {
		t.Fatalf("only %d finite cases", seen)
	}
}

func TestFMA32OfInfinities(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range [][4]float32{
		{inf, 1, 0, inf}, {inf, -1, 3, -inf}, {1, 1, inf, inf}, {inf, 0, 1, nan}, {inf, 1, -inf, nan},
		{nan, 1, 1, nan}, {1, nan, 1, nan}, {1, 1, nan, nan}, {3e38, 3e38, -inf, -inf}, {3e38, 3e38, 0, inf},
		{0, -1, 0, 0}, {1, 1, -1, 0},
	} {
		if got := fma32(c[0], c[1], c[2]); !same(got, c[3]) {
			t.Errorf("fma32(%v, %v, %v) = %v, want %v", c[0], c[1], c[2], got, c[3])
		}
	}
}

func BenchmarkFMA32(b *testing.B) {
	c := float32(1)
	for b.Loop() {
		c = fma32(0.999, c, 0.25)
	}
}
