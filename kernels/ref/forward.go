package ref

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

func (d *Device) Embed(out k.Tensor, table k.Weight, ids k.Tensor) {
	need(out.Type == k.F32 && out.Cols == table.Cols && column(ids, k.I32, out.Rows), "Embed", out, matrix(table), ids)
	d.gather("Embed", out, matrix(table), ids)
}

func (d *Device) Gather(out, x, rows k.Tensor) {
	need(out.Type == x.Type && out.Cols == x.Cols && column(rows, k.I32, out.Rows), "Gather", out, x, rows)
	d.gather("Gather", out, x, rows)
}

func (d *Device) gather(op string, out, x, rows k.Tensor) {
	if d.err != nil {
		return
	}
	for i := range out.Rows {
		if r := at(rows, i); d.index(op, i, r, x.Rows) {
			copy(Row(out, i), Row(x, r))
		}
	}
}

func (d *Device) Scatter(out, x, rows k.Tensor) {
	need((out.Type == x.Type || roundsTo(out, x)) && out.Cols == x.Cols && column(rows, k.I32, x.Rows), "Scatter", out, x, rows)
	if d.err != nil {
		return
	}
	for i := range x.Rows {
		if r := at(rows, i); r >= 0 && d.index("Scatter", i, r, out.Rows) {
			set(out, r, x, i)
		}
	}
}

// norms reports whether w is one row whose length divides the columns of x.
func norms(x, w k.Tensor) bool {
	return w.Type == k.F32 && w.Rows == 1 && w.Cols > 0 && x.Cols%w.Cols == 0
}

// rstd is 1 / sqrt(mean(x²) + eps).
func rstd(x []float64, eps float32) float64 {
	return 1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(eps))
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func (d *Device) RMSNorm(out, x, w k.Tensor, eps float32) {
	need(like(out, x) && norms(x, w), "RMSNorm", out, x, w)
	if d.err != nil {
		return
	}
	n, scale := w.Cols, Row(w, 0)
	for i := range x.Rows {
		for o := 0; o < x.Cols; o += n {
			run, y := Row(x, i)[o:o+n], Row(out, i)[o:o+n]
			r := rstd(run, eps)
			for j, v := range run {
				y[j] = v * r * scale[j]
			}
		}
	}
}

func (d *Device) Linear(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	need(out.Type == k.F32 && x.Type == k.F32 && out.Rows == x.Rows && out.Cols == w.Rows && x.Cols == w.Cols &&
		rowOrNone(bias, w.Rows), "Linear", out, x, matrix(w), bias)
	d.matMul(out, rounded(x, w.Format), matrix(w), k.Gemm{TransB: true, Alpha: 1, Bias: bias})
}

// rowOrNone reports whether bias is absent or one row of n.
func rowOrNone(bias k.Tensor, n int) bool {
	return bias.Zero() || bias.Type == k.F32 && bias.Rows == 1 && bias.Cols == n
}

func (d *Device) MatMul(c, a, b k.Tensor, g k.Gemm) {
	m, n := a.Rows, a.Cols
	if g.TransA {
		m, n = n, m
	}
	p, q := b.Rows, b.Cols
	if g.TransB {
		p, q = q, p
	}
	need(like(c) && like(a) && like(b) && c.Rows == m && c.Cols == q && n == p && rowOrNone(g.Bias, q),
		"MatMul", c, a, b, g.Bias)
	if g.Accumulate && (g.Alpha != 1 || !g.Bias.Zero()) {
		panic("ref: MatMul: Accumulate needs an Alpha of 1 and no Bias")
	}
	d.matMul(c, a, b, g)
}

// element is op(t)[i][j].
func element(t k.Tensor, trans bool, i, j int) float64 {
	if trans {
		i, j = j, i
	}
	return Row(t, i)[j]
}

func (d *Device) matMul(c, a, b k.Tensor, g k.Gemm) {
	if d.err != nil {
		return
	}
	n := a.Cols
	if g.TransA {
		n = a.Rows
	}
	for i := range c.Rows {
		for j := range c.Cols {
			s := 0.0
			if g.Accumulate {
				s = Row(c, i)[j]
			}
			for p := range n {
				s += element(a, g.TransA, i, p) * element(b, g.TransB, p, j)
			}
			if !g.Accumulate {
				s *= float64(g.Alpha)
			}
			if !g.Bias.Zero() {
				s += Row(g.Bias, 0)[j]
			}
			Row(c, i)[j] = s
		}
	}
}

func (d *Device) RoPE(x, pos k.Tensor, r k.Rotary) {
	need(like(x) && column(pos, k.I32, x.Rows) && r.HeadDim > 0 && r.HeadDim%2 == 0 && x.Cols%r.HeadDim == 0 &&
		r.Table.Type == k.F32 && r.Table.Cols == r.HeadDim, "RoPE", x, pos, r.Table)
	if d.err != nil {
		return
	}
	h := r.HeadDim / 2
	for i := range x.Rows {
		if !d.index("RoPE", i, at(pos, i), r.Table.Rows) {
			continue
		}
		angles := Row(r.Table, at(pos, i))
		for o := 0; o < x.Cols; o += r.HeadDim {
			head := Row(x, i)[o : o+r.HeadDim]
			for j := range h {
				cos, sin := angles[j], angles[h+j]
				if r.Inverse {
					sin = -sin
				}
				a, b := head[j], head[h+j]
				head[j], head[h+j] = a*cos-b*sin, b*cos+a*sin
			}
		}
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func (d *Device) SwiGLU(out, gate, up k.Tensor) {
	need(like(out, gate, up), "SwiGLU", out, gate, up)
	if d.err != nil {
		return
	}
	for i := range out.Rows {
		for j, g := range Row(gate, i) {
			Row(out, i)[j] = g * sigmoid(g) * Row(up, i)[j]
		}
	}
}

func (d *Device) Add(out, a, b k.Tensor) {
	need(like(out, a, b), "Add", out, a, b)
	if d.err != nil {
		return
	}
	for i := range out.Rows {
		for j := range out.Cols {
			Row(out, i)[j] = Row(a, i)[j] + Row(b, i)[j]
		}
	}
}
