//go:build !purego

package cpu

import "unsafe"

//go:noescape
func transposePairsx16(m *move)

//go:noescape
func roundBF16(m *move)

//go:noescape
func pairRows(m *move)

// pairs computes a tile of pairs of bf16.
func (t *tile) pairs(rows int) {
	switch {
	case !useAssembly:
		t.pairsGo(rows)
	case useDotBF16:
		tilePair(t, rows)
	default:
		for part := *t; rows > 0; rows -= 8 {
			tilePairFMA(&part, min(rows, 8))
			part.x, part.out = unsafe.Add(part.x, 8*part.row), unsafe.Add(part.out, 8*part.outRow)
		}
	}
}

// round rounds f32 to bf16.
func (m *move) round() {
	if useAssembly {
		roundBF16(m)
		return
	}
	m.roundGo()
}

// transposePairs transposes 16 lanes of 16 lines of pairs to 16 rows of 32 f32.
func (m *move) transposePairs() {
	if useAssembly {
		transposePairsx16(m)
		return
	}
	m.transposePairsGo()
}

// pair lays 16 columns of 2·m.n rows of bf16 in pairs.
func (m *move) pair() {
	if useAssembly {
		pairRows(m)
		return
	}
	m.pairGo()
}
