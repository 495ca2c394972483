package ptxsim

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// integers are words at which integer instructions may go wrong.
func integers(rng *rand.Rand) uint64 {
	edges := []uint64{0, 1, 2, 7, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1<<64 - 2}
	if rng.IntN(2) == 0 {
		return edges[rng.IntN(len(edges))]
	}
	return rng.Uint64() >> rng.IntN(60)
}

// exact is what the bits of a type stand for, with its sign.
func exact(name string, v uint64) *big.Int {
	t := scalars[name]
	x := new(big.Int).And(new(big.Int).SetUint64(v), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(t.bits)), big.NewInt(1)))
	if t.kind == 's' && x.Bit(t.bits-1) == 1 {
		x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(t.bits)))
	}
	return x
}

// low are the low bits of a whole number.
func low(x *big.Int, bits int) uint64 {
	return new(big.Int).And(x, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(bits)), big.NewInt(1))).Uint64()
}

func bigOp(f func(z, a, b *big.Int) *big.Int) func(x []*big.Int) *big.Int {
	return func(x []*big.Int) *big.Int { return f(new(big.Int), x[0], x[1]) }
}

// An integerRow is an instruction, the types of its operands and what it gives: nil where that is not defined.
type integerRow struct {
	op, types string
	out       string // "": the type of the first operand
	f         func(x []*big.Int) *big.Int
}

func integerRows() []integerRow {
	product := bigOp((*big.Int).Mul)
	high := func(bits int) func(x []*big.Int) *big.Int {
		return func(x []*big.Int) *big.Int { return new(big.Int).Rsh(product(x), uint(bits)) }
	}
	plus := func(f func([]*big.Int) *big.Int) func(x []*big.Int) *big.Int {
		return func(x []*big.Int) *big.Int { return new(big.Int).Add(f(x), x[2]) }
	}
	pick := func(sign int) func(x []*big.Int) *big.Int {
		return func(x []*big.Int) *big.Int {
			if x[0].Cmp(x[1]) == sign {
				return x[0]
			}
			return x[1]
		}
	}
	shifted := func(left bool) func(x []*big.Int) *big.Int {
		return func(x []*big.Int) *big.Int {
			n := uint(min(x[1].Uint64(), 200))
			if left {
				return new(big.Int).Lsh(x[0], n)
			}
			return new(big.Int).Rsh(x[0], n)
		}
	}
	quotient := func(f func(z, a, b *big.Int) *big.Int) func(x []*big.Int) *big.Int {
		return func(x []*big.Int) *big.Int {
			if x[1].Sign() == 0 {
				return nil // no defined result
			}
			return f(new(big.Int), x[0], x[1])
		}
	}
	rows := []integerRow{}
	every := func(op string, names string, n int, f func(x []*big.Int) *big.Int) {
		for _, name := range strings.Fields(names) {
			rows = append(rows, integerRow{op + "." + name, strings.TrimSpace(strings.Repeat(name+" ", n)), "", f})
		}
	}
	every("add", "s16 u16 s32 u32 s64 u64", 2, bigOp((*big.Int).Add))
	every("sub", "s16 u16 s32 u32 s64 u64", 2, bigOp((*big.Int).Sub))
	every("mul.lo", "s16 u16 s32 u32 s64 u64", 2, product)
	every("mad.lo", "s16 u16 s32 u32 s64 u64", 3, plus(product))
	every("min", "s16 u16 s32 u32 s64 u64", 2, pick(-1))
	every("max", "s16 u16 s32 u32 s64 u64", 2, pick(1))
	every("div", "s16 u16 s32 u32 s64 u64", 2, quotient((*big.Int).Quo))
	every("rem", "s16 u16 s32 u32 s64 u64", 2, quotient((*big.Int).Rem))
	every("and", "b16 b32 b64", 2, bigOp((*big.Int).And))
	every("or", "b16 b32 b64", 2, bigOp((*big.Int).Or))
	every("xor", "b16 b32 b64", 2, bigOp((*big.Int).Xor))
	every("not", "b16 b32 b64", 1, func(x []*big.Int) *big.Int { return new(big.Int).Not(x[0]) })
	every("neg", "s16 s32 s64", 1, func(x []*big.Int) *big.Int { return new(big.Int).Neg(x[0]) })
	every("abs", "s16 s32 s64", 1, func(x []*big.Int) *big.Int { return new(big.Int).Abs(x[0]) })
	for _, c := range []struct {
		name string
		bits int
	}{{"s16", 16}, {"u16", 16}, {"s32", 32}, {"u32", 32}, {"s64", 64}, {"u64", 64}} {
		every("mul.hi", c.name, 2, high(c.bits))
		every("mad.hi", c.name, 3, plus(high(c.bits)))
	}
	for narrow, wide := range map[string]string{"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"} {
		rows = append(rows, integerRow{"mul.wide." + narrow, narrow + " " + narrow, wide, product},
			integerRow{"mad.wide." + narrow, narrow + " " + narrow + " " + wide, wide, plus(product)})
	}
	for _, name := range []string{"b16", "b32", "b64"} {
		rows = append(rows, integerRow{"shl." + name, name + " u32", "", shifted(true)})
	}
	for _, name := range []string{"s16", "u16", "b16", "s32", "u32", "b32", "s64", "u64", "b64"} {
		rows = append(rows, integerRow{"shr." + name, name + " u32", "", shifted(false)})
	}
	for _, from := range []string{"s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"} {
		for _, to := range []string{"u16", "s16", "s32", "u32", "s64", "u64"} {
			rows = append(rows, integerRow{"cvt." + to + "." + from, from, to, func(x []*big.Int) *big.Int { return x[0] }})
		}
	}
	return rows
}

// Integer instructions against whole numbers of any size, cut to the type's bits at the end.
func TestIntegers(t *testing.T) {
	rows := integerRows()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range rows {
		in := strings.Fields(c.types)
		if c.out == "" {
			c.out = in[0]
		}
		words := make([][]uint64, 500)
		for i := range words {
			for range in {
				words[i] = append(words[i], integers(rng))
			}
		}
		text := c.op + " $0"
		for i := range in {
			text += ", $" + string(rune('1'+i))
		}
		for i, got := range (single{text, c.out, in}).play(t, words) {
			var x []*big.Int
			for j, name := range in {
				x = append(x, exact(name, words[i][j]))
			}
			want := c.f(x)
			if want != nil && got != low(want, scalars[c.out].bits) {
				t.Errorf("%s of %v is %v: %#x, not %#x", c.op, x, want, low(want, scalars[c.out].bits), got)
				break
			}
		}
	}
	t.Logf("%d instructions", len(rows))
}
