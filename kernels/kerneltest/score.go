package kerneltest

import (
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// scoreChecks are those of a kernels.Scorer; other devices skip them.
var scoreChecks = []check{
	{"Score/values", scoreValues},
	{"Score/as LogProb", scoreAsLogProb},
	{"Score/laws", scoreLaws},
	{"Score/special", scoreSpecial},
	{"ScoreGrad/values", scoreGradValues},
	{"ScoreGrad/laws", scoreGradLaws},
}

// formatHeadChecks are those of a head in every format.
var formatHeadChecks = []check{
	{"Score/values", scoreValues},
	{"Score/as LogProb", scoreAsLogProb},
	{"ScoreGrad/values", scoreGradValues},
}

// RunScore checks a kernels.Scorer's scoring alone: of a device that has other kernels for it than those Run has checked.
func RunScore(t *testing.T, open func(t *testing.T) k.Backend) {
	for _, c := range scoreChecks {
		t.Run(c.name, func(t *testing.T) { c.check(t, attach(t, open), seeded(t, c.name)) })
	}
}

// scorer is be as a Scorer.
func scorer(t *testing.T, be k.Backend) k.Scorer {
	s, ok := be.(k.Scorer)
	if !ok {
		t.Skipf("%s goes by the logits", be.Name())
	}
	return s
}

// A head is a problem of scoring rows through a weight, with the places of its operands.
type head struct {
	*problem
	choice
	x, ids int
}

// vocabularies of every kind of edge: within a tile, within a block of ids, and blocks.
func (g source) head(rows int) head {
	vocab, in := []int{g.size(1, 300), 128, 1024, 1000 + g.IntN(200), 2049}[g.IntN(5)], g.inputs(1, 70)
	h := head{problem: &problem{rows: rows, length: vocab + in, strict: true, weights: []weight{g.weight(vocab, in)}}}
	var allowed [][]int
	h.choice, allowed = choose(g, h.problem, vocab)
	h.x = h.in(byRow, g.floats(rows, in, 2/math.Sqrt(float64(in))))
	targets := make([]int, rows)
	for i := range targets {
		targets[i] = allowed[i][g.IntN(len(allowed[i]))]
	}
	h.ids = h.in(byRow, intsOf(targets...))
	return h
}

// score adds the outputs and the call; entropy or not.
func (h head) score(entropy bool) *problem {
	at := -1
	lp, lse := h.out(byRow, h.rows, 1, 10), h.out(byRow, h.rows, 1, 10)
	if entropy {
		at = h.out(byRow, h.rows, 1, 10)
	}
	h.call = func(be k.Backend, t []k.Tensor, w []k.Weight) {
		be.(k.Scorer).Score(t[lp], t[lse], maybe(t, at), t[h.x], w[0], t[h.ids], h.dist(t))
	}
	return h.problem
}

// scoreGrad gives ScoreGrad the lse that the oracle finds, rounded.
func (h head) scoreGrad(t *testing.T, g source) *problem {
	p := *h.problem
	first := len(p.operands)
	scored := head{&p, h.choice, h.x, h.ids}.score(false).run(t, oracle(), g)
	lse := scored[first+1]
	lse.exact = nil
	at, coef := h.in(byRow, lse), h.in(byRow, g.floats(h.rows, 1, 1))
	dx := h.up(byRow, g.floats(h.rows, h.operands[h.x].cols, 1), 30*ofScores(h.length))
	h.call = func(be k.Backend, t []k.Tensor, w []k.Weight) {
		be.(k.Scorer).ScoreGrad(t[dx], t[h.x], w[0], t[at], t[h.ids], t[coef], h.dist(t))
	}
	return h.problem
}

func scoreValues(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	for _, rows := range []int{0, 1, 1, 2, 3, 7, 9, 33} {
		values(t, be, g, g.head(rows).score(g.IntN(2) == 0))
	}
}

func scoreGradValues(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	for _, rows := range []int{0, 1, 1, 2, 3, 7, 9, 33} {
		values(t, be, g, g.head(rows).scoreGrad(t, g))
	}
}

// scoreAsLogProb: Score's bits are those of LogProb of Linear's logits, and of Sample's draw.
func scoreAsLogProb(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	for _, rows := range []int{1, 3, 20} {
		h := g.head(rows)
		p, n := *h.problem, len(h.operands)
		whole := head{&p, h.choice, h.x, h.ids}
		logits, lp, lse := whole.out(byRow, rows, p.weights[0].rows, 1), whole.out(byRow, rows, 1, 1), whole.out(byRow, rows, 1, 1)
		drawn, drawnLP := whole.add(operand{matrix: filled(k.I32, rows, 1, poison), role: output, axis: byRow}), whole.out(byRow, rows, 1, 1)
		u := whole.in(byRow, filled(k.F32, rows, 1, math.Float32bits(g.Float32())))
		whole.call = func(be k.Backend, t []k.Tensor, w []k.Weight) {
			be.Linear(t[logits], t[h.x], w[0], k.Tensor{})
			be.LogProb(t[lp], t[lse], t[logits], t[h.ids], h.dist(t))
			be.Sample(t[drawn], t[drawnLP], t[logits], t[u], h.dist(t))
		}
		want := whole.run(t, be, g)
		got := h.score(false).run(t, be, g)
		equalBits(t, got[n], want[lp], "the log-probabilities of %d rows by Score and by LogProb", rows)
		equalBits(t, got[n+1], want[lse], "the log-sum-exps of %d rows by Score and by LogProb", rows)
		h.operands[h.ids].matrix = want[drawn]
		equalBits(t, h.run(t, be, g)[n], want[drawnLP], "the log-probabilities of %d rows by Score and by Sample", rows)
	}
}

// scoreLaws: a row's answer has the same bits in other batches.
func scoreLaws(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	sameInParts(t, be, g, g.head(40).score(true))
}

func scoreGradLaws(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	sameInParts(t, be, g, g.head(40).scoreGrad(t, g))
}

// sameInParts checks p against some of its rows by themselves.
func sameInParts(t *testing.T, be k.Backend, g source, p *problem) {
	full := p.run(t, be, g)
	for _, rows := range [][]int{{g.IntN(p.rows)}, g.Perm(p.rows)[:2], g.Perm(p.rows)[:9], g.Perm(p.rows)[:33], g.Perm(p.rows)} {
		got := p.take(rows).run(t, be, g)
		for i, o := range p.operands {
			if o.role != input {
				equalBits(t, got[i], full[i].pick(o.axis, rows), "operand %d in a batch of %d rows and of %d", i, len(rows), p.rows)
			}
		}
	}
}

// scoreSpecial: logits a thousand apart, all equal, and no allowed ones in most blocks of ids.
func scoreSpecial(t *testing.T, be k.Backend, g source) {
	scorer(t, be)
	for _, size := range []float64{0, 1e-4, 300, 1e5} {
		const rows, vocab, in = 4, 2200, 4
		p := &problem{rows: rows, length: vocab + in, strict: true, weights: []weight{g.weight(vocab, in)}}
		h := head{problem: p, x: p.in(byRow, g.floats(rows, in, size)), choice: choice{-1, -1}}
		allowed := filled(k.I32, rows, (vocab+31)/32, 0)
		ids := make([]int, rows)
		for i := range ids {
			ids[i] = g.IntN(vocab)
			for _, id := range []int{ids[i], g.IntN(vocab), g.IntN(vocab)} {
				allowed.row(i)[id/32] |= 1 << (id % 32)
			}
		}
		h.mask, h.ids = h.in(byRow, allowed), h.in(byRow, intsOf(ids...))
		values(t, be, g, h.score(true))
	}
}
