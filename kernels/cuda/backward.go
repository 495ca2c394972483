package cuda

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

func (d *Device) RMSNormGrad(dx, dw, dy, x, w k.Tensor, eps float32) {
	need(like(x, dx, dy) && norms(x, w) && (dw.Zero() || like(w, dw)), "RMSNormGrad", dx, dw, dy, x, w)
	runs := x.Cols / w.Cols
	kernel, g := "rmsnorm_grad_v1", line(ceil(x.Rows*runs, 8))
	if w.Cols >= longRun {
		kernel, g = "rmsnorm_grad", line(x.Rows*runs)
	}
	roots := d.space(4 * x.Rows * runs)
	d.op(opRMSNormGrad, kernel).out(dx).in(dy).in(x).row(w).address(roots).ints(x.Rows, runs, w.Cols).float(eps).run(g, 256)
	if !dw.Zero() && x.Rows > 0 {
		d.op(opRMSNormGrad, "rmsnorm_grad_weight").row(dw).in(dy).in(x).address(roots).ints(x.Rows, runs, w.Cols).
			run(line(ceil(w.Cols, 64)), 64)
	}
}

func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up k.Tensor) {
	need(like(dgate, dup, dy, gate, up), "SwiGLUGrad", dgate, dup, dy, gate, up)
	rows, cols := flat(&dgate, &dup, &dy, &gate, &up)
	d.op(opSwiGLUGrad, "swiglu_grad").out(dgate).out(dup).in(dy).in(gate).in(up).ints(rows, cols).
		run(rowsAndColumns(rows, cols), 256)
}

func (d *Device) LogProbGrad(dlogits, logits, lse, ids, coef k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lse, coef) && like(logits, dlogits) && column(ids, k.I32, logits.Rows),
		"LogProbGrad", dlogits, logits, lse, ids, coef, dist.Temperature, dist.Mask)
	d.op(opLogProbGrad, "logprob_grad").out(dlogits).in(logits).in(lse).in(ids).in(coef).in(dist.Temperature).in(dist.Mask).
		ints(logits.Rows, logits.Cols, 0, logits.Cols).run(rowsAndColumns(logits.Rows, logits.Cols), 256)
}

func (d *Device) SumRows(out, x k.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == x.Cols, "SumRows", out, x)
	if x.Rows > 0 {
		d.op(opSumRows, "sum_rows").row(out).in(x).ints(x.Rows, x.Cols).run(line(ceil(x.Cols, 64)), 64)
	}
}

func (d *Device) ScatterAdd(out, x, rows k.Tensor) {
	need(like(out) && like(x) && out.Cols == x.Cols && column(rows, k.I32, x.Rows), "ScatterAdd", out, x, rows)
	if x.Rows > 0 {
		d.op(opScatterAdd, "scatter_add").out(out).ints(out.Rows).in(x).in(rows).ints(x.Rows, x.Cols).
			run(line(ceil(x.Cols, 64)), 64)
	}
}

// squaresPiece is how many squares are summed before the sums are added: see norm.cu.
const squaresPiece = 8192

func (d *Device) SumSquares(out, x k.Tensor) {
	need(like(out) && like(x) && out.Rows == 1 && out.Cols == 1, "SumSquares", out, x)
	pieces := ceil(x.Rows*x.Cols, squaresPiece)
	parts := d.space(4 * pieces)
	d.op(opSumSquares, "squares_part").address(parts).in(x).ints(x.Rows, x.Cols).run(line(pieces), 256)
	d.op(opSumSquares, "squares_join").row(out).address(parts).ints(pieces).run(line(1), 256)
}

func (d *Device) AdamW(w, m, v, g k.Tensor, o k.Adam) {
	need(like(w, m, v, g) && o.Step >= 1, "AdamW", w, m, v, g)
	rows, cols := flat(&w, &m, &v, &g)
	d.op(opAdamW, "adamw").out(w).out(m).out(v).in(g).ints(rows, cols).float(o.Decay).adam(o).run(rowsAndColumns(rows, cols), 256)
}

// adam puts what of a step is the same for all elements.
func (c *call) adam(o k.Adam) *call {
	c1 := 1 - math.Pow(float64(o.Beta1), float64(o.Step))
	c2 := 1 - math.Pow(float64(o.Beta2), float64(o.Step))
	return c.float(o.LR, o.Beta1, o.Beta2, o.Eps, o.Scale, float32(c1), float32(c2))
}
