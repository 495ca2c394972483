package cpu

import (
	"fmt"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// linearGradTask is dx += dout·w. The sum goes over w's outputs, which are the lanes of its panels: so
// the 32 x 32 blocks of a few inputs are transposed, and widened, into a panel whose lanes are inputs
// and whose lines are outputs, and the tiles of the forward product run over that.
type linearGradTask struct {
	w            *weight
	dout, dx     unsafe.Pointer
	rows         int
	doutRow, row int // bytes, of dout and dx
	cutN         int // of a block of dout; a multiple of 32, and also a transposed panel's lines
	blocks, runs int // the pieces: blocks of the rows × runs of panels of 32 inputs
	claims
	d *Device
}

const (
	mostLines  = 2048 // of a transposed panel, which then takes 256 KB
	leastLines = 256

	longestGrad = 24 // panels of a piece: where rows lie badly each piece copies its part of dout
)

// LinearGrad adds dout·w to dx: each element is one sum that starts from what dx holds, w's rows
// ascending, one rounding a term.
func (d *Device) LinearGrad(dx, dout kernels.Tensor, w kernels.Weight) {
	if dx.Rows != dout.Rows || dx.Cols != w.Cols || dout.Cols != w.Rows {
		panic(fmt.Sprintf("cpu: LinearGrad: dx %s, dout %s, w %dx%d", shape(dx), shape(dout), w.Rows, w.Cols))
	}
	to, from, wt := floats("LinearGrad", dx), floats("LinearGrad", dout), weightOf("LinearGrad", w)
	if d.err != nil || len(to) == 0 || len(from) == 0 {
		return
	}
	t := &d.linearGrad
	t.d, t.w, t.rows = d, wt, dx.Rows
	t.dout, t.doutRow = unsafe.Pointer(&from[0]), 4*dout.Stride
	t.dx, t.row = unsafe.Pointer(&to[0]), 4*dx.Stride
	t.plan(d.team.size)
	t.begin(t.blocks*t.runs, d.team.size)
	if cost(t.rows, w.Rows*w.Cols) < worthSharing {
		t.work(0)
	} else {
		d.run(t)
	}
	t.dout, t.dx, t.w = nil, nil, nil
}

// plan cuts the product so that a block of dout stays in the second cache while the panels of a run
// are transposed and go over it. A piece is a block of rows and a run.
func (t *linearGradTask) plan(threads int) {
	panels := ceilDiv(t.w.cols, lanes)
	t.blocks = cutEvenly(t.rows, cacheRows/(4*leastLines), threads)
	if t.blocks*panels < 2*threads { // too few for everyone
		t.blocks = max(t.blocks, min(ceilDiv(2*threads, panels), t.rows/(4*tileRows)))
	}
	lines := cacheRows / (4 * ceilDiv(t.rows, t.blocks)) / lanes * lanes
	t.cutN = min(max(lines, leastLines), mostLines, ceilDiv(t.w.rows, lanes)*lanes)
	t.runs = runsOf(panels, t.blocks, threads, longestGrad)
}

// work takes pieces until none is left.
func (t *linearGradTask) work(worker int) {
	panels := ceilDiv(t.w.cols, lanes)
	for i, ok := t.claim(worker); ok; i, ok = t.claim(worker) {
		b, run := i/t.runs, i%t.runs
		t.piece(t.rows*b/t.blocks, t.rows*(b+1)/t.blocks, panels*run/t.runs, panels*(run+1)/t.runs, worker)
	}
}

// piece adds the inputs of panels first … last-1 to rows lo … hi-1.
func (t *linearGradTask) piece(lo, hi, first, last, worker int) {
	copied := 0
	if spreads(hi-lo, t.doutRow) {
		copied = spreadSize(hi-lo, t.cutN)
	}
	space := t.d.workspace(worker, t.cutN*lanes+copied+lanes*lanes)
	panel, wide := unsafe.Pointer(&space[0]), unsafe.Pointer(&space[t.cutN*lanes+copied])
	for n := 0; n < t.w.rows; n += t.cutN {
		k := min(t.cutN, t.w.rows-n)
		x, row := unsafe.Add(t.dout, lo*t.doutRow+4*n), t.doutRow
		if copied > 0 {
			x, row = spread(space[t.cutN*lanes:], x, hi-lo, row, k)
		}
		for q := first; q < last; q++ {
			for i := 0; i < k; i += lanes {
				t.transpose(unsafe.Add(panel, i*lineF32), t.w.at((n+i)/lanes, q*lanes), wide)
			}
			a := tile{
				panel: panel, k: k, line: lineF32, row: row, step: 4, outRow: t.row,
				mask: maskOf(t.w.cols - q*lanes), start: 1, alpha: 1,
			}
			next, from := q+1, n
			if next == last {
				next, from = first, n+t.cutN
			}
			t.tiles(&a, x, unsafe.Add(t.dx, lo*t.row+4*lanes*q), hi-lo, from, next)
		}
	}
}

// tiles computes rows of a panel. Meanwhile the blocks that are transposed next, of the outputs from n on and panel q,
// are asked for, one in each tile, and what the next tile adds to.
func (t *linearGradTask) tiles(a *tile, x, out unsafe.Pointer, rows, n, q int) {
	tiles := ceilDiv(rows, tileRows)
	for i := range tiles {
		lo, hi := rows*i/tiles, rows*(i+1)/tiles
		a.x, a.out = unsafe.Add(x, lo*a.row), unsafe.Add(out, lo*a.outRow)
		if i+1 < tiles {
			bring(unsafe.Add(out, hi*a.outRow), a.outRow, rows*(i+2)/tiles-hi)
		} else {
			bring(unsafe.Add(out, lineF32), a.outRow, rows/tiles) // of the next panel
		}
		a.ahead, a.aheadStep = uintptr(a.panel), 0
		if at := n + i*lanes; at < t.w.rows && i*lanes < t.cutN {
			a.ahead, a.aheadStep = uintptr(t.w.at(at/lanes, q*lanes)), ceilDiv(lanes*t.w.line, 2*a.k)
		}
		a.f32(hi - lo)
	}
}

// transpose turns a block of 32 lines into 32 f32 lines. wide is room for such a block.
func (t *linearGradTask) transpose(to, from, wide unsafe.Pointer) {
	if t.w.blocks != kernels.F32 {
		m := move{dst: wide, src: from, n: 1}
		t.w.widenBlocks(&m)
		from = wide
	}
	for i := 0; i < lanes; i += 16 { // 16 lines become 16 lanes
		if t.w.pairs { // 16 lanes become 16 lines
			m := move{dst: unsafe.Add(to, i*lineF32), src: unsafe.Add(from, 4*i)}
			m.transposePairs()
			continue
		}
		if t.w.bf16 {
			m := move{dst: unsafe.Add(to, 4*i), src: unsafe.Add(from, i*lineBF16), dstRow: lineF32}
			m.transposeBF16()
			continue
		}
		for l := 0; l < lanes; l += 16 {
			m := move{
				dst: unsafe.Add(to, l*lineF32+4*i), src: unsafe.Add(from, i*lineF32+4*l),
				n: 16, srcRow: lineF32, dstRow: lineF32, mask: maskOf(16),
			}
			m.transpose()
		}
	}
}
