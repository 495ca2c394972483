//go:build linux

package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
)

// leaves calls each leaf on five slices of one length, which it may write, two numbers and a mask.
var leaves = []struct {
	name string
	run  func(v [5][]float32, bits []uint32, a, m float32) float32
}{
	{"add", func(v [5][]float32, _ []uint32, _, _ float32) float32 { add(v[0], v[1], v[2]); return 0 }},
	{"scale", func(v [5][]float32, _ []uint32, a, _ float32) float32 { scale(v[0], v[1], a); return 0 }},
	{"mulScale", func(v [5][]float32, _ []uint32, a, _ float32) float32 { mulScale(v[0], v[1], v[2], a); return 0 }},
	{"rotate", func(v [5][]float32, _ []uint32, _, _ float32) float32 { rotate(v[0], v[1], v[2], v[3], -1); return 0 }},
	{"exp", func(v [5][]float32, _ []uint32, _, _ float32) float32 { exp(v[0], v[1]); return 0 }},
	{"maxScaled", func(v [5][]float32, b []uint32, a, _ float32) float32 { return maxScaled(v[0], b, a) }},
	{"softmax", func(v [5][]float32, _ []uint32, a, m float32) float32 { return softmax(v[0], v[1], a, m) }},
	{"sumExp", func(v [5][]float32, b []uint32, a, m float32) float32 { return sumExp(v[0], b, a, m) }},
	{"expScaled", func(v [5][]float32, b []uint32, a, m float32) float32 { expScaled(v[0], v[1], b, a, m, -0.7); return 0 }},
	{"swiglu", func(v [5][]float32, _ []uint32, _, _ float32) float32 { swiglu(v[0], v[1], v[2]); return 0 }},
	{"swigluGrad", func(v [5][]float32, _ []uint32, _, _ float32) float32 {
		swigluGrad(v[0], v[1], v[2], v[3], v[4])
		return 0
	}},
	{"dot", func(v [5][]float32, _ []uint32, _, _ float32) float32 { return dot(v[0], v[1]) }},
	{"dot3", func(v [5][]float32, _ []uint32, _, _ float32) float32 { return dot3(v[0], v[1], v[2]) }},
	{"normGrad", func(v [5][]float32, _ []uint32, a, m float32) float32 {
		normGrad(v[0], v[1], v[2], v[3], a, m)
		return 0
	}},
	{"normWeightGrad", func(v [5][]float32, _ []uint32, a, _ float32) float32 {
		normWeightGrad(v[0], v[1], v[2], a)
		return 0
	}},
	{"adamStep", func(v [5][]float32, _ []uint32, a, m float32) float32 {
		adamStep(v[0], v[1], v[2], v[3], &adam{scale: a, keep: 0.99, first: 0.1, beta2: 0.999, second: 0.001, root: 0.3, eps: 1e-8, step: m})
		return 0
	}},
	{"scoreGrad", func(v [5][]float32, _ []uint32, a, m float32) float32 { scoreGrad(v[0], v[1], a, m); return 0 }},
}

// odd are values that rounding, comparing and range reduction can go wrong on.
var odd = []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	1, -1, math.SmallestNonzeroFloat32, -1e-40, 1.2e-38, math.MaxFloat32, -math.MaxFloat32, 88.72, 88.73, 89, 90, -87.3, -87.4,
	-103.27, -103.28, -103.97, -103.98, -104, -105, 0.34657359, 1e10, -1e10}

func values(r *rand.Rand, s []float32) {
	wild := r.IntN(3) == 0
	for i := range s {
		s[i] = float32(r.NormFloat64())
		if wild && r.IntN(4) == 0 {
			s[i] = odd[r.IntN(len(odd))]
		} else if wild {
			s[i] *= float32(math.Exp2(float64(r.IntN(14) - 7)))
		}
	}
}

// Every leaf gives its twin's bits on any length and any values, and stays within its slices.
func TestLeavesAreTheirTwins(t *testing.T) { eachForm(t, leavesAreTheirTwins) }

func leavesAreTheirTwins(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	const most = 300
	var got, want, mem [5][]float32
	for i := range mem {
		mem[i] = floats("", fenced(t, matrix{1, most, make([]float32, most)}, true))
	}
	for _, leaf := range leaves {
		for range 250 {
			n := r.IntN(most)
			bits := make([]uint32, (n+31)/32)
			for i := range bits {
				bits[i] = r.Uint32() | r.Uint32()
			}
			if r.IntN(3) == 0 {
				bits = nil
			}
			for i := range mem {
				got[i] = mem[i][most-n:]
				values(r, got[i])
				want[i] = append([]float32(nil), got[i]...)
			}
			var a, m [1]float32
			values(r, a[:])
			values(r, m[:])
			g := leaf.run(got, bits, a[0], m[0])
			var w float32
			inGo(func() { w = leaf.run(want, bits, a[0], m[0]) })
			if !same(g, w) {
				t.Fatalf("%s of %d: returns %x, its twin %x", leaf.name, n, g, w)
			}
			for i := range got {
				for j := range got[i] {
					if !same(got[i][j], want[i][j]) {
						t.Fatalf("%s of %d: slice %d[%d] = %x, its twin %x (a %v, m %v)", leaf.name, n, i, j, got[i][j], want[i][j], a, m)
					}
				}
			}
		}
	}
}
