package ptxsim

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func bit(v uint64, i int) uint64 { return v >> i & 1 }

// bitInstructions say by loops over bits, one at a time, what the instructions on bits must give.
var bitInstructions = []struct {
	text, out string
	in        []string
	f         func(x []uint64) uint64
}{
	{"popc.b32 $0, $1", "u32", []string{"b32"}, func(x []uint64) (n uint64) {
		for i := range 32 {
			n += bit(x[0], i)
		}
		return n
	}},
	{"popc.b64 $0, $1", "u32", []string{"b64"}, func(x []uint64) (n uint64) {
		for i := range 64 {
			n += bit(x[0], i)
		}
		return n
	}},
	{"clz.b32 $0, $1", "u32", []string{"b32"}, func(x []uint64) (n uint64) {
		for i := 31; i >= 0 && bit(x[0], i) == 0; i-- {
			n++
		}
		return n
	}},
	{"clz.b64 $0, $1", "u32", []string{"b64"}, func(x []uint64) (n uint64) {
		for i := 63; i >= 0 && bit(x[0], i) == 0; i-- {
			n++
		}
		return n
	}},
	{"brev.b32 $0, $1", "b32", []string{"b32"}, func(x []uint64) (v uint64) {
		for i := range 32 {
			v |= bit(x[0], i) << (31 - i)
		}
		return v
	}},
	{"bfind.u32 $0, $1", "u32", []string{"u32"}, func(x []uint64) uint64 {
		for i := 31; i >= 0; i-- {
			if bit(x[0], i) == 1 {
				return uint64(i)
			}
		}
		return 0xffffffff
	}},
	{"bfind.s32 $0, $1", "u32", []string{"s32"}, func(x []uint64) uint64 {
		for i := 31; i >= 0; i-- {
			if bit(x[0], i) != bit(x[0], 31) {
				return uint64(i)
			}
		}
		return 0xffffffff
	}},
	{"bfe.u32 $0, $1, $2, $3", "u32", []string{"u32", "u32", "u32"}, func(x []uint64) (v uint64) {
		for i := range min(int(x[2]&255), 32) {
			if p := i + int(x[1]&255); p < 32 {
				v |= bit(x[0], p) << i
			}
		}
		return v
	}},
	{"bfe.s32 $0, $1, $2, $3", "s32", []string{"s32", "u32", "u32"}, func(x []uint64) (v uint64) {
		pos, n := int(x[1]&255), int(x[2]&255)
		for i := range 32 {
			p := min(pos+min(i, n-1), 31)
			if n > 0 {
				v |= bit(x[0], p) << i
			}
		}
		return v
	}},
	{"bfi.b32 $0, $1, $2, $3, $4", "b32", []string{"b32", "b32", "u32", "u32"}, func(x []uint64) uint64 {
		v := x[1]
		for i := range min(int(x[3]&255), 32) {
			if p := i + int(x[2]&255); p < 32 {
				v = v&^(1<<p) | bit(x[0], i)<<p
			}
		}
		return v
	}},
	{"prmt.b32 $0, $1, $2, $3", "b32", []string{"b32", "b32", "b32"}, func(x []uint64) (v uint64) {
		from := []byte{byte(x[0]), byte(x[0] >> 8), byte(x[0] >> 16), byte(x[0] >> 24), byte(x[1]), byte(x[1] >> 8), byte(x[1] >> 16), byte(x[1] >> 24)}
		for i := range 4 {
			b := from[x[2]>>(4*i)&7]
			if x[2]>>(4*i)&8 != 0 {
				b = []byte{0, 255}[b>>7]
			}
			v |= uint64(b) << (8 * i)
		}
		return v
	}},
	{"lop3.b32 $0, $1, $2, $3, 0xCA", "b32", []string{"b32", "b32", "b32"}, func(x []uint64) uint64 { return x[0]&x[1] | ^x[0]&x[2] }},
	{"lop3.b32 $0, $1, $2, $3, 0x96", "b32", []string{"b32", "b32", "b32"}, func(x []uint64) uint64 { return x[0] ^ x[1] ^ x[2] }},
	{"shf.l.wrap.b32 $0, $1, $2, $3", "b32", []string{"b32", "b32", "u32"}, func(x []uint64) uint64 {
		return bits.RotateLeft64(x[1]<<32|x[0], int(x[2]&31)) >> 32
	}},
	{"shf.r.clamp.b32 $0, $1, $2, $3", "b32", []string{"b32", "b32", "u32"}, func(x []uint64) uint64 {
		return (x[1]<<32 | x[0]) >> min(x[2], 32)
	}},
	{"neg.f32 $0, $1", "f32", []string{"f32"}, func(x []uint64) uint64 { return x[0] ^ 1<<31 }},
	{"abs.f64 $0, $1", "f64", []string{"f64"}, func(x []uint64) uint64 { return x[0] &^ (1 << 63) }},
	{"neg.bf16 $0, $1", "bf16", []string{"bf16"}, func(x []uint64) uint64 { return x[0] ^ 1<<15 }},
	{"selp.b32 $0, $1, $2, $3", "b32", []string{"b32", "b32", "pred"}, func(x []uint64) uint64 {
		if x[2] != 0 {
			return x[0]
		}
		return x[1]
	}},
	{"not.pred $0, $1", "pred", []string{"pred"}, func(x []uint64) uint64 { return map[bool]uint64{x[0] == 0: 1}[true] }},
	{"xor.pred $0, $1, -1", "pred", []string{"pred"}, func(x []uint64) uint64 { return map[bool]uint64{x[0] == 0: 1}[true] }},
	{"or.pred $0, $1, 0", "pred", []string{"pred"}, func(x []uint64) uint64 { return map[bool]uint64{x[0] != 0: 1}[true] }},
	{"and.pred $0, $1, !$2", "pred", []string{"pred", "pred"}, func(x []uint64) uint64 { return map[bool]uint64{x[0] != 0 && x[1] == 0: 1}[true] }},
	{"mov.b64 {%r11, $0}, $1", "b32", []string{"b64"}, func(x []uint64) uint64 { return x[0] >> 32 }},
	{"mov.b32 $0, {$1, $2}", "b32", []string{"b16", "b16"}, func(x []uint64) uint64 { return x[0] | x[1]<<16 }},
	{"cnot.b32 $0, $1", "b32", []string{"b32"}, func(x []uint64) uint64 { return map[bool]uint64{x[0] == 0: 1}[true] }},
}

// Instructions on bits against their loops.
func TestBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for _, c := range bitInstructions {
		words := make([][]uint64, 400)
		for i := range words {
			for _, name := range c.in {
				v := integers(rng) & scalars[name].mask()
				if name == "pred" {
					v = uint64(rng.IntN(2))
				}
				words[i] = append(words[i], v)
			}
		}
		for i, got := range (single{c.text, c.out, c.in}).play(t, words) {
			if want := c.f(words[i]) & scalars[c.out].mask(); got != want {
				t.Errorf("%s of %#x is %#x, not %#x", c.text, words[i], want, got)
				break
			}
		}
	}
}

// Conditions of every type against Go's, and the ordered and unordered ones of floating point with NaNs.
func TestCompare(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 9))
	holds := func(cond string, cmp int) bool {
		switch cond {
		case "eq", "equ":
			return cmp == 0
		case "ne", "neu":
			return cmp != 0
		case "lt", "lo", "ltu":
			return cmp < 0
		case "le", "ls", "leu":
			return cmp <= 0
		case "gt", "hi", "gtu":
			return cmp > 0
		}
		return cmp >= 0
	}
	for _, name := range []string{"s16", "u16", "s32", "u32", "s64", "u64"} {
		conds := []string{"eq", "ne", "lt", "le", "gt", "ge"}
		if name[0] == 'u' {
			conds = append(conds, "lo", "ls", "hi", "hs")
		}
		for _, cond := range conds {
			words := make([][]uint64, 300)
			for i := range words {
				words[i] = []uint64{integers(rng), integers(rng)}
			}
			for i, got := range (single{"setp." + cond + "." + name + " $0, $1, $2", "pred", []string{name, name}}).play(t, words) {
				if want := holds(cond, exact(name, words[i][0]).Cmp(exact(name, words[i][1]))); (got == 1) != want {
					t.Fatalf("%s.%s of %#x is %v", cond, name, words[i], want)
				}
			}
		}
	}
	for _, name := range []string{"f32", "f64", "bf16"} {
		for _, cond := range []string{"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"} {
			words := make([][]uint64, 400)
			for i := range words {
				words[i] = []uint64{floats(name, rng), floats(name, rng)}
				if i%5 == 0 {
					words[i][1] = words[i][0]
				}
			}
			for i, got := range (single{"setp." + cond + "." + name + " $0, $1, $2", "pred", []string{name, name}}).play(t, words) {
				a, b := decode(name, words[i][0]), decode(name, words[i][1])
				cmp, nan := 0, math.IsNaN(a) || math.IsNaN(b)
				if a < b {
					cmp = -1
				} else if a > b {
					cmp = 1
				}
				want := !nan && holds(cond, cmp)
				switch {
				case cond == "num":
					want = !nan
				case cond == "nan":
					want = nan
				case nan && len(cond) == 3:
					want = true
				}
				if (got == 1) != want {
					t.Fatalf("%s.%s of %v and %v is %v", cond, name, a, b, want)
				}
			}
		}
	}
	both := single{"setp.lt.and.s32 $0|%p8, $1, $2, $3", "pred", []string{"s32", "s32", "pred"}}.play(t, [][]uint64{{1, 2, 1}, {1, 2, 0}, {2, 1, 1}})
	if both[0] != 1 || both[1] != 0 || both[2] != 0 {
		t.Errorf("with another predicate: %v", both)
	}
}

// Square roots, reciprocals and approximate functions are those of float64, rounded.
func TestFunctions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	for op, f := range map[string]func(float64) float64{"sqrt.rn": math.Sqrt, "rcp.rn": func(x float64) float64 { return 1 / x },
		"ex2.approx": math.Exp2, "lg2.approx": math.Log2, "rsqrt.approx": func(x float64) float64 { return 1 / math.Sqrt(x) }, "tanh.approx": math.Tanh} {
		words := make([][]uint64, 500)
		for i := range words {
			words[i] = []uint64{floats("f32", rng)}
		}
		for i, got := range (single{op + ".f32 $0, $1", "f32", []string{"f32"}}).play(t, words) {
			want := f(decode("f32", words[i][0]))
			if g := decode("f32", got); g != float64(float32(want)) && (g == g || want == want) {
				t.Errorf("%s of %v is %v, not %v", op, decode("f32", words[i][0]), float32(want), g)
				break
			}
		}
	}
	flushed := single{"ex2.approx.ftz.f32 $0, $1", "f32", []string{"f32"}}.play(t, [][]uint64{{uint64(math.Float32bits(-130))}, {1}})
	if flushed[0] != 0 || flushed[1] != uint64(math.Float32bits(1)) {
		t.Errorf("with .ftz: %#x", flushed)
	}
}
