package kerneltest

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// A choice is the operands of a Dist, which may be none.
type choice struct{ temperature, mask int }

func (c choice) dist(t []k.Tensor) k.Dist {
	return k.Dist{Temperature: maybe(t, c.temperature), Mask: maybe(t, c.mask)}
}

// choose adds random temperatures and masks to p, or not, and returns the ids each row allows.
func choose(g source, p *problem, vocab int) (c choice, allowed [][]int) {
	c = choice{-1, -1}
	if g.IntN(2) == 0 {
		temps := make([]float64, p.rows)
		for i := range temps {
			temps[i] = []float64{0, 1, 0.3 + g.Float64(), 1 + 2*g.Float64()}[g.IntN(4)]
		}
		c.temperature = p.in(byRow, of(1, temps...))
	}
	allowed = make([][]int, p.rows)
	mask := filled(k.I32, p.rows, (vocab+31)/32, 0)
	density := []float64{0.02, 0.5, 1}[g.IntN(3)]
	for i := range allowed {
		least := g.IntN(vocab)
		for id := range 32 * mask.cols { // bits past the vocabulary mean nothing, whatever they are
			if id == least || g.Float64() < density {
				mask.row(i)[id/32] |= 1 << (id % 32)
				if id < vocab {
					allowed[i] = append(allowed[i], id)
				}
			}
		}
	}
	if g.IntN(2) == 0 {
		c.mask = p.in(byRow, mask)
		return c, allowed
	}
	all := make([]int, vocab)
	for id := range all {
		all[id] = id
	}
	for i := range allowed {
		allowed[i] = all
	}
	return c, allowed
}

// score is what a distribution needs: its logits, who may be drawn, and one allowed id a row.
func (p *problem) score(g source, a role) (logits, ids int, c choice) {
	vocab := g.size(1, 300)
	p.length = vocab
	c, allowed := choose(g, p, vocab)
	logits = p.add(operand{matrix: g.floats(p.rows, vocab, 3), role: a, axis: byRow, scale: 1})
	targets := make([]int, p.rows)
	for i := range targets {
		targets[i] = allowed[i][g.IntN(len(allowed[i]))]
	}
	return logits, p.in(byRow, intsOf(targets...)), c
}

func logProb(g source, rows int) *problem {
	p := &problem{rows: rows, strict: true}
	logits, ids, c := p.score(g, input)
	lp, lse := p.out(byRow, rows, 1, 10), p.out(byRow, rows, 1, 10)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.LogProb(t[lp], t[lse], t[logits], t[ids], c.dist(t))
	}
	return p
}

// entropy gives Entropy the lse that the oracle finds, rounded.
func entropy(g source, rows int) *problem {
	p := &problem{rows: rows}
	logits, _, c := p.score(g, input)
	lse, h := p.in(byRow, p.lse(logits, c)), p.out(byRow, rows, 1, 10)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Entropy(t[h], t[logits], t[lse], c.dist(t)) }
	return p
}

// A drawing is a call of Sample, with the places of its operands.
type drawing struct {
	*problem
	choice
	logits, uniform, lp, ids int
}

// sample is judged by the check of its definition; here for the laws.
func sample(g source, rows int) *problem { return draw(g, rows).problem }

func draw(g source, rows int) drawing {
	p := &problem{rows: rows, strict: true, judged: true}
	logits, _, c := p.score(g, input)
	u := filled(k.F32, rows, 1, 0)
	for i := range u.bits {
		u.bits[i] = math.Float32bits(g.Float32())
	}
	return p.drawing(logits, u, c)
}

// drawing adds to p what Sample needs besides logits and a choice.
func (p *problem) drawing(logits int, uniform matrix, c choice) drawing {
	d := drawing{problem: p, choice: c, logits: logits, uniform: p.in(byRow, uniform), lp: p.out(byRow, p.rows, 1, 10)}
	d.ids = p.add(operand{matrix: filled(k.I32, p.rows, 1, poison), role: output, axis: byRow})
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.Sample(t[d.ids], t[d.lp], t[d.logits], t[d.uniform], c.dist(t))
	}
	return d
}

// ofScores is the scale at which a row of n probabilities may be wrong because its scores, of up to about
// 60, were rounded.
func ofScores(n int) float64 { return 60 * 0x1p-24 / tolerance(k.F32, n) / math.Sqrt(float64(n)) }

// logProbGrad gives LogProbGrad the lse that the oracle finds, rounded.
func logProbGrad(g source, rows int) *problem {
	p := &problem{rows: rows}
	logits, ids, c := p.score(g, input)
	lse, coef := p.in(byRow, p.lse(logits, c)), p.in(byRow, g.floats(rows, 1, 1))
	out := p.out(byRow, rows, p.operands[logits].cols, ofScores(p.length))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.LogProbGrad(t[out], t[logits], t[lse], t[ids], t[coef], c.dist(t))
	}
	return p
}

func logProbGradInPlace(g source, rows int) *problem {
	p := &problem{rows: rows}
	logits, ids, c := p.score(g, update)
	p.operands[logits].scale = ofScores(p.length)
	lse, coef := p.in(byRow, p.lse(logits, c)), p.in(byRow, g.floats(rows, 1, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.LogProbGrad(t[logits], t[logits], t[lse], t[ids], t[coef], c.dist(t))
	}
	return p
}

// lse is the log-sum-exp of each row of p's logits, in the plainest way.
func (p *problem) lse(logits int, c choice) matrix {
	m := filled(k.F32, p.rows, 1, 0)
	for i := range p.rows {
		sum := 0.0
		for _, w := range p.weightsOf(logits, c, i) {
			sum += w
		}
		m.bits[i] = math.Float32bits(float32(math.Log(sum)))
	}
	return m
}

// weightsOf is exp(logit / temperature) of each id in row i, and 0 where the mask forbids it.
func (p *problem) weightsOf(logits int, c choice, i int) []float64 {
	temperature := 1.0
	if c.temperature >= 0 {
		if v := p.operands[c.temperature].value(i); v != 0 {
			temperature = v
		}
	}
	l := p.operands[logits]
	w := make([]float64, l.cols)
	for id := range w {
		if c.mask < 0 || p.operands[c.mask].row(i)[id/32]>>(id%32)&1 == 1 {
			w[id] = math.Exp(l.value(i*l.cols+id) / temperature)
		}
	}
	return w
}
