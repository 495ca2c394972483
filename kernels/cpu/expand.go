package cpu

import (
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// An expansion is a kernels.Expand: low·bᵀ is added to rows row … row+rows-1 and columns col … col+cols-1 of a product.
type expansion struct {
	low, b       unsafe.Pointer
	lowRow, bRow int // bytes
	rank         int
	row, rows    int
	col, cols    int
}

// A part is what an expansion adds to a panel: a tile of its lines of b, packed, for product rows lo … hi-1.
type part struct {
	tile   tile
	low    unsafe.Pointer // of row lo
	lo, hi int
	from   int // bytes of a panel's row that come before
}

// expansions takes an ending's Expands, in order, and adds up the floats that their parts of a panel take.
func (t *linearTask) expansions(all []kernels.Expand) {
	t.expands, t.packed = t.expands[:0], 0
	for _, e := range all {
		if low, b := viewOf("Fused", e.Low), viewOf("Fused", e.B); len(low.s) > 0 && len(b.s) > 0 {
			t.expands = append(t.expands, expansion{low: unsafe.Pointer(&low.s[0]), b: unsafe.Pointer(&b.s[0]),
				lowRow: 4 * low.stride, bRow: 4 * b.stride, rank: low.cols, row: e.Row, rows: e.Low.Rows, col: e.Col, cols: e.B.Rows})
			t.packed += panelLines(low.cols) * lanes
		}
	}
	if t.end.gated {
		t.packed *= 2
	}
	if len(t.expands) > 0 && len(t.parts) < t.d.team.size {
		t.parts = make([][]part, t.d.team.size)
	}
}

// partsOf is what expansions add to a block's sums of panel p, and of the panel of ups that belongs to it.
func (t *linearTask) partsOf(b linearBlock, p int) (parts, ups []part) {
	all, room := t.pack(t.parts[b.worker][:0], b.packed, p, b.r, b.rows)
	n := len(all)
	if t.end.gated {
		all, _ = t.pack(all, room, p+t.panels, b.r, b.rows)
	}
	t.parts[b.worker] = all
	return all[:n], all[n:]
}

// pack appends to parts what expansions add to rows r … r+rows-1 of panel p. What it packs is in the room that it
// returns the rest of.
func (t *linearTask) pack(parts []part, room []float32, p, r, rows int) ([]part, []float32) {
	for i := range t.expands {
		e := &t.expands[i]
		from, to := max(e.col, p*lanes), min(e.col+e.cols, (p+1)*lanes)
		if from >= to || e.row >= r+rows || e.row+e.rows <= r {
			continue
		}
		panel := unsafe.Pointer(&room[0])
		room = room[panelLines(e.rank)*lanes:]
		packLanes(panel, lineF32, unsafe.Add(e.b, (from-e.col)*e.bRow), e.bRow, e.rank, to-from)
		parts = append(parts, part{low: e.low, lo: e.row, hi: e.row + e.rows, from: 4 * (from - p*lanes), tile: tile{
			panel: panel, k: e.rank, line: lineF32, row: e.lowRow, step: 4,
			ahead: uintptr(panel), mask: maskOf(to - from), start: 1, alpha: 1,
		}})
	}
	return parts, room
}

// expand adds parts to rows r … r+rows-1 of a panel, whose sums are at out.
func expand(parts []part, out unsafe.Pointer, outRow, r, rows int) {
	for i := range parts {
		e := &parts[i]
		lo, hi := max(r, e.lo), min(r+rows, e.hi)
		if lo >= hi {
			continue
		}
		a := &e.tile
		a.x, a.out, a.outRow = unsafe.Add(e.low, (lo-e.lo)*a.row), unsafe.Add(out, (lo-r)*outRow+e.from), outRow
		a.f32(hi - lo)
	}
}
