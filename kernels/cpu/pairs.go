package cpu

import (
	"math"
	"math/bits"
	"unsafe"
)

// linePair is the bytes of a line of pairs: each lane has the inputs 2k, in the low half of four bytes,
// and 2k+1.
const linePair = 4 * lanes

// pairsGo is the twin of the tiles of pairs: t.k counts pairs, both in panel and in x.
func (t *tile) pairsGo(rows int) {
	width := bits.Len32(t.mask)
	for r := range rows {
		var sum [lanes]float32
		t.begin(r, width, &sum)
		for k := range t.k {
			x := *(*uint32)(unsafe.Add(t.x, r*t.row+k*t.step))
			for l, w := range unsafe.Slice((*uint32)(unsafe.Add(t.panel, k*t.line)), width) {
				sum[l] = pairSum(sum[l], x, w)
			}
		}
		t.end(r, width, &sum)
	}
}

// pairSum adds the products of two pairs of bf16 to a sum, the odd elements' first, as VDPBF16PS does.
func pairSum(sum float32, x, w uint32) float32 {
	sum = fmaFlush(math.Float32frombits(x&0xffff0000), math.Float32frombits(w&0xffff0000), sum)
	return fmaFlush(math.Float32frombits(x<<16), math.Float32frombits(w<<16), sum)
}

// fmaFlush is x·y + z rounded once, and zero where that would be subnormal: the rounding decides, as if
// exponents had no end. x and y are bf16 and neither they nor z subnormal.
func fmaFlush(x, y, z float32) float32 {
	v := fma32(x, y, z)
	a := math.Abs(float64(v))
	if !(a <= 0x1p-126) || a == 0x1p-126 && !below(x, y, z) { // NaN too
		return v
	}
	return float32(math.Copysign(0, float64(v)))
}

// below reports whether |x·y + z| < 2⁻¹²⁶ - 2⁻¹⁵¹, from where on 24 bits round up to 2⁻¹²⁶.
func below(x, y, z float32) bool {
	const least = 0x1p-126 - 0x1p-151
	p, c := float64(float64(x)*float64(y)), float64(z)
	s := p + c
	t := s - p
	e := (p - (s - t)) + (c - t) // p + c - s, exactly (TwoSum)
	if s < 0 {
		s, e = -s, -e
	}
	return s < least || s == least && e < 0
}

// roundGo is the twin of the rounding to bf16: m.n vectors of 16 f32, and the columns of another one
// that m.mask names. A vector is written whole. dst may be src.
func (m *move) roundGo() {
	n := m.n
	if m.mask != 0 {
		n++
	}
	for i := range n {
		to := (*[16]uint16)(unsafe.Add(m.dst, 32*i))
		for j := range to {
			v := uint16(0)
			if i < m.n || m.mask>>j&1 != 0 {
				v = roundBits(*(*uint32)(unsafe.Add(m.src, 64*i+4*j)))
			}
			to[j] = v
		}
	}
}

// roundBits is the bf16 nearest to a float32, ties to even. A NaN stays one, and of a subnormal number
// the sign.
func roundBits(b uint32) uint16 {
	switch {
	case b&0x7f800000 == 0:
		return uint16(b >> 16 & 0x8000)
	case b&0x7fffffff > 0x7f800000:
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// transposePairsGo writes 16 rows of 32 f32: lane l of 16 lines of pairs to row l.
func (m *move) transposePairsGo() {
	for l := range 16 {
		to := (*[lanes]float32)(unsafe.Add(m.dst, lineF32*l))
		for i := range 16 {
			v := *(*uint32)(unsafe.Add(m.src, linePair*i+4*l))
			to[2*i], to[2*i+1] = math.Float32frombits(v<<16), math.Float32frombits(v&0xffff0000)
		}
	}
}

// packPairs puts a lane into a block of 32 inputs, that is 16 lines of pairs. Subnormal numbers become
// zeros.
func packPairs(block *[lanes * lanes]uint16, lane int, row []byte) {
	for k := 0; len(row) >= 2; k, row = k+1, row[2:] {
		v := uint16(row[0]) | uint16(row[1])<<8
		if v&0x7f80 == 0 {
			v &= 0x8000
		}
		block[k/2*2*lanes+2*lane+k%2] = v
	}
}

// rounding is the spanTask that rounds rows of x to bf16.
type rounding struct {
	x, to      unsafe.Pointer
	row, toRow int // bytes
	cols       int
}

func (t *rounding) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		m := move{dst: unsafe.Add(t.to, i*t.toRow), src: unsafe.Add(t.x, i*t.row), n: t.cols / 16, mask: maskOf(t.cols % 16)}
		m.round()
	}
}

// roundedTogether is how many rows of so many columns are rounded in a piece: some microsecond of work, of which records
// fill whole cache lines.
func roundedTogether(cols int) int { return ceilDiv(max(1, 4096/cols), 4) * 4 }

// round has a prelude round x to bf16 in memory of the device, and returns where its rows are and how many bytes apart.
func (d *Device) round(p *prelude, x unsafe.Pointer, rows, row, cols int) (unsafe.Pointer, int) {
	stride := spreadStride(ceilDiv(cols, 2))
	if len(d.rounded) < rows*stride {
		d.rounded = aligned(rows * stride)
	}
	d.rounding = rounding{x: x, to: unsafe.Pointer(&d.rounded[0]), row: row, toRow: 4 * stride, cols: cols}
	p.begin(&d.rounding, rows, roundedTogether(cols))
	return unsafe.Pointer(&d.rounded[0]), 4 * stride
}
