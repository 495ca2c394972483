package cpu

import "github.com/r2-reasoner/r2/kernels"

// Add sets out = a + b.
func (d *Device) Add(out, a, b kernels.Tensor) {
	need(like(out, a, b), "Add", out, a, b)
	d.rows.begin("Add", out, a, b)
	d.each(out.Rows, out.Cols, func(t *rowTask, i, _ int) { add(t.v[0].row(i), t.v[1].row(i), t.v[2].row(i)) })
}

// SwiGLU sets out = (gate / (1 + exp(-gate)))·up. out may be gate or up.
func (d *Device) SwiGLU(out, gate, up kernels.Tensor) {
	need(like(out, gate, up), "SwiGLU", out, gate, up)
	d.rows.begin("SwiGLU", out, gate, up)
	d.each(out.Rows, out.Cols, func(t *rowTask, i, _ int) { swiglu(t.v[0].row(i), t.v[1].row(i), t.v[2].row(i)) })
}

// SwiGLUGrad adds dy·silu(gate) to dup and dy·up·silu'(gate) to dgate.
func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up kernels.Tensor) {
	need(like(dgate, dup, dy, gate, up), "SwiGLUGrad", dgate, dup, dy, gate, up)
	d.rows.begin("SwiGLUGrad", dgate, dup, dy, gate, up)
	d.each(dy.Rows, dy.Cols, func(t *rowTask, i, _ int) {
		swigluGrad(t.v[0].row(i), t.v[1].row(i), t.v[2].row(i), t.v[3].row(i), t.v[4].row(i))
	})
}

// RoPE rotates, in place, the pairs (j, j+HeadDim/2) of each head of x.
func (d *Device) RoPE(x, pos kernels.Tensor, r kernels.Rotary) {
	need(like(x) && oneColumn(pos, kernels.I32, x.Rows) && r.HeadDim > 0 && r.HeadDim%2 == 0 && x.Cols%r.HeadDim == 0 &&
		r.Table.Type == kernels.F32 && r.Table.Cols == r.HeadDim, "RoPE", x, pos, r.Table)
	t := &d.rows
	if t.ids = columnOf("RoPE", pos); !d.within("RoPE", t.ids, x.Rows, r.Table.Rows, false) {
		return
	}
	t.begin("RoPE", x, r.Table)
	if t.sign = 1; r.Inverse {
		t.sign = -1
	}
	d.each(x.Rows, x.Cols, func(t *rowTask, i, _ int) {
		x, angles := t.v[0].row(i), t.v[1].row(t.ids.at(i))
		for h := len(angles) / 2; len(x) > 0; x = x[2*h:] {
			rotate(x[:h], x[h:2*h], angles[:h], angles[h:], t.sign)
		}
	})
}

// Gather sets row i of out to row rows[i] of x.
func (d *Device) Gather(out, x, rows kernels.Tensor) {
	need(out.Type == x.Type && out.Cols == x.Cols && oneColumn(rows, kernels.I32, out.Rows), "Gather", out, x, rows)
	at := columnOf("Gather", rows)
	if !d.within("Gather", at, out.Rows, x.Rows, false) || out.Rows*out.Cols == 0 {
		return
	}
	to, from := bytesFrom("Gather", out), bytesFrom("Gather", x)
	n, size := out.Cols*out.Type.Size(), out.Type.Size()
	for i := range out.Rows {
		copy(to[i*out.Stride*size:][:n], from[at.at(i)*x.Stride*size:])
	}
}

// Scatter sets row rows[i] of out to row i of x, in order. A negative row is skipped.
func (d *Device) Scatter(out, x, rows kernels.Tensor) {
	need((out.Type == x.Type || roundsTo(out, x)) && out.Cols == x.Cols && oneColumn(rows, kernels.I32, x.Rows), "Scatter", out, x, rows)
	at := columnOf("Scatter", rows)
	if !d.within("Scatter", at, x.Rows, out.Rows, true) || x.Rows*x.Cols == 0 {
		return
	}
	if out.Type != x.Type {
		to, from := halves("Scatter", out), floats("Scatter", x)
		for i := range x.Rows {
			if r := at.at(i); r >= 0 {
				roundRow(to[r*out.Stride:][:x.Cols], from[i*x.Stride:])
			}
		}
		return
	}
	to, from := bytesFrom("Scatter", out), bytesFrom("Scatter", x)
	n, size := x.Cols*x.Type.Size(), x.Type.Size()
	for i := range x.Rows {
		if r := at.at(i); r >= 0 {
			copy(to[r*out.Stride*size:][:n], from[i*x.Stride*size:])
		}
	}
}

// A columnTask is a sum over rows, which takes them in order: threads share out the columns.
type columnTask struct {
	out, x view
	rows   int
	to     column // the row of out each row goes to; none: all to row 0
}

const pieceColumns = 256 // of a columnTask: few enough to share, enough for whole cache lines

// SumRows adds the rows of x, in order, to out.
func (d *Device) SumRows(out, x kernels.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == x.Cols, "SumRows", out, x)
	d.addRows(columnTask{out: viewOf("SumRows", out), x: viewOf("SumRows", x), rows: x.Rows})
}

// ScatterAdd adds row i of x to row rows[i] of out, in order.
func (d *Device) ScatterAdd(out, x, rows kernels.Tensor) {
	need(like(out) && like(x) && out.Cols == x.Cols && oneColumn(rows, kernels.I32, x.Rows), "ScatterAdd", out, x, rows)
	if at := columnOf("ScatterAdd", rows); d.within("ScatterAdd", at, x.Rows, out.Rows, false) {
		d.addRows(columnTask{out: viewOf("ScatterAdd", out), x: viewOf("ScatterAdd", x), rows: x.Rows, to: at})
	}
}

func (d *Device) addRows(t columnTask) {
	if d.err != nil || t.rows == 0 || t.x.cols == 0 {
		return
	}
	grain := pieceColumns
	if t.rows*t.x.cols <= pieceElements {
		grain = t.x.cols
	}
	d.columns = t
	d.share(t.x.cols, grain, &d.columns)
	d.columns = columnTask{}
}

func (t *columnTask) span(lo, hi, _ int) {
	for i := range t.rows {
		r := 0
		if t.to.s != nil {
			r = t.to.at(i)
		}
		out := t.out.row(r)[lo:hi]
		add(out, out, t.x.row(i)[lo:hi])
	}
}

// squareBlock is how many squares are summed in float32 before they are added in float64.
const squareBlock = 4096

// SumSquares sets out to Σx²: each row is cut into blocks of 4096, whose squares are summed in float32 by
// lanes, and the blocks are added in order in float64.
func (d *Device) SumSquares(out, x kernels.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == 1, "SumSquares", out, x)
	to := floats("SumSquares", out)
	if d.err != nil {
		return
	}
	blocks := ceilDiv(x.Cols, squareBlock)
	if len(d.squares) < x.Rows*blocks {
		d.squares = make([]float32, x.Rows*blocks)
	}
	d.rows.begin("SumSquares", out, x)
	d.each(x.Rows, x.Cols, func(t *rowTask, i, _ int) {
		x := t.v[1].row(i)
		blocks := ceilDiv(len(x), squareBlock)
		for b := range blocks {
			run := x[b*squareBlock : min((b+1)*squareBlock, len(x))]
			t.d.squares[i*blocks+b] = dot(run, run)
		}
	})
	sum := 0.0
	for _, s := range d.squares[:x.Rows*blocks] {
		sum += float64(s)
	}
	to[0] = float32(sum)
}
