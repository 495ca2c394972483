package cpu

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/x448/float16"
)

// Panels of weights in blocks hold, for 32 inputs at a time, the integers of 32 lanes and then the
// lanes' scales, half floats, and their minima where there are some. Integers are from zero up: those of
// Q8_0 with 128 added. Four neighbours of a lane are together, for VPDPBUSD: input k of lane l is byte
// 128·(k/4) + 4·l + k%4. Nibbles: of each byte of the first half the low one, and the byte 512 on the
// high one, so that inputs k and k+16 share a byte, as in the file.

// A blockTile is a product of rows of rounded x with blocks of a panel, added to sums. The assembly knows
// the offsets in front of the fields; storeSums, which puts sums into out, uses the last ones too.
type blockTile struct {
	panel  unsafe.Pointer // 0
	x      unsafe.Pointer // 8: the first block's records, a row each
	sums   unsafe.Pointer // 16: 32 f32 a row
	blocks int            // 24: at least 1
	rows   int            // 32: at least 1
	xBlock int            // 40: bytes from a block's records to the next one's

	out    unsafe.Pointer // 48
	outRow int            // 56: bytes
	plus   unsafe.Pointer // 64: what is added to the sums, a row each; nil: nothing
	mask   uint32         // 72: bit l allows lane l to be read and written

	// As many bytes as the blocks have are prefetched from here on. It may lie beyond the panels, so it is no pointer.
	ahead uintptr // 80

	plusRow int // 88: bytes from one row of plus to the next, 0 for a bias
	sumRow  int // 96: bytes from one row of sums to the next, when they are stored
}

// A record is 32 rounded elements of a row of x, and what their products need.
type record struct {
	q      [kernels.BlockLen]int8
	scale  float32
	lifted int32   // -8·Σq: what an offset of 8 adds
	sum    float32 // scale·Σq, by which minima are multiplied
	_      float32
}

const recordSize = int(unsafe.Sizeof(record{}))

// blockQuants is the bytes of a panel's block before the scales.
func blockQuants(t kernels.DType) int {
	if t == kernels.Q8_0 {
		return 32 * lanes
	}
	return 16 * lanes
}

// packBlock puts a block of a row into a lane of a panel's block.
func packBlock(t kernels.DType, to unsafe.Pointer, lane int, src []byte) {
	n := blockQuants(t)
	panel := unsafe.Slice((*byte)(to), t.Bytes(kernels.BlockLen)*lanes)
	copy(panel[n+2*lane:], src[:2])
	quants, lift := src[2:], byte(0)
	switch t {
	case kernels.Q8_0:
		lift = 128
	case kernels.Q4_1:
		copy(panel[n+2*lanes+2*lane:], src[2:4])
		quants = src[4:]
	}
	for k, q := range quants {
		panel[k/4*4*lanes+4*lane+k%4] = q + lift
	}
}

// lane widens a lane of a panel's block: 32 elements, each rounded once.
func (w *weight) lane(out *[kernels.BlockLen]float32, block unsafe.Pointer, lane int) {
	n := blockQuants(w.blocks)
	panel := unsafe.Slice((*byte)(block), w.blocks.Bytes(kernels.BlockLen)*lanes)
	half := func(at int) float32 { return float16.Frombits(binary.LittleEndian.Uint16(panel[at:])).Float32() }
	scale := half(n + 2*lane)
	var low float32
	switch w.blocks {
	case kernels.Q8_0:
		low = -128 * scale
	case kernels.Q4_0:
		low = -8 * scale
	default:
		low = half(n + 2*lanes + 2*lane)
	}
	for k := range out { // half floats and integers: in float64 product and sum are exact
		out[k] = float32(float64(panelQuant(w.blocks, panel, lane, k))*float64(scale) + float64(low))
	}
}

// panelQuant is the integer of input k of a lane.
func panelQuant(t kernels.DType, panel []byte, lane, k int) byte {
	if t == kernels.Q8_0 {
		return panel[k/4*4*lanes+4*lane+k%4]
	}
	return panel[k%16/4*4*lanes+4*lane+k%4] >> (k / 16 * 4) & 15
}

// widenBlocksGo turns m.n blocks of a panel into f32 lines.
func (w *weight) widenBlocksGo(m *move) {
	for b := range m.n {
		for l := range lanes {
			var v [kernels.BlockLen]float32
			w.lane(&v, unsafe.Add(m.src, b*lanes*w.line), l)
			for k, x := range v {
				*(*float32)(unsafe.Add(m.dst, (b*kernels.BlockLen+k)*lineF32+4*l)) = x
			}
		}
	}
}

// dotsGo is the twin of the products of blocks.
func (t *blockTile) dotsGo(w *weight) {
	for b := range t.blocks {
		n := blockQuants(w.blocks)
		panel := unsafe.Slice((*byte)(unsafe.Add(t.panel, b*lanes*w.line)), lanes*w.line)
		for r := range t.rows {
			x := (*record)(unsafe.Add(t.x, b*t.xBlock+r*recordSize))
			sums := (*[lanes]float32)(unsafe.Add(t.sums, r*lineF32))
			for l := range sums {
				s := 16 * x.lifted
				switch w.blocks {
				case kernels.Q4_0:
					s = x.lifted
				case kernels.Q4_1:
					s = 0
				}
				for k, q := range x.q {
					s += int32(q) * int32(panelQuant(w.blocks, panel, l, k))
				}
				half := func(at int) float32 { return float16.Frombits(binary.LittleEndian.Uint16(panel[at:])).Float32() }
				sums[l] = fma32(float32(s), float32(half(n+2*l)*x.scale), sums[l])
				if w.blocks == kernels.Q4_1 {
					sums[l] = fma32(half(n+2*lanes+2*l), x.sum, sums[l])
				}
			}
		}
	}
}

// storeGo is the twin of storeSums.
func (t *blockTile) storeGo() {
	width := bits.Len32(t.mask)
	for r := range t.rows {
		sums := unsafe.Slice((*float32)(unsafe.Add(t.sums, r*t.sumRow)), width)
		out := unsafe.Slice((*float32)(unsafe.Add(t.out, r*t.outRow)), width)
		if t.plus == nil {
			copy(out, sums)
			continue
		}
		add(out, unsafe.Slice((*float32)(unsafe.Add(t.plus, r*t.plusRow)), width), sums)
	}
}

// roundBlocksGo rounds m.n blocks of a row, whose records are m.dstRow bytes apart, as kernels.Format says.
func (m *move) roundBlocksGo() {
	for b := range m.n {
		x := (*[kernels.BlockLen]float32)(unsafe.Add(m.src, 4*kernels.BlockLen*b))
		roundBlock((*record)(unsafe.Add(m.dst, b*m.dstRow)), x)
	}
}

func roundBlock(to *record, x *[kernels.BlockLen]float32) {
	var largest uint32 // of bits: a NaN is the largest
	for _, v := range x {
		largest = max(largest, math.Float32bits(v)&0x7fffffff)
	}
	*to = record{}
	m := math.Float32frombits(largest)
	switch {
	case m < 0x1p-100:
		return
	case largest >= 0x7f800000:
		to.scale = float32(math.NaN())
		to.sum = to.scale
		return
	}
	inverse := 127 / m
	sum := int32(0)
	for k, v := range x {
		to.q[k] = int8(math.RoundToEven(float64(float32(v * inverse))))
		sum += int32(to.q[k])
	}
	to.scale, to.lifted = m/127, -8*sum
	to.sum = float32(sum) * to.scale
}
