//go:build !purego

package cpu

import "unsafe"

// f32 computes a tile of f32 lines.
func (t *tile) f32(rows int) {
	if useNarrow {
		t.narrow(rows, false)
		return
	}
	t.f32Go(rows)
}

// bf16 computes a tile of bf16 lines.
func (t *tile) bf16(rows int) {
	if useNarrow {
		t.narrow(rows, true)
		return
	}
	t.bf16Go(rows)
}

// transpose transposes a block of up to 16 x 16 f32.
func (m *move) transpose() { m.transposeNarrow() }

// transposeBF16 transposes 16 bf16 panel lines to 32 rows of 16 f32.
func (m *move) transposeBF16() { m.transposeBF16Narrow() }

// multiplyAddRounds is a number of rounds that takes some milliseconds, and the operations of a round.
func multiplyAddRounds() (rounds, flops int) { return narrowRounds, narrowFlops }

// multiplyAdds does n rounds of multiply-adds.
func multiplyAdds(n int) { roofLanes(n) }

// readAll reads n bytes, a multiple of 512.
func readAll(p unsafe.Pointer, n int) { readAllGo(p, n) }
