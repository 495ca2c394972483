//go:build !amd64 || purego

package cpu

// pairs computes a tile of pairs of bf16.
func (t *tile) pairs(rows int) { t.pairsGo(rows) }

// round rounds f32 to bf16.
func (m *move) round() { m.roundGo() }

// transposePairs transposes 16 lanes of 16 lines of pairs to 16 rows of 32 f32.
func (m *move) transposePairs() { m.transposePairsGo() }

// pair lays 16 columns of 2·m.n rows of bf16 in pairs.
func (m *move) pair() { m.pairGo() }
