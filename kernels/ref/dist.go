package ref

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// scores reports whether d and the columns beside the logits fit them.
func scores(logits k.Tensor, dist k.Dist, columns ...k.Tensor) bool {
	n := logits.Rows
	ok := like(logits) && logits.Cols > 0 && (dist.Temperature.Zero() || column(dist.Temperature, k.F32, n)) &&
		(dist.Mask.Zero() || dist.Mask.Type == k.I32 && dist.Mask.Rows == n && dist.Mask.Cols == (logits.Cols+31)/32)
	for _, t := range columns {
		ok = ok && column(t, k.F32, n)
	}
	return ok
}

// A row is the distribution of one row of logits.
type row struct {
	logits      []float64
	mask        []float64 // nil: all allowed
	temperature float64   // what logits are divided by: never 0
	greedy      bool
}

func rowOf(logits k.Tensor, dist k.Dist, i int) row {
	r := row{logits: Row(logits, i), temperature: 1}
	if !dist.Mask.Zero() {
		r.mask = Row(dist.Mask, i)
	}
	if !dist.Temperature.Zero() {
		r.temperature = Row(dist.Temperature, i)[0]
	}
	if r.temperature == 0 {
		r.temperature, r.greedy = 1, true
	}
	return r
}

func (r row) allowed(id int) bool {
	return r.mask == nil || uint32(int32(r.mask[id/32]))>>(id%32)&1 == 1
}

// score is the logit of id over the temperature.
func (r row) score(id int) float64 { return r.logits[id] / r.temperature }

// logSumExp is over the scores of the allowed ids: -Inf when there are none, NaN when one is.
func (r row) logSumExp() float64 {
	largest := math.Inf(-1)
	for id := range r.logits {
		if r.allowed(id) {
			largest = max(largest, r.score(id))
		}
	}
	if math.IsInf(largest, 0) {
		return largest
	}
	sum := 0.0
	for id := range r.logits {
		if r.allowed(id) {
			sum += math.Exp(r.score(id) - largest)
		}
	}
	return largest + math.Log(sum)
}

// lse is row i's log-sum-exp; one that is not finite is kept as a failure.
func (d *Device) lse(op string, i int, r row) (lse float64, ok bool) {
	lse = r.logSumExp()
	if math.IsInf(lse, 0) || math.IsNaN(lse) {
		d.fail(op, i, "the log-sum-exp of the logits is %v", lse)
		return lse, false
	}
	return lse, true
}

// allows reports whether id is one that r allows, and keeps a failure when it is not.
func (d *Device) allows(op string, i, id int, r row) bool {
	if !d.index(op, i, id, len(r.logits)) {
		return false
	}
	if !r.allowed(id) {
		d.fail(op, i, "the mask forbids id %d", id)
		return false
	}
	return true
}

func (d *Device) LogProb(lp, lse, logits, ids k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lp, lse) && column(ids, k.I32, logits.Rows),
		"LogProb", lp, lse, logits, ids, dist.Temperature, dist.Mask)
	if d.err != nil {
		return
	}
	for i := range logits.Rows {
		r, id := rowOf(logits, dist, i), at(ids, i)
		l, ok := d.lse("LogProb", i, r)
		if ok && d.allows("LogProb", i, id, r) {
			Row(lse, i)[0], Row(lp, i)[0] = l, r.score(id)-l
		}
	}
}

func (d *Device) Entropy(h, logits, lse k.Tensor, dist k.Dist) {
	need(scores(logits, dist, h, lse), "Entropy", h, logits, lse, dist.Temperature, dist.Mask)
	if d.err != nil {
		return
	}
	for i := range logits.Rows {
		r, sum := rowOf(logits, dist, i), 0.0
		for id := range r.logits {
			if !r.allowed(id) {
				continue
			}
			if lp := r.score(id) - Row(lse, i)[0]; !math.IsInf(lp, -1) { // p·log p is 0 there
				sum -= math.Exp(lp) * lp
			}
		}
		Row(h, i)[0] = sum
	}
}

func (d *Device) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lp, uniform) && column(ids, k.I32, logits.Rows),
		"Sample", ids, lp, logits, uniform, dist.Temperature, dist.Mask)
	if d.err != nil {
		return
	}
	for i := range logits.Rows {
		r := rowOf(logits, dist, i)
		l, ok := d.lse("Sample", i, r)
		if !ok {
			continue
		}
		id := r.draw(Row(uniform, i)[0], l)
		Row(ids, i)[0], Row(lp, i)[0] = float64(id), r.score(id)-l
	}
}

// draw is the first allowed id whose cumulative probability exceeds u. Should rounding leave the whole
// sum at or below u, it is the last id that has a probability.
func (r row) draw(u, lse float64) int {
	best, sum := -1, 0.0
	for id := range r.logits {
		switch {
		case !r.allowed(id):
		case r.greedy:
			if best < 0 || r.logits[id] > r.logits[best] {
				best = id
			}
		default:
			if p := math.Exp(r.score(id) - lse); p > 0 {
				best, sum = id, sum+p
			}
			if sum > u {
				return best
			}
		}
	}
	return best
}

func (d *Device) LogProbGrad(dlogits, logits, lse, ids, coef k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lse, coef) && like(logits, dlogits) && column(ids, k.I32, logits.Rows),
		"LogProbGrad", dlogits, logits, lse, ids, coef, dist.Temperature, dist.Mask)
	if d.err != nil {
		return
	}
	for i := range logits.Rows {
		r, target := rowOf(logits, dist, i), at(ids, i)
		if !d.allows("LogProbGrad", i, target, r) {
			continue
		}
		c, l := Row(coef, i)[0]/r.temperature, Row(lse, i)[0]
		for id := range r.logits {
			g := 0.0
			if r.allowed(id) {
				g = -c * math.Exp(r.score(id)-l)
			}
			if id == target {
				g += c
			}
			Row(dlogits, i)[id] = g
		}
	}
}
