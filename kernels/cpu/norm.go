package cpu

import (
	"math"

	"github.com/r2-reasoner/r2/kernels"
)

// norms reports whether w is one row whose length divides the columns of x.
func norms(x, w kernels.Tensor) bool {
	return w.Type == kernels.F32 && w.Rows == 1 && w.Cols > 0 && x.Cols%w.Cols == 0
}

// rstd is 1 / √(mean(x²) + eps): the squares are summed in float32 by lanes, the rest is float64.
func rstd(x []float32, eps float32) float64 {
	return 1 / math.Sqrt(float64(dot(x, x))/float64(len(x))+float64(eps))
}

// RMSNorm normalizes each run of w.Cols columns of x: out = (x·rstd)·w. out may be x.
func (d *Device) RMSNorm(out, x, w kernels.Tensor, eps float32) {
	need(like(out, x) && norms(x, w), "RMSNorm", out, x, w)
	d.rows.begin("RMSNorm", out, x, w)
	d.rows.eps = eps
	d.each(x.Rows, x.Cols, func(t *rowTask, i, _ int) {
		out, x, w := t.v[0].row(i), t.v[1].row(i), t.v[2].row(0)
		for n := len(w); len(x) > 0; out, x = out[n:], x[n:] {
			mulScale(out[:n], x[:n], w, float32(rstd(x[:n], t.eps)))
		}
	})
}

// RMSNormGrad adds (dy·w)·r - x·r³·Σ(dy·w·x)/n to dx, and dy·(x·r) of each row in turn to dw.
func (d *Device) RMSNormGrad(dx, dw, dy, x, w kernels.Tensor, eps float32) {
	need(like(x, dx, dy) && norms(x, w) && (dw.Zero() || like(w, dw)), "RMSNormGrad", dx, dw, dy, x, w)
	t := &d.rows
	t.begin("RMSNormGrad", dx, dy, x, w)
	if t.eps = eps; !dw.Zero() && d.err == nil {
		normWeightGrads(viewOf("RMSNormGrad", dw).s, t.v[1], t.v[2], x.Rows, eps)
	}
	d.each(x.Rows, x.Cols, func(t *rowTask, i, _ int) {
		dx, dy, x, w := t.v[0].row(i), t.v[1].row(i), t.v[2].row(i), t.v[3].row(0)
		for n := len(w); len(x) > 0; dx, dy, x = dx[n:], dy[n:], x[n:] {
			r := rstd(x[:n], t.eps)
			k := r * r * r * float64(dot3(dy[:n], w, x[:n])) / float64(n)
			normGrad(dx[:n], dy[:n], x[:n], w, float32(r), float32(k))
		}
	})
}

// normWeightGrads adds the rows in order, on one thread.
func normWeightGrads(dw []float32, dy, x view, rows int, eps float32) {
	for i := range rows {
		dy, x := dy.row(i), x.row(i)
		for n := len(dw); len(x) > 0; dy, x = dy[n:], x[n:] {
			normWeightGrad(dw, dy[:n], x[:n], float32(rstd(x[:n], eps)))
		}
	}
}
