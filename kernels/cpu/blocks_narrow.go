//go:build (amd64 || arm64) && !purego

package cpu

import "github.com/r2-reasoner/r2/kernels"

// The products of blocks for vectors of 8 or 4 lanes, and what else blocks need: see narrow.go.

//go:noescape
func dotsQ8Lanes(t *blockTile)

//go:noescape
func dotsQ40Lanes(t *blockTile)

//go:noescape
func dotsQ41Lanes(t *blockTile)

//go:noescape
func widenQ8Lanes(m *move)

//go:noescape
func widenQ40Lanes(m *move)

//go:noescape
func widenQ41Lanes(m *move)

//go:noescape
func roundBlocksLanes(m *move)

func (t *blockTile) dotsNarrow(w *weight) {
	switch {
	case !useNarrow:
		t.dotsGo(w)
	case w.blocks == kernels.Q8_0:
		dotsQ8Lanes(t)
	case w.blocks == kernels.Q4_0:
		dotsQ40Lanes(t)
	default:
		dotsQ41Lanes(t)
	}
}

func (w *weight) widenBlocksNarrow(m *move) {
	switch {
	case !useNarrow:
		w.widenBlocksGo(m)
	case w.blocks == kernels.Q8_0:
		widenQ8Lanes(m)
	case w.blocks == kernels.Q4_0:
		widenQ40Lanes(m)
	default:
		widenQ41Lanes(m)
	}
}

func (m *move) roundBlocksNarrow() {
	if useNarrow {
		roundBlocksLanes(m)
		return
	}
	m.roundBlocksGo()
}
