package cpu

import (
	"fmt"
	"sync"

	"github.com/r2-reasoner/r2/kernels"
)

// vectorTasks are the tasks of the operations that are not matrix products. They live in the Device so
// that no operation allocates.
type vectorTasks struct {
	rows     rowTask
	columns  columnTask
	attn     attention
	attnGrad attentionGrad
	squares  []float32 // sums of SumSquares' blocks, grown once
}

// A view is a tensor's elements: row i begins at i·stride.
type view struct {
	s            []float32
	stride, cols int
}

func viewOf(op string, t kernels.Tensor) view {
	return view{s: floats(op, t), stride: t.Stride, cols: t.Cols}
}

func (v view) row(i int) []float32 { return v.s[i*v.stride:][:v.cols] }

// from is row i from column j on, with all that follows it.
func (v view) from(i, j int) []float32 { return v.s[i*v.stride+j:] }

// A column is an I32 tensor of one column.
type column struct {
	s      []int32
	stride int
}

func columnOf(op string, t kernels.Tensor) column {
	return column{s: ints(op, t), stride: t.Stride}
}

func (c column) at(i int) int { return int(c.s[i*c.stride]) }

// A rowTask is an operation that does the same to each row.
type rowTask struct {
	d     *Device
	op    string
	do    func(t *rowTask, i, worker int)
	v     [6]view
	ids   column
	mask  []uint32 // bits of the allowed ids, a row each
	words int      // from one row of mask to the next
	temp  view     // a zero view: every temperature is 1
	eps   float32
	sign  float32
	step  adam
	mutex sync.Mutex // of the two below
	bad   int        // the first row that failed
	err   error
}

// begin names the operation and its F32 operands.
func (t *rowTask) begin(op string, operands ...kernels.Tensor) {
	t.op = op
	for i, o := range operands {
		t.v[i] = viewOf(op, o)
	}
}

// pieceElements is how many elements of a row-wise operation are worth waking another thread for.
const pieceElements = 1 << 13

// each calls do for every row, on several threads if they have many columns together.
func (d *Device) each(n, cols int, do func(t *rowTask, i, worker int)) {
	t := &d.rows
	if d.err == nil && n > 0 && cols > 0 {
		t.d, t.do, t.err = d, do, nil
		d.share(n, d.evenGrain(n, n*cols/pieceElements), t)
		if t.err != nil {
			d.fail(t.err)
		}
	}
	t.d, t.do, t.err = nil, nil, nil
	t.v, t.ids, t.mask, t.temp = [6]view{}, column{}, nil, view{} // let freed memory go
}

// evenGrain cuts n into about so many pieces, at most 8 and equally many for each thread.
func (d *Device) evenGrain(n, pieces int) int {
	size := d.team.size
	if pieces > 1 {
		pieces = min(ceilDiv(pieces, size), 8) * size
	}
	return ceilDiv(n, max(pieces, 1))
}

func (t *rowTask) span(lo, hi, worker int) {
	for i := lo; i < hi; i++ {
		t.do(t, i, worker)
	}
}

// fail keeps the failure of the first row that has one, whichever thread comes to it first.
func (t *rowTask) fail(i int, format string, args ...any) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.err == nil || i < t.bad {
		t.bad, t.err = i, fmt.Errorf("cpu: %s: row %d: %s", t.op, i, fmt.Sprintf(format, args...))
	}
}

// reserve grows every worker's scratch to n, so that none allocates later because it came along late.
func (d *Device) reserve(n int) {
	for worker := range d.scratch {
		d.workspace(worker, n)
	}
}

// within keeps a failure unless each of the n indices is one of 0 … rows-1, or may be skipped because it
// is negative.
func (d *Device) within(op string, c column, n, rows int, skip bool) bool {
	if d.err != nil {
		return false
	}
	for i := range n {
		if at := c.at(i); at >= rows || at < 0 && !skip {
			d.fail(fmt.Errorf("cpu: %s: row %d: index %d is outside 0 … %d", op, i, at, rows-1))
			return false
		}
	}
	return true
}

// need panics with the shapes of the operands unless they fit.
func need(fit bool, op string, operands ...kernels.Tensor) {
	if fit {
		return
	}
	msg := "cpu: " + op + ": shapes do not fit:"
	for _, t := range operands {
		msg += " " + shape(t) + " " + t.Type.String()
	}
	panic(msg)
}

// like reports whether all of ts are F32 of one shape.
func like(t kernels.Tensor, ts ...kernels.Tensor) bool {
	ok := t.Type == kernels.F32
	for _, u := range ts {
		ok = ok && u.Type == kernels.F32 && u.Rows == t.Rows && u.Cols == t.Cols
	}
	return ok
}

// oneColumn reports whether t is one column of n elements of a type.
func oneColumn(t kernels.Tensor, typ kernels.DType, n int) bool {
	return t.Type == typ && t.Rows == n && t.Cols == 1
}
