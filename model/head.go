package model

import "github.com/r2-reasoner/r2/kernels"

// mostScored is how many rows a kernels.Scorer is given at a time.
const mostScored = 2048

// HoldsNoLogits reports whether a pass of size s never has logits: it trains, and the device scores ids without them.
func (d *Decoder) HoldsNoLogits(s Size) bool { return s.Train && d.scorer() != nil }

// HeadRows is how many wanted rows a pass of size s takes through the head at a time.
func (d *Decoder) HeadRows(s Size) int {
	switch {
	case d.HoldsNoLogits(s):
		return min(s.Wanted, mostScored)
	case s.Slice == 0:
		return min(s.Wanted, 64)
	}
	return s.Slice
}

// lastRows is how many rows of what goes into the head a pass of size s holds.
func (d *Decoder) lastRows(s Size) int {
	if d.scorer() != nil {
		return max(d.HeadRows(s), min(s.Wanted, mostScored))
	}
	return d.HeadRows(s)
}

// Scores reports whether Score can be called.
func (d *Decoder) Scores() bool { return d.scorer() != nil }

// Score sets lp and lse, columns of as many rows as are wanted, to the bits of the device's LogProb of the wanted rows'
// logits and targets, without logits.
func (p *Pass) Score(lp, lse kernels.Tensor) { p.scoreInto(lp, lse, kernels.Tensor{}) }

func (p *Pass) scoreInto(lp, lse, h kernels.Tensor) {
	p.lasts(func(i, n int, last kernels.Tensor) {
		var nats kernels.Tensor
		if !h.Zero() {
			nats = h.Slice(i, n)
		}
		p.d.scorer().Score(lp.Slice(i, n), lse.Slice(i, n), nats, last, p.d.head.w, p.targets.Slice(i, n), p.dist(i, n))
	})
}

// scorer is the device, if it is a Scorer and the head is frozen; else nil.
func (d *Decoder) scorer() kernels.Scorer {
	if d.head.w.Zero() {
		return nil
	}
	s, _ := d.be.(kernels.Scorer)
	return s
}

// Slices calls f for consecutive wanted rows i … i+n-1, with their logits and the distribution they
// stand for. The logits are the same tensor each time.
func (p *Pass) Slices(f func(i, n int, logits kernels.Tensor, dist kernels.Dist)) {
	for i := 0; i < len(p.b.Want); i += p.size.Slice {
		n := min(p.size.Slice, len(p.b.Want)-i)
		f(i, n, p.head(i, n), p.dist(i, n))
	}
}

// head gives the logits of wanted rows i … i+n-1; those held already are not computed again.
func (p *Pass) head(i, n int) kernels.Tensor {
	last, logits := p.act.last.Slice(0, n), p.act.logits.Slice(0, n)
	if p.held != i {
		p.d.be.Gather(last, p.act.xn, p.want.Slice(i, n))
		p.d.linear(logits, last, p.d.head)
		p.held = i
	}
	return logits
}

// score sets the log-probabilities of the wanted rows' targets, their log-sum-exps, and the entropies if they are asked for.
func (p *Pass) score(entropy bool) {
	if p.d.HoldsNoLogits(p.size) {
		var h kernels.Tensor
		if entropy {
			h = p.entropy
		}
		p.scoreInto(p.act.lp, p.act.lpLSE, h)
		return
	}
	p.Slices(func(i, n int, logits kernels.Tensor, dist kernels.Dist) {
		lse := p.act.lpLSE.Slice(i, n)
		p.d.be.LogProb(p.act.lp.Slice(i, n), lse, logits, p.targets.Slice(i, n), dist)
		if entropy {
			p.d.be.Entropy(p.entropy.Slice(i, n), logits, lse, dist)
		}
	})
}

// headGrad sets the wanted rows of g.xn to the gradient through the head; g.coef is set.
func (p *Pass) headGrad(g *gradients) {
	d, be := p.d, p.d.be
	through := func(i, n int, grad func(dlast kernels.Tensor)) {
		dlast := g.last.Slice(0, n)
		be.Fill(dlast, 0)
		grad(dlast)
		be.Scatter(g.xn, dlast, p.want.Slice(i, n))
	}
	if d.HoldsNoLogits(p.size) {
		p.lasts(func(i, n int, last kernels.Tensor) {
			through(i, n, func(dlast kernels.Tensor) {
				d.scorer().ScoreGrad(dlast, last, d.head.w, p.act.lpLSE.Slice(i, n), p.targets.Slice(i, n), g.coef.Slice(i, n), p.dist(i, n))
			})
		})
		return
	}
	p.Slices(func(i, n int, logits kernels.Tensor, dist kernels.Dist) {
		be.LogProbGrad(logits, logits, p.act.lpLSE.Slice(i, n), p.targets.Slice(i, n), g.coef.Slice(i, n), dist)
		p.held = -1 // logits hold their gradient now
		through(i, n, func(dlast kernels.Tensor) { d.linearGrad(dlast, logits, p.act.last.Slice(0, n), d.head) })
	})
}

// lasts calls f for consecutive wanted rows i … i+n-1, with what goes into the head.
func (p *Pass) lasts(f func(i, n int, last kernels.Tensor)) {
	p.held = -1
	for i := 0; i < len(p.b.Want); i += p.act.last.Rows {
		n := min(p.act.last.Rows, len(p.b.Want)-i)
		last := p.act.last.Slice(0, n)
		p.d.be.Gather(last, p.act.xn, p.want.Slice(i, n))
		f(i, n, last)
	}
}
