package cpu

import "github.com/r2-reasoner/r2/kernels"

// Sample draws ids. The cumulative sum of a row goes over blocks of 1024 ids, each block's sum being the
// one that LogProb adds, in float64; within a block it goes on in float64 id by id, and the last id of
// the block that has a probability gets what is left of the block. The draw is the first id whose
// cumulative sum exceeds uniform times the total.
func (d *Device) Sample(ids, lp, logits, uniform kernels.Tensor, dist kernels.Dist) {
	need(scores(logits, dist, lp, uniform) && oneColumn(ids, kernels.I32, logits.Rows),
		"Sample", ids, lp, logits, uniform, dist.Temperature, dist.Mask)
	t := &d.rows
	t.begin("Sample", lp, logits, uniform)
	t.ids = columnOf("Sample", ids)
	t.under(dist)
	d.reserve(ceilDiv(logits.Cols, logitBlock) + logitBlock)
	d.each(logits.Rows, logits.Cols, func(t *rowTask, i, worker int) {
		x := t.v[1].row(i)
		blocks := ceilDiv(len(x), logitBlock)
		space := t.d.workspace(worker, blocks+logitBlock)
		if p, ok := t.summed(i, x, space[:blocks]); ok {
			id := p.draw(t.v[2].row(i)[0], space[:blocks], space[blocks:])
			t.ids.s[i*t.ids.stride], t.v[0].row(i)[0] = int32(id), p.logProb(id)
		}
	})
}

// draw finds the id at uniform u; sums are the blocks' and space holds one block.
func (p *distribution) draw(u float32, sums, space []float32) int {
	if p.greedy {
		return p.argmax()
	}
	at, before, cum, goal := 0, 0.0, 0.0, float64(u)*p.total
	for b, s := range sums {
		if s > 0 {
			at, before = b, cum
		}
		if cum += float64(s); cum > goal {
			break
		}
	}
	x, allow := p.block(at)
	probs := space[:len(x)]
	expScaled(probs, x, allow, p.a, p.m, 1)
	last := 0
	for i, v := range probs {
		if v > 0 {
			last = i
		}
		if before += float64(v); before > goal {
			break
		}
	}
	return at*logitBlock + last
}

// argmax is the lowest id of the largest logit. There is one: the log-sum-exp is finite.
func (p *distribution) argmax() int {
	x, allow := p.block(p.best)
	for i, v := range x {
		if v == p.m && allowed(allow, i) {
			return p.best*logitBlock + i
		}
	}
	panic("cpu: Sample: the maximum is not in its block")
}
