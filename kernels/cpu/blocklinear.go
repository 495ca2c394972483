package cpu

import (
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// blockLinear is out = x·wᵀ + bias where w comes in blocks and x is rounded to the same blocks: the
// integers of a block are added exactly, and the blocks in float32, k ascending.
type blockLinear struct {
	w            *weight
	x, out, bias unsafe.Pointer // x: records, all rows of a block and then of the next
	rows, outRow int
	cut          int // rows of a tile
	chunk, runs  int // the pieces: runs of chunk panels × splits of the rows
	splits       int
	claims
	d *Device
}

// sumRows is the most rows whose sums stay in the nearest cache beside their records.
const sumRows = 96

// nibblesAhead is the bytes ahead of a stream of nibbles that are asked for when there are few rows: 10 % faster than
// 4096 at one row; 16 and 32 KB are as good.
const nibblesAhead = 24 << 10

// linearBlocks computes t's product, whose x it rounds first.
func (d *Device) linearBlocks(x unsafe.Pointer, xRow int, bias unsafe.Pointer) {
	t := &d.blocks
	t.d, t.bias = d, bias
	blocks := t.w.cols / kernels.BlockLen
	if n := blocks * t.rows * recordSize / 4; len(d.rounded) < n {
		d.rounded = aligned(n)
	}
	t.x = unsafe.Pointer(&d.rounded[0])
	d.roundBlocks = blockRounding{x: x, to: t.x, row: xRow, rows: t.rows, blocks: blocks}
	d.share(t.rows, max(1, roundedAtOnce/t.w.cols), &d.roundBlocks)
	d.roundBlocks = blockRounding{}
	t.plan(d.team.size)
	t.begin(t.splits*t.runs, d.team.size)
	if cost(t.rows, t.w.rows*t.w.cols)/4 < worthSharing {
		t.work(0)
	} else {
		d.run(t)
	}
	t.x, t.out, t.bias, t.w = nil, nil, nil, nil
}

// plan cuts the product into pieces.
func (t *blockLinear) plan(threads int) {
	panels := t.w.panels()
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
	i, ok := t.claim(worker)
	for ok {
		s, first := i/t.runs, i%t.runs*t.chunk
		following := first // which is there
		j, more := t.claim(worker)
		if more {
			following = j % t.runs * t.chunk
		}
		t.piece(t.rows*s/t.splits, t.rows*(s+1)/t.splits, first, min(first+t.chunk, t.w.panels()), following, worker)
		i, ok = j, more
	}
}

// piece computes rows lo … hi-1 of panels first … last-1. following is the panel that comes after those.
func (t *blockLinear) piece(lo, hi, first, last, following, worker int) {
	sums := t.d.workspace(worker, t.cut*lanes)
	for r := lo; r < hi; r += t.cut {
		a := blockTile{
			x: unsafe.Add(t.x, r*recordSize), sums: unsafe.Pointer(&sums[0]), blocks: t.w.cols / kernels.BlockLen,
			rows: min(t.cut, hi-r), xBlock: t.rows * recordSize, outRow: t.outRow,
		}
		for p := first; p < last; p++ {
			clear(sums[:a.rows*lanes])
			a.panel, a.mask = t.w.at(p, 0), maskOf(t.w.rows-p*lanes)
			a.out = unsafe.Add(t.out, r*t.outRow+4*lanes*p)
			if t.bias != nil {
				a.bias = unsafe.Add(t.bias, 4*lanes*p)
			}
			next := p + 1
			switch {
			case p+1 == last && r+t.cut < hi:
				next = first
			case p+1 == last:
				next = following
			}
			a.ahead = uintptr(a.panel) + nibblesAhead
			if t.w.blocks == kernels.Q8_0 { // 1.2 to 1.6 times as fast at 2 to 8 rows
				a.ahead = uintptr(t.w.at(next, 0))
			}
			a.dots(t.w)
			a.store()
		}
	}
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
