package cpu

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"
)

//go:generate go run ./gen

const (
	lanes    = 32        // outputs a panel has: two vectors of 16 float32
	lineF32  = 4 * lanes // bytes of a panel's line, which is one k
	lineBF16 = 2 * lanes
	tileRows = 14 // the most rows of a tile
)

// A tile is a product of up to 14 rows of x with one panel:
//
//	out[r][l] = alpha · (start + Σ x[r][k]·panel[k][l]) + bias[l]
//
// for the lanes l of mask, k ascending with one rounding a term. Strides are in bytes. The assembly
// knows the offsets in front of the fields.
type tile struct {
	panel unsafe.Pointer // 0: lines of lanes f32, or of bf16 where lanes j and j+16 share four bytes
	x     unsafe.Pointer // 8
	out   unsafe.Pointer // 16
	bias  unsafe.Pointer // 24: nil if there is none
	k     int            // 32

	line   int // 40: from one k to the next in panel
	row    int // 48: from one row of x to the next
	step   int // 56: from one k to the next in x
	outRow int // 64: from one row of out to the next

	// Two addresses, aheadStep apart, are prefetched each k. There is always something that is: what
	// needs no prefetch names the panel itself, because the prefetch of a page that was not touched for
	// a while can take longer than the whole tile.
	ahead     uintptr // 72
	aheadStep int     // 80

	mask  uint32  // 88: bit l allows lane l to be read and written; panels of bf16 are read whole
	start uint32  // 92: 0 starts the sums from zero, 1 from what out holds
	alpha float32 // 96
}

// maskOf allows the first n lanes.
func maskOf(n int) uint32 { return uint32(1<<min(n, lanes) - 1) }

// tileOf sets out[r·outStride + l] for rows ≤ 14 and l < width ≤ 32 to Σ x[r·xStride + k]·
// panel[k·line + l], k ascending, added to what out holds if accumulate is set. Strides are in
// elements; panel is packed (a line of 32) or any rows that lie line apart.
func tileOf(out []float32, outStride int, x []float32, xStride int, panel []float32, line, k, rows, width int, accumulate bool) {
	if rows == 0 || width == 0 || k == 0 && accumulate {
		return
	}
	if rows > tileRows || width > lanes || (rows-1)*outStride+width > len(out) ||
		k > 0 && ((rows-1)*xStride+k > len(x) || (k-1)*line+width > len(panel)) {
		panic(fmt.Sprintf("cpu: tile of %d x %d x %d: out %d by %d, x %d by %d, panel %d by %d",
			rows, width, k, len(out), outStride, len(x), xStride, len(panel), line))
	}
	p := unsafe.Pointer(unsafe.SliceData(panel))
	t := tile{
		panel: p, x: unsafe.Pointer(unsafe.SliceData(x)), out: unsafe.Pointer(&out[0]), k: k,
		line: 4 * line, row: 4 * xStride, step: 4, outRow: 4 * outStride,
		ahead: uintptr(p), mask: maskOf(width), alpha: 1,
	}
	if accumulate {
		t.start = 1
	}
	t.f32(rows)
}

// bring asks for a panel's width of rows, so many bytes apart, to be brought into the second cache: a tile that stores to lines
// which are far away, or adds to them, would wait for them.
func bring(at unsafe.Pointer, row, rows int) {
	prefetch(unsafe.Slice((*float32)(at), 1), row/4, lanes, rows)
}

// tiles computes rows of a panel in tiles of equal height.
func (a *tile) tiles(x, out unsafe.Pointer, rows int) {
	n := ceilDiv(rows, tileRows)
	for i := range n {
		lo, hi := rows*i/n, rows*(i+1)/n
		a.x, a.out = unsafe.Add(x, lo*a.row), unsafe.Add(out, lo*a.outRow)
		a.f32(hi - lo)
	}
}

// f32Go is the twin of the f32 tiles.
func (t *tile) f32Go(rows int) {
	width := bits.Len32(t.mask)
	for r := range rows {
		var sum [lanes]float32
		t.begin(r, width, &sum)
		for k := range t.k {
			x := *(*float32)(unsafe.Add(t.x, r*t.row+k*t.step))
			w := unsafe.Slice((*float32)(unsafe.Add(t.panel, k*t.line)), width)
			for l, v := range w {
				sum[l] = fma32(x, v, sum[l])
			}
		}
		t.end(r, width, &sum)
	}
}

// bf16Go is the twin of the bf16 tiles.
func (t *tile) bf16Go(rows int) {
	width := bits.Len32(t.mask)
	for r := range rows {
		var sum [lanes]float32
		t.begin(r, width, &sum)
		for k := range t.k {
			x := *(*float32)(unsafe.Add(t.x, r*t.row+k*t.step))
			w := (*[lanes / 2]uint32)(unsafe.Add(t.panel, k*t.line))
			for l, v := range w {
				sum[l] = fma32(x, math.Float32frombits(v<<16), sum[l])
				sum[l+16] = fma32(x, math.Float32frombits(v&0xffff0000), sum[l+16])
			}
		}
		t.end(r, width, &sum)
	}
}

func (t *tile) begin(r, width int, sum *[lanes]float32) {
	if t.start != 0 {
		copy(sum[:width], unsafe.Slice((*float32)(unsafe.Add(t.out, r*t.outRow)), width))
	}
}

func (t *tile) end(r, width int, sum *[lanes]float32) {
	out := unsafe.Slice((*float32)(unsafe.Add(t.out, r*t.outRow)), width)
	var bias []float32
	if t.bias != nil {
		bias = unsafe.Slice((*float32)(t.bias), width)
	}
	for l := range out {
		v := float32(t.alpha * sum[l]) // the conversion keeps the compiler from fusing
		if bias != nil {
			v += bias[l]
		}
		out[l] = v
	}
}
