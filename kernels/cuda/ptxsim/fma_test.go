package ptxsim

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// A product that is a tie of two numbers, and a third number too small to be seen in a sum of twice the bits: it decides which
// way the one rounding goes. Rounding twice is right for half of them.
func TestFusedTies(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for name, c := range map[string]struct{ bits, tiny int }{"f32": {24, -80}, "bf16": {8, -40}, "f16": {11, -22}, "f64": {53, -120}} {
		words := make([][]uint64, 400)
		for i := range words {
			least := int64(1) << (c.bits - 1)
			b := least + rng.Int64N(2*least*2/3-least)/2*2 + 1 // 3b has one bit more than the type, and is odd
			x := []float64{1.5, math.Ldexp(float64(b), 1-c.bits), math.Ldexp(float64(2*rng.IntN(2)-1), c.tiny)}
			for _, v := range x {
				words[i] = append(words[i], rounded(name, big.NewFloat(v)))
			}
		}
		up := 0
		for i, got := range (single{"fma.rn." + name + " $0, $1, $2, $3", name, []string{name, name, name}}).play(t, words) {
			var x [3]*big.Float
			for j, v := range words[i] {
				x[j] = new(big.Float).SetPrec(3000).SetFloat64(decode(name, v))
			}
			p := new(big.Float).SetPrec(3000).Mul(x[0], x[1])
			if even := rounded(name, p); even != rounded(name, p.Add(p, x[2])) {
				up++
			}
			if want := rounded(name, p); got != want {
				t.Fatalf("fma.%s of %v is %#x, not %#x", name, x, want, got)
			}
		}
		if up < 100 {
			t.Errorf("%s: only %d of the cases would show a second rounding", name, up)
		}
	}
}
