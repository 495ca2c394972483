package ref

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

func (d *Device) RMSNormGrad(dx, dw, dy, x, w k.Tensor, eps float32) {
	need(like(x, dx, dy) && norms(x, w) && (dw.Zero() || like(w, dw)), "RMSNormGrad", dx, dw, dy, x, w)
	if d.err != nil {
		return
	}
	n, scale := w.Cols, Row(w, 0)
	for i := range x.Rows {
		for o := 0; o < x.Cols; o += n {
			run, g, into := Row(x, i)[o:o+n], Row(dy, i)[o:o+n], Row(dx, i)[o:o+n]
			r, s := rstd(run, eps), 0.0
			for j, v := range run {
				s += g[j] * scale[j] * v
			}
			for j, v := range run {
				into[j] += r*g[j]*scale[j] - r*r*r*s*v/float64(n)
			}
			if dw.Zero() {
				continue
			}
			for j, v := range run {
				Row(dw, 0)[j] += g[j] * v * r
			}
		}
	}
}

func (d *Device) LinearGrad(dx, dout k.Tensor, w k.Weight) {
	need(like(dx) && like(dout) && dx.Rows == dout.Rows && dout.Cols == w.Rows && dx.Cols == w.Cols,
		"LinearGrad", dx, dout, matrix(w))
	d.matMul(dx, dout, matrix(w), k.Gemm{Accumulate: true, Alpha: 1})
}

func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up k.Tensor) {
	need(like(dgate, dup, dy, gate, up), "SwiGLUGrad", dgate, dup, dy, gate, up)
	if d.err != nil {
		return
	}
	for i := range dy.Rows {
		for j, g := range Row(gate, i) {
			s, y := sigmoid(g), Row(dy, i)[j]
			Row(dup, i)[j] += y * g * s
			Row(dgate, i)[j] += y * Row(up, i)[j] * (s + g*s*(1-s))
		}
	}
}

func (d *Device) SumRows(out, x k.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == x.Cols, "SumRows", out, x)
	if d.err != nil {
		return
	}
	for i := range x.Rows {
		for j, v := range Row(x, i) {
			Row(out, 0)[j] += v
		}
	}
}

func (d *Device) ScatterAdd(out, x, rows k.Tensor) {
	need(like(out) && like(x) && out.Cols == x.Cols && column(rows, k.I32, x.Rows), "ScatterAdd", out, x, rows)
	if d.err != nil {
		return
	}
	for i := range x.Rows {
		r := at(rows, i)
		if !d.index("ScatterAdd", i, r, out.Rows) {
			continue
		}
		for j, v := range Row(x, i) {
			Row(out, r)[j] += v
		}
	}
}

func (d *Device) SumSquares(out, x k.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == 1, "SumSquares", out, x)
	if d.err != nil {
		return
	}
	s := 0.0
	for i := range x.Rows {
		s += dot(Row(x, i), Row(x, i))
	}
	Row(out, 0)[0] = s
}

func (d *Device) AdamW(w, m, v, g k.Tensor, o k.Adam) {
	need(like(w, m, v, g) && o.Step >= 1, "AdamW", w, m, v, g)
	if d.err != nil {
		return
	}
	b1, b2, lr := float64(o.Beta1), float64(o.Beta2), float64(o.LR)
	c1, c2 := 1-math.Pow(b1, float64(o.Step)), 1-math.Pow(b2, float64(o.Step))
	for i := range w.Rows {
		wi, mi, vi := Row(w, i), Row(m, i), Row(v, i)
		for j, gj := range Row(g, i) {
			gj *= float64(o.Scale)
			mi[j] = b1*mi[j] + (1-b1)*gj
			vi[j] = b2*vi[j] + (1-b2)*gj*gj
			wi[j] -= lr * float64(o.Decay) * wi[j]
			wi[j] -= lr * (mi[j] / c1) / (math.Sqrt(vi[j]/c2) + float64(o.Eps))
		}
	}
}
