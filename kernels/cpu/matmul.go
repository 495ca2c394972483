package cpu

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// matmulTask is c = alpha·op(a)·op(b) + bias, or c += op(a)·op(b), of matrices that change from call to
// call, so that nothing of them is packed beforehand.
type matmulTask struct {
	c, a, b, bias unsafe.Pointer
	m, n, k       int
	row, step     int // bytes in a from one row of op(a) to the next, and from one k to the next
	bRow, cRow    int // bytes
	transA        bool
	transB        bool
	start         uint32
	alpha         float32

	cutRows, cutK       int
	blocks, runs, chunk int // the pieces: blocks of cutRows rows × runs of chunk panels of 32 columns
	next                atomic.Int64
	d                   *Device
}

const (
	cutMatMul  = 512              // terms of a sum between two visits to c
	inPlace    = 4 * tileRows     // up to so many rows, lines of b are read where they lie
	transposed = 4 * tileRows     // rows of op(a) that are packed together when a is transposed
	packedRows = 8 * tileRows     // fewer are not worth another packing of b
	cheap      = worthSharing / 4 // multiply-adds that the caller does alone
)

// MatMul sets c = alpha·op(a)·op(b) + bias, or with Accumulate c += op(a)·op(b). Each element is one
// sum over k ascending with one rounding a term, from 0 or from what c holds; alpha multiplies the
// rounded sum, and bias is added to that.
func (d *Device) MatMul(c, a, b kernels.Tensor, g kernels.Gemm) {
	t := &d.matmul
	t.m, t.k, t.n = a.Rows, a.Cols, b.Cols
	if g.TransA {
		t.m, t.k = t.k, t.m
	}
	bk := b.Rows
	if g.TransB {
		t.n, bk = bk, t.n
	}
	if bk != t.k || c.Rows != t.m || c.Cols != t.n || !g.Bias.Zero() && (g.Bias.Rows != 1 || g.Bias.Cols != t.n) {
		panic(fmt.Sprintf("cpu: MatMul: c %s, a %s (transposed %v), b %s (transposed %v), bias %s",
			shape(c), shape(a), g.TransA, shape(b), g.TransB, shape(g.Bias)))
	}
	if g.Accumulate && (g.Alpha != 1 || !g.Bias.Zero()) {
		panic(fmt.Sprintf("cpu: MatMul: Accumulate takes alpha 1 and no bias, not %g and %s", g.Alpha, shape(g.Bias)))
	}
	to, left, right := floats("MatMul", c), floats("MatMul", a), floats("MatMul", b)
	if d.err != nil || len(to) == 0 || t.k == 0 && g.Accumulate {
		return
	}
	t.d, t.alpha, t.start, t.bias = d, g.Alpha, 0, nil
	if g.Accumulate {
		t.start = 1
	}
	if !g.Bias.Zero() {
		t.bias = unsafe.Pointer(&floats("MatMul", g.Bias)[0])
	}
	t.c, t.cRow = unsafe.Pointer(&to[0]), 4*c.Stride
	t.a, t.transA, t.row, t.step = unsafe.Pointer(unsafe.SliceData(left)), g.TransA, 4*a.Stride, 4
	if g.TransA {
		t.row, t.step = t.step, t.row
	}
	t.b, t.transB, t.bRow = unsafe.Pointer(unsafe.SliceData(right)), g.TransB, 4*b.Stride
	t.plan(d.team.size)
	t.next.Store(0)
	if t.m*t.n*t.k < cheap {
		t.work(0)
	} else {
		d.run(t)
	}
	t.c, t.a, t.b, t.bias = nil, nil, nil, nil
}

// plan cuts the product into blocks and pieces.
func (t *matmulTask) plan(threads int) {
	panels := ceilDiv(t.n, lanes)
	t.cutK = max(1, t.k)
	if t.k > cutMatMul {
		t.cutK = ceilDiv(ceilDiv(t.k, ceilDiv(t.k, cutMatMul)), 16) * 16
	}
	t.cutRows = evenly(t.m, cacheRows/(4*t.cutK))
	if t.transA && panels > 1 {
		t.cutRows = evenly(t.m, min(cacheRows/(4*t.cutK), transposed))
	}
	if ceilDiv(t.m, t.cutRows)*panels < 2*threads { // too few pieces for everyone
		t.cutRows = min(t.cutRows, max(packedRows, ceilDiv(ceilDiv(t.m, ceilDiv(2*threads, panels)), tileRows)*tileRows))
	}
	t.blocks = ceilDiv(t.m, t.cutRows)
	t.chunk = max(1, min(longestRun, t.blocks*panels/(4*threads)))
	t.runs = ceilDiv(panels, t.chunk)
}

// work takes pieces until none is left.
func (t *matmulTask) work(worker int) {
	for {
		i := int(t.next.Add(1)) - 1
		if i >= t.blocks*t.runs {
			return
		}
		t.piece(i/t.runs*t.cutRows, i%t.runs*t.chunk, worker)
	}
}

// piece computes a block of rows from r on of a run of panels from first on.
func (t *matmulTask) piece(r, first, worker int) {
	rows := min(t.cutRows, t.m-r)
	last := min(first+t.chunk, ceilDiv(t.n, lanes))
	lines := panelLines(t.cutK)
	size := lines * (lanes + transposed)
	spreading := !t.transA && spreads(rows, t.row)
	if spreading {
		size = lines*lanes + spreadSize(rows, t.cutK)
	}
	space := t.d.workspace(worker, size)
	for k := 0; k < t.k || k == 0; k += t.cutK {
		a := tile{k: min(t.cutK, t.k-k), row: t.row, step: t.step, outRow: t.cRow, alpha: 1, start: t.start}
		if k > 0 {
			a.start = 1
		}
		x := unsafe.Add(t.a, r*t.row+k*t.step)
		if t.transA && last-first > 1 && a.k > 0 {
			x, a.step = t.packA(space[lines*lanes:], x, a.k, rows), 4*rows
		}
		if spreading && a.k > 0 {
			x, a.row = spread(space[lines*lanes:], x, rows, t.row, a.k)
		}
		end := k+a.k == t.k
		if end {
			a.alpha = t.alpha
		}
		for p := first; p < last; p++ {
			a.mask = maskOf(t.n - p*lanes)
			if end && t.bias != nil {
				a.bias = unsafe.Add(t.bias, p*4*lanes)
			}
			t.panel(&a, space, k, p, rows)
			a.ahead = uintptr(a.panel)
			a.tiles(x, unsafe.Add(t.c, r*t.cRow+p*4*lanes), rows)
		}
	}
}

// panel points a to lines k … of columns 32p … of op(b): where they lie, or packed into space.
func (t *matmulTask) panel(a *tile, space []float32, k, p, rows int) {
	width := min(lanes, t.n-p*lanes)
	switch {
	case a.k == 0:
		a.panel, a.line = t.b, 0
	case t.transB:
		a.panel, a.line = unsafe.Pointer(&space[0]), lineF32
		if width <= 16 {
			a.line /= 2
		}
		packLanes(a.panel, a.line, unsafe.Add(t.b, p*lanes*t.bRow+4*k), t.bRow, a.k, width)
	case rows <= inPlace:
		a.panel, a.line = unsafe.Add(t.b, k*t.bRow+4*lanes*p), t.bRow
	default:
		a.panel, a.line = unsafe.Pointer(&space[0]), lineF32
		from := unsafe.Add(t.b, k*t.bRow+4*lanes*p)
		for i := range a.k {
			copy(space[i*lanes:][:width], unsafe.Slice((*float32)(unsafe.Add(from, i*t.bRow)), width))
		}
	}
}

// packA gathers rows columns of k lines of a, which lie t.step apart, and returns where: a panel that
// comes after the first finds them close together.
func (t *matmulTask) packA(space []float32, from unsafe.Pointer, k, rows int) unsafe.Pointer {
	for i := range k {
		copy(space[i*rows:][:rows], unsafe.Slice((*float32)(unsafe.Add(from, i*t.step)), rows))
	}
	return unsafe.Pointer(&space[0])
}
