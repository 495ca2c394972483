//go:build (amd64 || arm64) && !purego

package cpu

import "unsafe"

//go:noescape
func transposeF32Lanes(m *move)

//go:noescape
func transposeLowLanes(m *move)

//go:noescape
func transposeHighLanes(m *move)

// transposeNarrow transposes a block of up to 16 x 16: whole ones for narrow vectors.
func (m *move) transposeNarrow() {
	if useNarrow && m.n == 16 && m.mask == 1<<16-1 {
		transposeF32Lanes(m)
		return
	}
	m.transposeGo()
}

// transposeBF16Narrow transposes the low and then the high halves of 16 lines.
func (m *move) transposeBF16Narrow() {
	if !useNarrow {
		m.transposeBF16Go()
		return
	}
	half := *m
	half.srcRow = lineBF16
	transposeLowLanes(&half)
	half.dst = unsafe.Add(m.dst, 16*m.dstRow)
	transposeHighLanes(&half)
}
