package cpu

import (
	"fmt"
	"sync/atomic"
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
	cutN         int // outputs of a transposed panel, a multiple of 32
	splits       int // of the rows
	next         atomic.Int64
	d            *Device
}

// mostLines is the most lines of a transposed panel: 256 KB.
const mostLines = 2048

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
	lines := cacheRows / (4 * t.rows) / lanes * lanes
	t.cutN = min(max(lines, 256), mostLines, ceilDiv(w.Rows, lanes)*lanes)
	t.splits = 1
	if panels := ceilDiv(w.Cols, lanes); panels < 2*d.team.size {
		t.splits = max(1, min(ceilDiv(2*d.team.size, panels), t.rows/(4*tileRows)))
	}
	t.next.Store(0)
	if cost(t.rows, w.Rows*w.Cols) < worthSharing {
		t.work(0)
	} else {
		d.run(t)
	}
	t.dout, t.dx, t.w = nil, nil, nil
}

// work takes 32 inputs of a split of the rows at a time until none is left.
func (t *linearGradTask) work(worker int) {
	panels := ceilDiv(t.w.cols, lanes)
	for {
		i := int(t.next.Add(1)) - 1
		if i >= panels*t.splits {
			return
		}
		s, q := i/panels, i%panels
		t.piece(t.rows*s/t.splits, t.rows*(s+1)/t.splits, q, worker)
	}
}

// piece adds inputs 32q … 32q+31 of rows lo … hi-1.
func (t *linearGradTask) piece(lo, hi, q, worker int) {
	panel := unsafe.Pointer(&t.d.workspace(worker, t.cutN*lanes)[0])
	for n := 0; n < t.w.rows; n += t.cutN {
		k := min(t.cutN, t.w.rows-n)
		for i := 0; i < k; i += lanes {
			t.transpose(unsafe.Add(panel, i*lineF32), t.w.at((n+i)/lanes, q*lanes))
		}
		a := tile{
			panel: panel, k: k, line: lineF32, row: t.doutRow, step: 4, outRow: t.row,
			ahead: uintptr(panel), mask: maskOf(t.w.cols - q*lanes), start: 1, alpha: 1,
		}
		tiles := ceilDiv(hi-lo, tileRows)
		for i := range tiles {
			r, end := lo+(hi-lo)*i/tiles, lo+(hi-lo)*(i+1)/tiles
			a.x = unsafe.Add(t.dout, r*t.doutRow+4*n)
			a.out = unsafe.Add(t.dx, r*t.row+4*lanes*q)
			a.f32(end - r)
		}
	}
}

// transpose turns a block of 32 lines into 32 f32 lines.
func (t *linearGradTask) transpose(to, from unsafe.Pointer) {
	for i := 0; i < lanes; i += 16 { // 16 lines become 16 lanes
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
