package ptxsim

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/x448/float16"
)

// decode is what the bits of a floating-point type stand for, by other code than the simulator's.
func decode(name string, v uint64) float64 {
	switch name {
	case "f64":
		return math.Float64frombits(v)
	case "f32":
		return float64(math.Float32frombits(uint32(v)))
	case "bf16":
		return float64(math.Float32frombits(uint32(v) << 16))
	}
	return float64(float16.Frombits(uint16(v)).Float32())
}

// A ladder is all numbers of a format of 16 bits that are not below zero, and half the step beyond the last.
type ladder struct{ values []float64 }

var ladders = map[string]func() ladder{"f16": sync.OnceValue(func() ladder { return newLadder("f16") }),
	"bf16": sync.OnceValue(func() ladder { return newLadder("bf16") })}

func newLadder(name string) (l ladder) {
	for v := range uint64(0x8000) {
		x := decode(name, v)
		if math.IsInf(x, 1) {
			break
		}
		l.values = append(l.values, x)
	}
	return l
}

// round is the bits of the format's number nearest to x, of two the one with an even last bit; or towards zero.
func (l ladder) round(x *big.Float, towardsZero bool) uint64 {
	sign := uint64(0)
	if x.Signbit() {
		sign = 0x8000
		x = new(big.Float).Neg(x)
	}
	at := func(i int) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(l.values[i]) }
	i, found := slices.BinarySearchFunc(l.values, x, func(v float64, x *big.Float) int { return big.NewFloat(v).Cmp(x) })
	last := len(l.values) - 1
	switch {
	case found:
		return sign | uint64(i)
	case towardsZero:
		return sign | uint64(i-1)
	case i > last: // the next step would be as large as the last
		middle := new(big.Float).SetPrec(200).Sub(at(last), at(last-1))
		middle.Mul(middle, big.NewFloat(0.5)).Add(middle, at(last))
		if x.Cmp(middle) < 0 {
			return sign | uint64(last)
		}
		return sign | uint64(last+1)
	}
	middle := new(big.Float).SetPrec(200).Add(at(i-1), at(i))
	middle.Mul(middle, big.NewFloat(0.5))
	if c := x.Cmp(middle); c < 0 || c == 0 && i%2 == 1 {
		return sign | uint64(i-1)
	}
	return sign | uint64(i)
}

// rounded is the bits of a type's number nearest to x.
func rounded(name string, x *big.Float) uint64 {
	switch name {
	case "f64":
		v, _ := x.Float64()
		return math.Float64bits(v)
	case "f32":
		v, _ := x.Float32()
		return uint64(math.Float32bits(v))
	}
	return ladders[name]().round(x, false)
}

// specialBits are the bits of a NaN, an infinity or a zero.
func specialBits(name string, x float64) uint64 {
	t := scalars[name]
	if x != x {
		return t.mask() >> 1
	}
	sign := uint64(0)
	if math.Signbit(x) {
		sign = 1 << (t.bits - 1)
	}
	if x == 0 {
		return sign
	}
	return sign | map[string]uint64{"f64": 0x7ff << 52, "f32": 0xff << 23, "f16": 0x7c00, "bf16": 0x7f80}[name]
}

// floats are the bits of numbers at which floating-point instructions may go wrong.
func floats(name string, rng *rand.Rand) uint64 {
	t := scalars[name]
	exponent := map[string]int{"f64": 52, "f32": 23, "f16": 10, "bf16": 7}[name]
	one := map[string]uint64{"f64": 0x3ff << 52, "f32": 0x7f << 23, "f16": 0x3c00, "bf16": 0x3f80}[name]
	switch rng.IntN(8) {
	case 0:
		inf := specialBits(name, math.Inf(1))
		return []uint64{0, 1 << (t.bits - 1), 1, inf, inf | 1<<(t.bits-1), inf - 1, inf + 1, t.mask(), 1<<exponent - 1, 1 << exponent}[rng.IntN(10)]
	case 1, 2:
		return rng.Uint64() & t.mask()
	case 3: // few bits, so that sums tie and cancel
		return (one+uint64(rng.IntN(9)-4)<<exponent)&^(1<<(exponent-3)-1) | uint64(rng.IntN(2))<<(t.bits-1)
	}
	return (one+uint64(rng.IntN(25)-12)<<exponent|rng.Uint64()&(1<<exponent-1))&(1<<(t.bits-1)-1) | uint64(rng.IntN(2))<<(t.bits-1)
}

// Sums, products and fused ones against exact arithmetic rounded once.
func TestFloats(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	fused := func(x []float64) float64 { return math.FMA(x[0], x[1], x[2]) }
	for op, c := range map[string]struct {
		n       int
		machine func(x []float64) float64 // where no rounding is
		exact   func(x []*big.Float) *big.Float
	}{
		"add": {2, func(x []float64) float64 { return x[0] + x[1] }, func(x []*big.Float) *big.Float { return new(big.Float).SetPrec(3000).Add(x[0], x[1]) }},
		"sub": {2, func(x []float64) float64 { return x[0] - x[1] }, func(x []*big.Float) *big.Float { return new(big.Float).SetPrec(3000).Sub(x[0], x[1]) }},
		"mul": {2, func(x []float64) float64 { return x[0] * x[1] }, func(x []*big.Float) *big.Float { return new(big.Float).SetPrec(3000).Mul(x[0], x[1]) }},
		"fma": {3, fused, func(x []*big.Float) *big.Float {
			p := new(big.Float).SetPrec(3000).Mul(x[0], x[1])
			return p.Add(p, x[2])
		}},
		"div": {2, func(x []float64) float64 { return x[0] / x[1] }, func(x []*big.Float) *big.Float { return new(big.Float).SetPrec(3000).Quo(x[0], x[1]) }},
	} {
		for _, name := range []string{"f32", "f64", "bf16", "f16"} {
			if op == "div" && scalars[name].bits == 16 {
				continue
			}
			words := make([][]uint64, 2000)
			for i := range words {
				for range c.n {
					words[i] = append(words[i], floats(name, rng))
				}
			}
			text := op + ".rn." + name + " $0, $1, $2, $3"
			got := single{text[:len(text)-4*(3-c.n)], name, slices.Repeat([]string{name}, c.n)}.play(t, words)
			for i, row := range words {
				var x []float64
				var e []*big.Float
				special := false
				for _, v := range row {
					f := decode(name, v)
					x = append(x, f)
					special = special || f != f || math.IsInf(f, 0)
					if !special {
						e = append(e, new(big.Float).SetPrec(3000).SetFloat64(f))
					}
				}
				special = special || op == "div" && x[1] == 0
				want := uint64(0)
				if special {
					want = specialBits(name, c.machine(x))
				} else if sum := c.exact(e); sum.Sign() == 0 {
					want = specialBits(name, c.machine(x))
				} else {
					want = rounded(name, sum)
				}
				if got[i] != want {
					t.Errorf("%s.%s of %v is %#x, not %#x", op, name, x, want, got[i])
					break
				}
			}
		}
	}
}

// Every number of 16 bits is widened to itself and narrowed again; f32 is narrowed to the nearest.
func TestConversions(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{"bf16", "f16"} {
		var all, wide [][]uint64
		for v := range uint64(1 << 16) {
			all = append(all, []uint64{v})
		}
		for i, got := range (single{"cvt.f32." + name + " $0, $1", "f32", []string{name}}).play(t, all) {
			if x := decode(name, uint64(i)); x == x && decode("f32", got) != x || x != x && decode("f32", got) == decode("f32", got) {
				t.Fatalf("%s %#x is %v, not %v", name, i, x, decode("f32", got))
			}
		}
		for range 5000 {
			v := floats("f32", rng)
			if rng.IntN(2) == 0 { // a tie, or next to it
				v = uint64(math.Float32bits(float32(decode(name, floats(name, rng))))) + uint64(rng.IntN(3)-1) + 1<<(scalars["f32"].bits-17)*uint64(rng.IntN(2))
			}
			wide = append(wide, []uint64{v & 0xffffffff})
		}
		for _, mode := range []string{"rn", "rz"} {
			for i, got := range (single{"cvt." + mode + "." + name + ".f32 $0, $1", name, []string{"f32"}}).play(t, wide) {
				x := decode("f32", wide[i][0])
				want := specialBits(name, x)
				if x == x && !math.IsInf(x, 0) && x != 0 {
					want = ladders[name]().round(big.NewFloat(x), mode == "rz")
				}
				if got != want {
					t.Fatalf("%v in %s by %s is %#x, not %#x", x, name, mode, want, got)
				}
			}
		}
	}
	two := single{"cvt.rn.bf16x2.f32 $0, $1, $2", "b32", []string{"f32", "f32"}}.play(t, [][]uint64{{0x3f800000, 0x40490fdb}})
	if two[0] != 0x3f804049 { // 1 above, π below
		t.Errorf("a pair is %#x", two[0])
	}
}

// Whole numbers of floats, by all four roundings, and what is out of range.
func TestToIntegers(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	modes := map[string]func(float64) float64{"rni": math.RoundToEven, "rzi": math.Trunc, "rmi": math.Floor, "rpi": math.Ceil}
	for _, from := range []string{"f32", "f64"} {
		for _, to := range []string{"s16", "u16", "s32", "u32", "s64", "u64"} {
			for mode, round := range modes {
				words := make([][]uint64, 300)
				for i := range words {
					words[i] = []uint64{floats(from, rng)}
					if i%2 == 0 {
						x := float64(rng.IntN(1<<20)-1<<19) / 4 * math.Ldexp(1, rng.IntN(50))
						words[i][0] = rounded(from, big.NewFloat(x))
					}
				}
				for i, got := range (single{"cvt." + mode + "." + to + "." + from + " $0, $1", to, []string{from}}).play(t, words) {
					x, k := decode(from, words[i][0]), scalars[to]
					lo, hi := big.NewInt(0), new(big.Int).Lsh(big.NewInt(1), uint(k.bits))
					if k.kind == 's' {
						hi.Rsh(hi, 1)
						lo.Neg(hi)
					}
					hi.Sub(hi, big.NewInt(1))
					want := big.NewInt(0)
					switch {
					case math.IsInf(x, 1):
						want = hi
					case math.IsInf(x, -1):
						want = lo
					case x == x:
						want, _ = big.NewFloat(round(x)).Int(nil)
						if want.Cmp(hi) > 0 {
							want = hi
						} else if want.Cmp(lo) < 0 {
							want = lo
						}
					}
					if got != low(want, k.bits) {
						t.Fatalf("%v to %s by %s is %v, not %#x", x, to, mode, want, got)
					}
				}
			}
		}
	}
}

// Integers in floating point are the nearest; f64 in f32 too; whole parts stay what they are.
func TestFromIntegers(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, to := range []string{"f32", "f64"} {
		for _, from := range []string{"s16", "u16", "s32", "u32", "s64", "u64"} {
			words := make([][]uint64, 300)
			for i := range words {
				words[i] = []uint64{integers(rng)}
			}
			for i, got := range (single{"cvt.rn." + to + "." + from + " $0, $1", to, []string{from}}).play(t, words) {
				if want := rounded(to, new(big.Float).SetInt(exact(from, words[i][0]))); got != want {
					t.Fatalf("%v in %s is %#x, not %#x", exact(from, words[i][0]), to, want, got)
				}
			}
		}
	}
	var words [][]uint64
	for range 2000 {
		words = append(words, []uint64{floats("f64", rng)})
		words = append(words, []uint64{math.Float64bits(float64(math.Float32frombits(uint32(floats("f32", rng)))) * (1 + math.Ldexp(1, -25)))})
	}
	for i, got := range (single{"cvt.rn.f32.f64 $0, $1", "f32", []string{"f64"}}).play(t, words) {
		want := uint64(math.Float32bits(float32(decode("f64", words[i][0]))))
		if x := decode("f64", words[i][0]); x != x {
			want = specialBits("f32", x)
		}
		if got != want {
			t.Fatalf("%v in f32 is %#x, not %#x", decode("f64", words[i][0]), want, got)
		}
	}
}

// The larger and the smaller: a number before a NaN, -0 below +0; with .NaN the NaN.
func TestExtremes(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, name := range []string{"f32", "f64", "bf16", "f16"} {
		for _, op := range []string{"min", "max", "min.NaN", "max.NaN"} {
			if name == "f64" && strings.Contains(op, "NaN") {
				continue
			}
			words := make([][]uint64, 1000)
			for i := range words {
				words[i] = []uint64{floats(name, rng), floats(name, rng)}
				if i%4 == 0 {
					words[i] = []uint64{specialBits(name, 0), specialBits(name, math.Copysign(0, -1))}
				}
				if i%8 == 0 {
					slices.Reverse(words[i])
				}
			}
			for i, got := range (single{op + "." + name + " $0, $1, $2", name, []string{name, name}}).play(t, words) {
				a, b := decode(name, words[i][0]), decode(name, words[i][1])
				order := func(x float64) float64 { // puts -0 below +0
					if x == 0 && math.Signbit(x) {
						return -1e-323
					}
					return x
				}
				want := words[i][0]
				switch {
				case a != a && b != b, (a != a || b != b) && strings.Contains(op, "NaN"):
					want = specialBits(name, math.NaN())
				case a != a:
					want = words[i][1]
				case b != b:
				case (order(a) < order(b)) != (op[:3] == "min"):
					want = words[i][1]
				}
				if got != want {
					t.Fatalf("%s.%s of %v and %v is %#x, not %#x", op, name, a, b, want, got)
				}
			}
		}
	}
}
