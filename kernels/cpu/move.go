package cpu

import (
	"math"
	"unsafe"
)

// A move is a copy between layouts. Strides are in bytes. The assembly knows the offsets in front of
// the fields.
type move struct {
	dst    unsafe.Pointer // 0
	src    unsafe.Pointer // 8
	n      int            // 16: blocks to widen, or rows of a block
	srcRow int            // 24
	dstRow int            // 32
	mask   uint32         // 40: bit j allows column j of a block to be read
}

// transposeGo writes 16 rows of 16: column j of the block of n rows to row j. What the block lacks of
// 16 rows and columns is zero.
func (m *move) transposeGo() {
	for j := range 16 {
		dst := (*[16]float32)(unsafe.Add(m.dst, j*m.dstRow))
		for i := range dst {
			dst[i] = 0
			if i < m.n && m.mask>>j&1 != 0 {
				dst[i] = *(*float32)(unsafe.Add(m.src, i*m.srcRow+4*j))
			}
		}
	}
}

// transposeBF16Go writes 32 rows of 16: lane l of 16 bf16 panel lines to row l.
func (m *move) transposeBF16Go() {
	for i := range 16 {
		src := (*[lanes / 2]uint32)(unsafe.Add(m.src, i*lineBF16))
		for l, v := range src {
			*(*float32)(unsafe.Add(m.dst, l*m.dstRow+4*i)) = math.Float32frombits(v << 16)
			*(*float32)(unsafe.Add(m.dst, (l+16)*m.dstRow+4*i)) = math.Float32frombits(v & 0xffff0000)
		}
	}
}

// panelLines is how many lines a panel of k columns takes when rows are transposed into it.
func panelLines(k int) int { return (k + 15) &^ 15 }

// packRows puts columns 0 … k-1 of up to 32 rows, stride elements apart, into a panel: line k, lane r
// is column k of row r, and lanes without a row are zero. panel has room for panelLines(k) lines of
// 32; those from k on are zero.
func packRows(panel, src []float32, stride, k, rows int) {
	if rows == 0 || k == 0 {
		clear(panel[:panelLines(k)*lanes])
		return
	}
	_, _ = panel[panelLines(k)*lanes-1], src[(rows-1)*stride+k-1]
	packLanes(unsafe.Pointer(&panel[0]), lineF32, unsafe.Pointer(&src[0]), 4*stride, k, rows)
	if rows <= 16 {
		for i := 16; i < panelLines(k)*lanes; i += lanes {
			clear(panel[i : i+16])
		}
	}
}

// packLanes is packRows with strides in bytes and lines of 16 or 32 lanes. With 16 rows or fewer it
// leaves the lanes from 16 on alone.
func packLanes(panel unsafe.Pointer, line int, src unsafe.Pointer, srcRow, k, rows int) {
	for r := 0; r < rows; r += 16 {
		for c := 0; c < k; c += 16 {
			m := move{
				dst: unsafe.Add(panel, c*line+4*r), src: unsafe.Add(src, r*srcRow+4*c),
				n: min(rows-r, 16), srcRow: srcRow, dstRow: line, mask: maskOf(min(k-c, 16)),
			}
			m.transpose()
		}
	}
}
