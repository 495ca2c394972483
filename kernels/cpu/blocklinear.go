package cpu

import (
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// blockLinear is out = x·wᵀ + bias where w comes in blocks and x is rounded to the same blocks: the
// integers of a block are added exactly, and the blocks in float32, k ascending.
type blockLinear struct {
	w            *weight
	x, out       unsafe.Pointer // x: records, all rows of a block and then of the next
	end          ending
	rows, outRow int
	panels       int // that make columns of out
	cut          int // rows of a tile
	chunk, runs  int // the pieces: runs of chunk panels × splits of the rows
	splits       int
	before       prelude
	claims
	d *Device
}

// sumRows is the most rows whose sums stay in the nearest cache beside their records.
const sumRows = 96

// nibblesAhead is the bytes ahead of a stream of nibbles that are asked for when there are few rows: 10 % faster than
// 4096 at one row; 16 and 32 KB are as good.
const nibblesAhead = 24 << 10

// linearBlocks computes t's product, whose x it rounds first.
func (d *Device) linearBlocks(x unsafe.Pointer, xRow int) {
	t := &d.blocks
	t.d = d
	blocks := t.w.cols / kernels.BlockLen
	if n := blocks * t.rows * recordSize / 4; len(d.rounded) < n {
		d.rounded = aligned(n)
	}
	t.x = unsafe.Pointer(&d.rounded[0])
	d.roundBlocks = blockRounding{x: x, to: t.x, row: xRow, rows: t.rows, blocks: blocks}
	t.before.begin(&d.roundBlocks, t.rows, roundedTogether(t.w.cols))
	t.plan(d.team.size)
	t.begin(t.splits*t.runs, d.team.size)
	if cost(t.rows, t.w.rows*t.w.cols)/4 < worthSharing {
		t.work(0)
	} else {
		d.run(t)
	}
	t.x, t.out, t.w, t.end = nil, nil, nil, ending{}
	d.roundBlocks = blockRounding{}
}

// plan cuts the product into pieces.
func (t *blockLinear) plan(threads int) {
	t.panels = t.end.panels(t.w)
	panels := t.panels
	t.splits = 1
	if panels < 2*threads { // too few panels for everyone: cut the rows too
		t.splits = max(1, min(ceilDiv(2*threads, panels), t.rows/(2*tileRows)))
	}
	t.cut = evenly(ceilDiv(t.rows, t.splits), sumRows)
	t.chunk = max(1, panels/(8*threads))
	if t.cut < t.rows {
		t.chunk = max(1, min(longestRun, ceilDiv(panels, 2*threads)))
	}
	t.runs = ceilDiv(panels, t.chunk)
}

// work takes pieces until none is left. The next piece is claimed before this one is worked on, so that
// what is prefetched is what this worker does next.
func (t *blockLinear) work(worker int) {
	t.before.work(worker)
	i, ok := t.claim(worker)
	for ok {
		s, first := i/t.runs, i%t.runs*t.chunk
		following := first // which is there
		j, more := t.claim(worker)
		if more {
			following = j % t.runs * t.chunk
		}
		t.piece(t.rows*s/t.splits, t.rows*(s+1)/t.splits, first, min(first+t.chunk, t.panels), following, worker)
		i, ok = j, more
	}
}

// piece computes rows lo … hi-1 of panels first … last-1. following is the panel that comes after those.
func (t *blockLinear) piece(lo, hi, first, last, following, worker int) {
	space := t.d.workspace(worker, 2*t.cut*lanes)
	for r := lo; r < hi; r += t.cut {
		a := blockTile{
			x: unsafe.Add(t.x, r*recordSize), blocks: t.w.cols / kernels.BlockLen,
			rows: min(t.cut, hi-r), xBlock: t.rows * recordSize, outRow: t.outRow, plusRow: t.end.plusRow, sumRow: 4 * lanes,
		}
		sums, ups := space[:a.rows*lanes], space[t.cut*lanes:][:a.rows*lanes]
		for p := first; p < last; p++ {
			next := p + 1
			switch {
			case p+1 == last && r+t.cut < hi:
				next = first
			case p+1 == last:
				next = following
			}
			a.mask, a.plus = maskOf(t.w.rows-p*lanes), t.end.at(r, p)
			a.out = unsafe.Add(t.out, r*t.outRow+4*lanes*p)
			if t.end.gated {
				t.sum(&a, sums, p, p+t.panels)
				t.sum(&a, ups, p+t.panels, next)
				swiglu(sums, sums, ups)
				a.sums = unsafe.Pointer(&sums[0])
			} else {
				t.sum(&a, sums, p, next)
			}
			a.store()
		}
	}
}

// sum sets sums to the products with panel p, while panel next is asked for.
func (t *blockLinear) sum(a *blockTile, sums []float32, p, next int) {
	clear(sums)
	a.sums, a.panel = unsafe.Pointer(&sums[0]), t.w.at(p, 0)
	a.ahead = uintptr(a.panel) + nibblesAhead
	if t.w.blocks == kernels.Q8_0 { // 1.2 to 1.6 times as fast at 2 to 8 rows
		a.ahead = uintptr(t.w.at(next, 0))
	}
	a.dots(t.w)
}

// blockRounding is the spanTask that rounds rows of x in blocks.
type blockRounding struct {
	x, to        unsafe.Pointer
	row          int // bytes
	rows, blocks int
}

func (t *blockRounding) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		m := move{dst: unsafe.Add(t.to, i*recordSize), src: unsafe.Add(t.x, i*t.row), n: t.blocks, dstRow: t.rows * recordSize}
		m.roundBlocks()
	}
}
