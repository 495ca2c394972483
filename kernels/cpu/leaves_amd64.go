//go:build !purego

package cpu

import "unsafe"

//go:noescape
func transposeF32x16(m *move)

//go:noescape
func transposeBF16x16(m *move)

//go:noescape
func roofFMA(m *move)

//go:noescape
func roofRead(m *move)

// f32 computes a tile of f32 lines.
func (t *tile) f32(rows int) {
	switch {
	case !useAssembly && useNarrow:
		t.narrow(rows, false)
	case !useAssembly:
		t.f32Go(rows)
	case t.mask < 1<<8:
		tileQuarter(t, rows)
	case t.mask < 1<<16:
		tileHalf(t, rows)
	default:
		tileF32(t, rows)
	}
}

// bf16 computes a tile of bf16 lines.
func (t *tile) bf16(rows int) {
	if useAssembly {
		tileBF16(t, rows)
		return
	}
	if useNarrow {
		t.narrow(rows, true)
		return
	}
	t.bf16Go(rows)
}

// transpose transposes a block of up to 16 x 16 f32.
func (m *move) transpose() {
	if useAssembly {
		transposeF32x16(m)
		return
	}
	m.transposeNarrow()
}

// transposeBF16 transposes 16 bf16 panel lines to 32 rows of 16 f32.
func (m *move) transposeBF16() {
	if useAssembly {
		transposeBF16x16(m)
		return
	}
	m.transposeBF16Narrow()
}

// multiplyAddRounds is a number of rounds that takes some milliseconds, and the operations of a round.
func multiplyAddRounds() (rounds, flops int) {
	if useAssembly {
		return 1_000_000, 2 * 16 * 16
	}
	if useNarrow {
		return narrowRounds, narrowFlops
	}
	return 100_000, 2 * 16
}

// multiplyAdds does n rounds of 16 multiply-adds, of vectors where there are any.
func multiplyAdds(n int) {
	if useAssembly {
		m := move{n: n}
		roofFMA(&m)
		return
	}
	if useNarrow {
		roofLanes(n)
		return
	}
	multiplyAddsGo(n)
}

// readAll reads n bytes, a multiple of 512.
func readAll(p unsafe.Pointer, n int) {
	if useAssembly {
		m := move{src: p, n: n / 512}
		roofRead(&m)
		return
	}
	readAllGo(p, n)
}
