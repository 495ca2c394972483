//go:build !purego

package cpu

import "github.com/r2-reasoner/r2/kernels"

//go:noescape
func dotsQ8(t *blockTile)

//go:noescape
func dotsQ40(t *blockTile)

//go:noescape
func dotsQ41(t *blockTile)

//go:noescape
func storeSums(t *blockTile)

//go:noescape
func widenQ8(m *move)

//go:noescape
func widenQ40(m *move)

//go:noescape
func widenQ41(m *move)

//go:noescape
func roundBlocks(m *move)

// dots adds the products of a panel's blocks to the sums.
func (t *blockTile) dots(w *weight) {
	switch {
	case !useAssembly || !useVNNI:
		t.dotsNarrow(w)
	case w.blocks == kernels.Q8_0:
		dotsQ8(t)
	case w.blocks == kernels.Q4_0:
		dotsQ40(t)
	default:
		dotsQ41(t)
	}
}

// store puts the sums, and the bias, into out.
func (t *blockTile) store() {
	if useAssembly {
		storeSums(t)
		return
	}
	t.storeGo()
}

// widenBlocks turns m.n blocks of a panel into f32 lines.
func (w *weight) widenBlocks(m *move) {
	switch {
	case !useAssembly:
		w.widenBlocksNarrow(m)
	case w.blocks == kernels.Q8_0:
		widenQ8(m)
	case w.blocks == kernels.Q4_0:
		widenQ40(m)
	default:
		widenQ41(m)
	}
}

// roundBlocks rounds m.n blocks of a row.
func (m *move) roundBlocks() {
	if useAssembly {
		roundBlocks(m)
		return
	}
	m.roundBlocksNarrow()
}
