package ref

import k "github.com/r2-reasoner/r2/kernels"

func (d *Device) Score(lp, lse, h, x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist) {
	logits := d.New(k.F32, x.Rows, w.Rows)
	d.Linear(logits, x, w, k.Tensor{})
	d.LogProb(lp, lse, logits, ids, dist)
	if !h.Zero() {
		d.Entropy(h, logits, lse, dist)
	}
}

func (d *Device) ScoreGrad(dx, x k.Tensor, w k.Weight, lse, ids, coef k.Tensor, dist k.Dist) {
	logits := d.New(k.F32, x.Rows, w.Rows)
	d.Linear(logits, x, w, k.Tensor{})
	d.LogProbGrad(logits, logits, lse, ids, coef, dist)
	d.LinearGrad(dx, logits, w)
}
