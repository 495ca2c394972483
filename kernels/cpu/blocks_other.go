//go:build (!amd64 && !arm64) || purego

package cpu

// dots adds the products of a panel's blocks to the sums.
func (t *blockTile) dots(w *weight) { t.dotsGo(w) }

// store puts the sums, and the bias, into out.
func (t *blockTile) store() { t.storeGo() }

// widenBlocks turns m.n blocks of a panel into f32 lines.
func (w *weight) widenBlocks(m *move) { w.widenBlocksGo(m) }

// roundBlocks rounds m.n blocks of a row.
func (m *move) roundBlocks() { m.roundBlocksGo() }
