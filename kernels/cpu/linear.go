package cpu

import (
	"fmt"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// How products are cut. None of these numbers changes a bit of the result: an accumulator that is put
// into memory and loaded again is the same accumulator.
const (
	cacheRows    = 400 << 10 // bytes of x that stay in the second cache while panels go by
	cutInputs    = 1536      // more inputs are cut evenly when there is more than one tile
	prefetchFar  = 4096      // bytes ahead of a stream of panels
	prefetchers  = 4         // tiles that share the prefetch of the next panel
	longestRun   = 16        // panels of a piece of work
	lowestBlock  = 56        // rows of a block that is cut lower so that every worker has as many
	worthSharing = 1 << 20   // below, by cost, the caller works alone
)

// linearTask is out = x·wᵀ with an ending.
type linearTask struct {
	w             *weight
	x, out        unsafe.Pointer
	end           ending
	panels        int // that make columns of out
	rows          int
	terms, line   int // four bytes of x each, and bytes of a panel each
	xRow, outRow  int // bytes
	cutRows, cutK int // a block of x
	splits, runs  int // the pieces: splits of the rows × runs of panels
	before        prelude
	expands       []expansion // that come after a sum
	packed        int         // floats that their parts of a panel take
	parts         [][]part    // of the panel that a worker is at
	claims
	d *Device
}

// Linear sets out = x·wᵀ + bias. Each element is one sum from 0, k ascending, one rounding a term; the
// bias is added to the rounded sum.
func (d *Device) Linear(out, x kernels.Tensor, w kernels.Weight, bias kernels.Tensor) {
	if out.Rows != x.Rows || out.Cols != w.Rows || x.Cols != w.Cols || !bias.Zero() && (bias.Rows != 1 || bias.Cols != w.Rows) {
		panic(fmt.Sprintf("cpu: Linear: out %s, x %s, w %dx%d, bias %s", shape(out), shape(x), w.Rows, w.Cols, shape(bias)))
	}
	var end ending
	if !bias.Zero() && d.err == nil {
		end.plus = unsafe.Pointer(unsafe.SliceData(floats("Linear", bias)))
	}
	d.product("Linear", out, x, w, end, nil)
}

// product sets out to what end makes of x·wᵀ.
func (d *Device) product(op string, out, x kernels.Tensor, w kernels.Weight, end ending, expands []kernels.Expand) {
	o, in, wt := floats(op, out), floats(op, x), weightOf(op, w)
	if d.err != nil || len(o) == 0 || len(in) == 0 {
		return
	}
	if wt.rounds {
		d.blocks.w, d.blocks.rows, d.blocks.end = wt, x.Rows, end
		d.blocks.out, d.blocks.outRow = unsafe.Pointer(&o[0]), 4*out.Stride
		d.linearBlocks(unsafe.Pointer(&in[0]), 4*x.Stride)
		return
	}
	t := &d.linear
	t.d, t.w, t.rows, t.end = d, wt, x.Rows, end
	t.x, t.xRow = unsafe.Pointer(&in[0]), 4*x.Stride
	t.terms, t.line = wt.terms(), wt.line
	t.expansions(expands)
	t.before.begin(nil, 0, 1)
	if wt.pairs {
		t.line = linePair
		t.x, t.xRow = d.round(&t.before, t.x, x.Rows, t.xRow, x.Cols)
	}
	t.out, t.outRow = unsafe.Pointer(&o[0]), 4*out.Stride
	t.plan(d.team.size)
	t.begin(t.splits*t.runs, d.team.size)
	if cost(x.Rows, w.Rows*w.Cols) < worthSharing {
		t.work(0)
	} else {
		d.run(t)
	}
	t.x, t.out, t.w, t.end = nil, nil, nil, ending{}
	clear(t.expands)
	d.rounding = rounding{}
}

// terms is how many four bytes of x, rounded if w is of pairs, a sum takes.
func (w *weight) terms() int {
	if w.pairs {
		return ceilDiv(w.cols, 2)
	}
	return w.cols
}

// cost is what a product of that many rows with a weight of n elements takes, in multiply-adds:
// reading an element takes as long as some 16 of them.
func cost(rows, n int) int { return (rows + 16) * n }

// cutTerms is how many of k terms of so many rows are added before the next rows' turn.
func cutTerms(rows, k int) int {
	if rows > tileRows && k > cutInputs {
		return ceilDiv(ceilDiv(k, ceilDiv(k, cutInputs)), lanes) * lanes
	}
	return k
}

// plan cuts the product into blocks and pieces.
func (t *linearTask) plan(threads int) {
	t.panels = t.end.panels(t.w)
	k, panels := t.terms, t.panels
	t.cutK = cutTerms(t.rows, k)
	t.splits = 1
	if panels < 2*threads { // too few panels for everyone: cut the rows too
		t.splits = max(1, min(ceilDiv(2*threads, panels), t.rows/(2*tileRows)))
	}
	most := cacheRows / (4 * t.cutK)
	blocks := cutEvenly(t.rows, most, threads)
	t.splits = max(t.splits, blocks)
	t.cutRows = evenly(ceilDiv(t.rows, t.splits), most)
	t.runs = ceilDiv(panels, max(1, panels/(8*threads)))
	if t.cutK < k || blocks > 1 {
		t.runs = runsOf(panels, t.splits, threads, longestRun)
	}
}

// cutEvenly is how many blocks of at most so many rows a number of rows is cut into: as many for every worker,
// if that does not make them too low.
func cutEvenly(rows, most, threads int) int {
	n := ceilDiv(rows, evenly(rows, most))
	if even := ceilDiv(n, threads) * threads; n > 1 && rows/even >= lowestBlock {
		return even
	}
	return n
}

// runsOf is how many runs of at most so many panels are made, beside so many blocks: as long as can be, with as many
// pieces for every worker where there are enough panels.
func runsOf(panels, blocks, threads, longest int) int {
	n := max(ceilDiv(panels, longest), ceilDiv(2*threads, blocks))
	if blocks%threads > 0 {
		n = ceilDiv(n, threads) * threads
	}
	return min(n, panels)
}

// work takes pieces until none is left. The next piece is claimed before this one is worked on, so that
// what is prefetched is what this worker does next.
func (t *linearTask) work(worker int) {
	t.before.work(worker)
	i, ok := t.claim(worker)
	for ok {
		j, more := t.claim(worker)
		following := unsafe.Pointer(nil)
		if more {
			following = t.w.at(t.first(j), 0)
		}
		s, first := i%t.splits, t.first(i)
		t.piece(t.rows*s/t.splits, t.rows*(s+1)/t.splits, first, t.first(i+t.splits), following, worker)
		i, ok = j, more
	}
}

// first is the first panel of piece i.
func (t *linearTask) first(i int) int { return t.panels * (i / t.splits) / t.runs }

// piece computes rows lo … hi-1 of panels first … last-1: block by block, every panel of the
// run over each block. following is the panel that comes after the run, if one does.
func (t *linearTask) piece(lo, hi, first, last int, following unsafe.Pointer, worker int) {
	for r := lo; r < hi; r += t.cutRows {
		rows := min(t.cutRows, hi-r)
		for k := 0; k < t.terms; k += t.cutK {
			b := t.block(r, rows, k, worker)
			for p := first; p < last; p++ {
				next := following
				switch {
				case p+1 < last:
					next = t.at(p+1, k)
				case k+t.cutK < t.terms:
					next = t.at(first, k+t.cutK)
				case r+t.cutRows < hi:
					next = t.w.at(first, 0)
				}
				t.panel(b, p, next)
			}
		}
	}
}

// at is the line of a term in panel p.
func (t *linearTask) at(p, k int) unsafe.Pointer { return unsafe.Add(t.w.at(p, 0), k*t.line) }

// A linearBlock is the rows from r on and the inputs from k on that panels go over.
type linearBlock struct {
	r, rows  int
	k, terms int
	x        unsafe.Pointer
	xRow     int       // bytes
	wide     []float32 // room for a widened panel
	gates    []float32 // and for a tile's gates and ups
	packed   []float32 // and for what expansions add to a panel
	worker   int
}

// block cuts a block out of x, and copies it where its rows lie badly.
func (t *linearTask) block(r, rows, k, worker int) linearBlock {
	b := linearBlock{r: r, rows: rows, k: k, terms: min(t.cutK, t.terms-k), x: unsafe.Add(t.x, r*t.xRow+4*k), xRow: t.xRow, worker: worker}
	wide, copied, gates := 0, 0, 0
	if t.w.blocks != kernels.F32 {
		wide = t.cutK * lanes
	}
	if spreads(rows, t.xRow) {
		copied = spreadSize(rows, b.terms)
	}
	if t.end.gated {
		gates = 2 * tileRows * lanes
	}
	space := t.d.workspace(worker, wide+gates+t.packed+copied)
	b.wide, space = space[:wide], space[wide:]
	b.gates, space = space[:gates], space[gates:]
	b.packed, space = space[:t.packed], space[t.packed:]
	if copied > 0 {
		b.x, b.xRow = spread(space, b.x, rows, t.xRow, b.terms)
	}
	return b
}

// panel computes the tiles of a block with panel p.
func (t *linearTask) panel(b linearBlock, p int, next unsafe.Pointer) {
	a := tile{
		panel: t.at(p, b.k), k: b.terms, line: t.line,
		row: b.xRow, step: 4, outRow: t.outRow,
		mask: maskOf(t.w.rows - p*lanes), alpha: 1,
	}
	if b.k > 0 {
		a.start = 1
	}
	whole := b.k+b.terms == t.terms
	if whole && t.end.plusRow == 0 {
		a.bias = t.end.at(0, p)
	}
	size, stream := a.k*a.line, a.line/2
	streamed := a.panel
	if len(b.wide) > 0 {
		m := move{dst: unsafe.Pointer(&b.wide[0]), src: a.panel, n: a.k / kernels.BlockLen}
		t.w.widenBlocks(&m)
		a.panel, a.line = m.dst, lineF32
	}
	var parts, ups []part
	if whole && t.packed > 0 {
		parts, ups = t.partsOf(b, p)
	}
	tiles := ceilDiv(b.rows, tileRows)
	sharers := min(tiles, prefetchers)
	for i := range tiles {
		lo, hi := b.rows*i/tiles, b.rows*(i+1)/tiles
		a.x = unsafe.Add(b.x, lo*b.xRow)
		a.out = unsafe.Add(t.out, (b.r+lo)*t.outRow+4*lanes*p)
		switch {
		case tiles == 1 && t.w.blocks == kernels.F32:
			a.ahead, a.aheadStep = uintptr(streamed)+prefetchFar, stream
		case i < sharers && next != nil:
			a.ahead, a.aheadStep = uintptr(next)+uintptr(i*size/sharers), stream/sharers
		default:
			a.ahead, a.aheadStep = uintptr(a.panel), 0
		}
		if tiles > 1 {
			bring(a.out, a.outRow, hi-lo)
			if whole && t.end.plusRow > 0 {
				bring(t.end.at(b.r+lo, p), t.end.plusRow, hi-lo)
			}
		}
		if t.end.gated {
			t.gate(a, b.gates, b.r+lo, hi-lo, parts, ups)
			continue
		}
		t.tile(&a, hi-lo)
		expand(parts, a.out, a.outRow, b.r+lo, hi-lo)
		if whole && t.end.plusRow > 0 {
			sums := blockTile{sums: a.out, sumRow: t.outRow, out: a.out, outRow: t.outRow, rows: hi - lo,
				plus: t.end.at(b.r+lo, p), plusRow: t.end.plusRow, mask: a.mask}
			sums.store()
		}
	}
}

// tile computes a tile of the weight's type.
func (t *linearTask) tile(a *tile, rows int) {
	switch {
	case t.w.bf16:
		a.bf16(rows)
	case t.w.pairs:
		a.pairs(rows)
	default:
		a.f32(rows)
	}
}

// gate puts SwiGLU of a tile of gates, of rows from r on, and that of their ups into a.out. parts and more are what
// expansions add to the two.
func (t *linearTask) gate(a tile, space []float32, r, rows int, parts, more []part) {
	gates, ups := space[:rows*lanes], space[tileRows*lanes:][:rows*lanes]
	out, far := a.out, t.panels*t.w.panelSize()
	a.out, a.outRow = unsafe.Pointer(&gates[0]), 4*lanes
	t.tile(&a, rows)
	expand(parts, a.out, a.outRow, r, rows)
	a.panel, a.ahead, a.out = unsafe.Add(a.panel, far), a.ahead+uintptr(far), unsafe.Pointer(&ups[0])
	t.tile(&a, rows)
	expand(more, a.out, a.outRow, r, rows)
	swiglu(gates, gates, ups)
	sums := blockTile{sums: unsafe.Pointer(&gates[0]), sumRow: 4 * lanes, out: out, outRow: t.outRow, rows: rows, mask: a.mask}
	sums.store()
}
