package cpu

import (
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// logitBlock is how many exponentials are summed in float32 before they are added in float64. A row of
// logits is worked through in blocks of so many ids, from id 0 on.
const logitBlock = 1024

// A distribution is softmax(x·a) over the allowed ids of a row of logits.
type distribution struct {
	x      []float32
	allow  []uint32 // bit i%32 of word i/32 allows id i; nil: all
	a      float32  // 1 / temperature
	greedy bool
	m      float32 // the largest x·a
	best   int     // the first block that holds it
	total  float64 // Σ exp(x·a - m)
}

// distribution is row i's of the logits x, without its sums.
func (t *rowTask) distribution(i int, x []float32) distribution {
	p := distribution{x: x, a: 1}
	if t.mask != nil {
		p.allow = t.mask[i*t.words:][:(len(x)+31)/32]
	}
	if t.temp.s != nil {
		if temperature := t.temp.row(i)[0]; temperature == 0 {
			p.greedy = true
		} else {
			p.a = 1 / temperature
		}
	}
	return p
}

// block is the ids of block b, and their part of the mask.
func (p *distribution) block(b int) (x []float32, allow []uint32) {
	lo, hi := b*logitBlock, min((b+1)*logitBlock, len(p.x))
	if p.allow != nil {
		allow = p.allow[lo/32 : (hi+31)/32]
	}
	return p.x[lo:hi], allow
}

// sum finds the maximum and the sum, and leaves the sum of each block in sums.
func (p *distribution) sum(sums []float32) {
	p.m = float32(math.Inf(-1))
	for b := range sums {
		x, allow := p.block(b)
		if m := maxScaled(x, allow, p.a); m > p.m {
			p.m, p.best = m, b
		}
	}
	if math.IsInf(float64(p.m), 0) {
		p.total = 1 // the log-sum-exp is the maximum: exp(m - m) has no value
		return
	}
	for b := range sums {
		x, allow := p.block(b)
		sums[b] = sumExp(x, allow, p.a, p.m)
		p.total += float64(sums[b])
	}
}

// lse is the log-sum-exp of the scores x·a.
func (p *distribution) lse() float64 { return float64(p.m) + math.Log(p.total) }

// logProb is the log-probability of id, rounded once.
func (p *distribution) logProb(id int) float32 {
	return float32(float64(float64(p.x[id])*float64(p.a)) - p.lse())
}

// summed is row i's distribution with its sums; a log-sum-exp that is not finite is a failure.
func (t *rowTask) summed(i int, x, sums []float32) (p distribution, ok bool) {
	p = t.distribution(i, x)
	p.sum(sums)
	if lse := p.lse(); math.IsNaN(lse) || math.IsInf(lse, 0) {
		t.fail(i, "the log-sum-exp of the logits is %v", lse)
		return p, false
	}
	return p, true
}

// allows reports whether id is one that row i may draw, and keeps a failure when it is not.
func (t *rowTask) allows(i, id int, p distribution) bool {
	if id < 0 || id >= len(p.x) {
		t.fail(i, "id %d is outside 0 … %d", id, len(p.x)-1)
		return false
	}
	if !allowed(p.allow, id) {
		t.fail(i, "the mask forbids id %d", id)
		return false
	}
	return true
}

// scores reports whether dist and the columns beside the logits fit them.
func scores(logits kernels.Tensor, dist kernels.Dist, columns ...kernels.Tensor) bool {
	n := logits.Rows
	ok := like(logits) && logits.Cols > 0 && (dist.Temperature.Zero() || oneColumn(dist.Temperature, kernels.F32, n)) &&
		(dist.Mask.Zero() || dist.Mask.Type == kernels.I32 && dist.Mask.Rows == n && dist.Mask.Cols == (logits.Cols+31)/32)
	for _, t := range columns {
		ok = ok && oneColumn(t, kernels.F32, n)
	}
	return ok
}

// under takes dist as the distribution of the rows.
func (t *rowTask) under(dist kernels.Dist) {
	if !dist.Temperature.Zero() {
		t.temp = viewOf(t.op, dist.Temperature)
	}
	if !dist.Mask.Zero() {
		m := ints(t.op, dist.Mask)
		t.mask, t.words = unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(m))), len(m)), dist.Mask.Stride
	}
}

// LogProb sets lp to the log-probability of ids under dist, and lse to the log-sum-exp.
func (d *Device) LogProb(lp, lse, logits, ids kernels.Tensor, dist kernels.Dist) {
	need(scores(logits, dist, lp, lse) && oneColumn(ids, kernels.I32, logits.Rows),
		"LogProb", lp, lse, logits, ids, dist.Temperature, dist.Mask)
	t := &d.rows
	t.begin("LogProb", lp, lse, logits)
	t.ids = columnOf("LogProb", ids)
	t.under(dist)
	d.reserve(ceilDiv(logits.Cols, logitBlock))
	d.each(logits.Rows, logits.Cols, func(t *rowTask, i, worker int) {
		x, id := t.v[2].row(i), t.ids.at(i)
		p, ok := t.summed(i, x, t.d.workspace(worker, ceilDiv(len(x), logitBlock)))
		if ok && t.allows(i, id, p) {
			t.v[0].row(i)[0], t.v[1].row(i)[0] = p.logProb(id), float32(p.lse())
		}
	})
}

// ones sum what they are multiplied by.
var ones = func() (v [logitBlock]float32) {
	for i := range v {
		v[i] = 1
	}
	return v
}()

// entropy is Σ p·(lse - x·a) with p = exp(x·a - lse), space being room for a block of p. Blocks are summed in
// float32 and added in float64, as the log-sum-exp's are.
func (p *distribution) entropy(lse float32, space []float32) float32 {
	mass, scores := 0.0, 0.0
	for b := range ceilDiv(len(p.x), logitBlock) {
		x, allow := p.block(b)
		probs := space[:len(x)]
		expScaled(probs, x, allow, p.a, lse, 1)
		mass += float64(dot(probs, ones[:len(x)]))
		scores += float64(dot(probs, x))
	}
	h := float64(lse)*mass - float64(p.a)*scores
	if h == h {
		return float32(h)
	}
	h = 0 // a logit of probability 0 is not a number that 0 can be multiplied by
	for id, v := range p.x {
		if lp := float64(v)*float64(p.a) - float64(lse); allowed(p.allow, id) && !math.IsInf(lp, -1) {
			h -= math.Exp(lp) * lp
		}
	}
	return float32(h)
}

// Entropy sets h to the entropy of each row's distribution.
func (d *Device) Entropy(h, logits, lse kernels.Tensor, dist kernels.Dist) {
	need(scores(logits, dist, h, lse), "Entropy", h, logits, lse, dist.Temperature, dist.Mask)
	t := &d.rows
	t.begin("Entropy", h, logits, lse)
	t.under(dist)
	d.reserve(logitBlock)
	d.each(logits.Rows, logits.Cols, func(t *rowTask, i, worker int) {
		p := t.distribution(i, t.v[1].row(i))
		t.v[0].row(i)[0] = p.entropy(t.v[2].row(i)[0], t.d.workspace(worker, logitBlock))
	})
}

// LogProbGrad sets dlogits to coef·(1[id] - softmax)/temperature, 0 where the mask forbids.
func (d *Device) LogProbGrad(dlogits, logits, lse, ids, coef kernels.Tensor, dist kernels.Dist) {
	need(scores(logits, dist, lse, coef) && like(logits, dlogits) && oneColumn(ids, kernels.I32, logits.Rows),
		"LogProbGrad", dlogits, logits, lse, ids, coef, dist.Temperature, dist.Mask)
	t := &d.rows
	t.begin("LogProbGrad", dlogits, logits, lse, coef)
	t.ids = columnOf("LogProbGrad", ids)
	t.under(dist)
	d.each(logits.Rows, logits.Cols, func(t *rowTask, i, _ int) {
		x, id, lse := t.v[1].row(i), t.ids.at(i), t.v[2].row(i)[0]
		p := t.distribution(i, x)
		if !t.allows(i, id, p) {
			return
		}
		c := float32(t.v[3].row(i)[0] * p.a)
		own := fma32(exp32(fma32(x[id], p.a, -lse)), -c, c) // before x is overwritten: out may be x
		out := t.v[0].row(i)
		expScaled(out, x, p.allow, p.a, lse, -c)
		out[id] = own
	})
}
