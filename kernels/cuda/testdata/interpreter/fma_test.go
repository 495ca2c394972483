package interpreter

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fma32 is the exact a·b + c rounded once, near cancellation and near ties too, where rounding to float64
// on the way would be seen.
func TestFMA(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	twice := 0
	for i := range 100000 {
		number := func(e int) float32 {
			return float32(math.Ldexp(float64(int32(rng.Uint32N(1<<25))-1<<24), rng.IntN(2*e)-e-24))
		}
		a, b, c := number(20), number(20), number(60)
		switch i % 3 {
		case 0:
			c = -a * b
		case 1:
			a, b = float32(97)*float32(math.Ldexp(1, rng.IntN(9))), float32(172961)*float32(math.Ldexp(1, -24))
			c = number(40)
		}
		exact := func(x float32) *big.Float { return new(big.Float).SetPrec(1000).SetFloat64(float64(x)) }
		x := exact(a)
		want, _ := x.Mul(x, exact(b)).Add(x, exact(c)).Float32()
		if got := fma32(a, b, c); got != want {
			t.Fatalf("%v·%v + %v is %v, not %v", a, b, c, want, got)
		}
		if float32(math.FMA(float64(a), float64(b), float64(c))) != want {
			twice++
		}
	}
	if twice == 0 {
		t.Error("none of the cases would show a second rounding")
	}
}
