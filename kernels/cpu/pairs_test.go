package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// chainOfPairs is x·wᵀ as Format says of Acts BF16, written from the definition: x rounded, the odd
// element of a pair first.
func chainOfPairs(x, w matrix) matrix {
	out := matrix{x.rows, w.rows, make([]float32, x.rows*w.rows)}
	at := func(m matrix, i, k int) float32 {
		if k >= m.cols {
			return 0
		}
		return math.Float32frombits(uint32(roundBits(math.Float32bits(m.at(i, k)))) << 16)
	}
	for i := range x.rows {
		for j := range w.rows {
			var s float32
			for k := 0; k < x.cols; k += 2 {
				for _, p := range []int{k + 1, k} {
					s = fma32(at(x, i, p), at(w, j, p), s)
				}
			}
			out.v[i*w.rows+j] = s
		}
	}
	return out
}

// A product with activations of bf16 is one chain over pairs, however it is cut, in every form.
func TestLinearOfPairsIsOneChain(t *testing.T) {
	eachPairForm(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(31, 1))
		f := kernels.Format{Type: kernels.BF16, Acts: kernels.BF16}
		for i, s := range [][2]int{{1, 1}, {5, 3}, {33, 31}, {97, 40}, {20, 1024}, {70, 3301}} {
			d := New(1 + i%3)
			raw, values := stored(kernels.BF16, random(r, s[0], s[1]))
			w := d.Load(f, s[0], s[1], raw)
			for _, m := range []int{1, 2, 14, 15, 45} {
				x := random(r, m, s[1])
				out := put(t, d, nans(m, s[0]), m%3)
				d.Linear(out, put(t, d, x, 1), w, kernels.Tensor{})
				wantBits(t, fmt.Sprintf("%dx%d, %d rows", s[0], s[1], m), get(t, d, out), chainOfPairs(x, values))
			}
			dout := random(r, 9, s[0])
			dx := put(t, d, matrix{9, s[1], make([]float32, 9*s[1])}, 1)
			d.LinearGrad(dx, put(t, d, dout, 0), w)
			wantBits(t, fmt.Sprintf("gradient of %dx%d", s[0], s[1]), get(t, d, dx), chain(dout, values.transposed(), matrix{}, 1, nil))
			d.Close()
		}
	})
}

// hardPairs gives f pairs and sums of every kind: any bits, neighbours in size, and results about the
// smallest normal number.
func hardPairs(r *rand.Rand, n int, f func(sum float32, x, w uint32)) {
	for i := range n {
		x, w, sum := r.Uint32(), r.Uint32(), r.Uint32()
		exponent := func(e, spread int) uint32 { return uint32(max(0, min(254, e+r.IntN(2*spread+1)-spread))) }
		if kind := i % 4; kind > 0 {
			center := []int{0, 127, 127, 64}[kind]
			for _, p := range []*uint32{&x, &w} {
				*p = *p&0x807f807f | exponent(center, 3*kind)<<23 | exponent(center, 3*kind)<<7
			}
			sum = sum&0x807fffff | exponent(2*center-127, 6)<<23
		}
		clear := func(v uint32) uint32 { // what packing and rounding make of subnormal numbers
			if v&0x7f80 == 0 {
				v &= 0xffff8000
			}
			if v&0x7f800000 == 0 {
				v &= 0x8000ffff
			}
			return v
		}
		if sum&0x7f800000 == 0 {
			sum &= 1 << 31
		}
		f(math.Float32frombits(sum), clear(x), clear(w))
	}
	half := func(v float32) uint32 { return math.Float32bits(v) >> 16 }
	f(0x1p-126, half(0x1.8p-75), half(-0x1p-76)) // rounds up to the smallest normal number, yet is below it
	f(0x1p-126, half(0x1p-75)<<16, half(-0x1p-76)<<16)
}

// The sum of a pair gives the bits of whatever multiplies pairs here.
func TestPairSumIsTheInstruction(t *testing.T) {
	eachPairForm(t, func(t *testing.T) {
		hardPairs(rand.New(rand.NewPCG(32, 1)), 400_000, func(sum float32, x, w uint32) {
			out := sum
			tl := tile{panel: unsafe.Pointer(&w), x: unsafe.Pointer(&x), out: unsafe.Pointer(&out), k: 1, mask: 1, start: 1, alpha: 1}
			tl.ahead = uintptr(tl.panel)
			tl.pairs(1)
			if want := pairSum(sum, x, w); !same(out, want) {
				t.Fatalf("%x + %08x·%08x = %x, the twin gives %x", math.Float32bits(sum), x, w, math.Float32bits(out), math.Float32bits(want))
			}
		})
	})
}

// Rounding to bf16 gives, in every form, the nearer of the two neighbours, and of two as near the even one.
func TestRoundIsNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 1))
	for n := range 70 {
		x := make([]float32, n+1)
		for i := range x {
			bits := r.Uint32()
			switch r.IntN(3) {
			case 0:
				bits = bits&^0xffff | 0x8000 // a tie
			case 1:
				bits &= 0x80ffffff // small, or subnormal
			}
			x[i] = math.Float32frombits(bits)
		}
		got, twin := make([]uint16, n+16), make([]uint16, n+16)
		for i, to := range [][]uint16{got, twin} {
			m := move{dst: unsafe.Pointer(&to[0]), src: unsafe.Pointer(&x[0]), n: n / 16, mask: maskOf(n % 16)}
			if i == 0 {
				m.round()
			} else {
				m.roundGo()
			}
		}
		for i, v := range x[:n] {
			if got[i] != twin[i] || !isNearest(got[i], v) {
				t.Fatalf("%v (%#x) is %#x, in Go %#x", v, math.Float32bits(v), got[i], twin[i])
			}
		}
		for i := n; i < (n+15)&^15; i++ {
			if got[i] != 0 || twin[i] != 0 {
				t.Fatalf("element %d after %d is %#x, in Go %#x", i, n, got[i], twin[i])
			}
		}
	}
}

// isNearest reports whether h is the bf16 for v, by distances to it and to its neighbours.
func isNearest(h uint16, v float32) bool {
	value := func(h uint16) float64 { return float64(math.Float32frombits(uint32(h) << 16)) }
	a, b := math.Abs(float64(v)), value(h&0x7fff)
	switch {
	case math.Signbit(float64(v)) != (h>>15 == 1):
		return false
	case v != v:
		return b != b
	case a < 0x1p-126:
		return b == 0
	case b > math.MaxFloat32: // infinity: the largest is 2⁸ units, and half a unit more ties to the even infinity
		return a >= 0x1.ffp127
	}
	less, more := a-value(h&0x7fff-1), value(h&0x7fff+1)-a
	here := math.Abs(a - b)
	return here < less && here < more || (here == less || here == more) && h&1 == 0
}
