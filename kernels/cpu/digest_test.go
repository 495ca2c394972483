//go:build linux

package cpu

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
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
	for _, typ := range blockTypes {
		sum(blockDigest(r, typ)...)
	}
	t.Logf("digest %x", hash.Sum(nil))
}

// blockDigest is the sums of blocks with rounded rows, and the blocks widened.
func blockDigest(r *rand.Rand, typ kernels.DType) []float32 {
	const rows, outputs, blocks = 5, 32, 3
	raw := make([]byte, outputs*typ.Bytes(blocks*kernels.BlockLen))
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	for at := 0; at < len(raw); at += typ.Bytes(kernels.BlockLen) {
		raw[at+1] &= 0xbf // a scale, or minimum, that is finite
		raw[at+3] &= 0xbf
	}
	d := New(1)
	defer d.Close()
	w := d.Load(kernels.Format{Type: typ, Acts: kernels.I8}, outputs, blocks*kernels.BlockLen, raw).Buf.(*weight)
	x := make([]float32, blocks*kernels.BlockLen)
	var records [blocks * rows]record
	sums, wide := make([]float32, rows*lanes), make([]float32, blocks*kernels.BlockLen*lanes)
	for i := range rows {
		for k := range x {
			x[k] = float32(math.Ldexp(float64(r.Float32()-0.5), r.IntN(8)-4))
		}
		m := move{dst: unsafe.Pointer(&records[i]), src: unsafe.Pointer(&x[0]), n: blocks, dstRow: rows * recordSize}
		m.roundBlocks()
	}
	t := blockTile{panel: w.at(0, 0), x: unsafe.Pointer(&records[0]), sums: unsafe.Pointer(&sums[0]), blocks: blocks, rows: rows,
		xBlock: rows * recordSize, ahead: uintptr(w.at(0, 0))}
	t.dots(w)
	w.widenBlocks(&move{dst: unsafe.Pointer(&wide[0]), src: w.at(0, 0), n: blocks})
	return append(sums, wide...)
}
