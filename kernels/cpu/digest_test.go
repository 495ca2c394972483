//go:build linux

package cpu

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// The bits are the same on every processor: the digest that this test prints is compared between
// architectures by .ci/arm64. Its inputs are made without functions whose last bit an architecture may
// choose.
func TestDigest(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	hash := sha256.New()
	sum := func(x ...float32) {
		for _, v := range x {
			b := math.Float32bits(v)
			if v != v {
				b = 0x7fc00000 // which NaN an operation gives is the processor's choice
			}
			_ = binary.Write(hash, binary.LittleEndian, b)
		}
	}
	fill := func(x []float32) {
		for i := range x {
			if x[i] = float32(math.Ldexp(float64(r.Float32()-0.5), r.IntN(16)-8)); r.IntN(64) == 0 {
				x[i] = odd[r.IntN(len(odd))]
			}
		}
	}
	for _, leaf := range leaves {
		for range 40 {
			n := r.IntN(300)
			bits := make([]uint32, (n+31)/32)
			for i := range bits {
				bits[i] = r.Uint32() | r.Uint32()
			}
			var v [5][]float32
			for i := range v {
				v[i] = make([]float32, n)
				fill(v[i])
			}
			sum(leaf.run(v, bits, r.Float32()*2-1, r.Float32()*2-1))
			for i := range v {
				sum(v[i]...)
			}
		}
	}
	for rows := 1; rows <= tileRows; rows++ {
		for _, width := range []int{1, 5, 16, 23, 32} {
			x, panel, out := make([]float32, rows*50), make([]float32, 50*lanes), make([]float32, rows*lanes)
			fill(x)
			fill(panel)
			tileOf(out, lanes, x, 50, panel, lanes, 50, rows, width, false)
			sum(out...)
		}
	}
	t.Logf("digest %x", hash.Sum(nil))
}
