package sample

import (
	"math"
	"slices"
)

// Scratch is memory that Choose reuses from row to row. The zero value is ready.
type Scratch struct {
	logits  []float32 // of the row
	weights []float64 // exp((logit − largest) / temperature) of the candidates, by id
	ids     []int32   // the candidates: the ids allowed, less what each filter takes away
}

// Choose draws an id from a row of logits on the host: temperature, then top-k, top-p and min-p in the
// order and by the definitions of transformers. Of the ids left it takes, ids ascending, the first whose
// cumulative probability exceeds u. A set bit j%32 of mask[j/32] allows id j; a nil mask allows all.
//
// logprob is that of the distribution drawn from, so after temperature, mask and truncation,
// renormalised: the policy-gradient ratio is then one of the sampler's own probabilities. A temperature of
// 0 takes the largest logit, the lowest id among equals, and reports it at temperature 1 without truncation,
// as the device's Sample does.
//
// A row with a NaN or +Inf among its allowed logits, or without a finite one, has no distribution: the
// id is then -1 and logprob NaN.
func Choose(logits []float32, p Params, mask []uint32, u float32, scratch *Scratch) (id int32, logprob float32) {
	s := scratch
	best := s.weigh(logits, p.Temperature, mask)
	if best < 0 {
		return -1, float32(math.NaN())
	}
	if p.Temperature == 0 {
		return best, s.logprob(best)
	}
	if p.TopK > 0 && p.TopK < len(s.ids) {
		s.topK(p.TopK)
	}
	if p.TopP > 0 && p.TopP < 1 {
		s.topP(float64(p.TopP))
	}
	if p.MinP > 0 {
		s.keep(func(j int32) bool { return s.weights[j] >= float64(p.MinP) })
	}
	slices.Sort(s.ids)
	id = s.draw(float64(u))
	return id, s.logprob(id)
}

// weigh sets the candidates and their weights and returns the lowest id of the largest logit, or -1.
func (s *Scratch) weigh(logits []float32, temperature float32, mask []uint32) int32 {
	if cap(s.weights) < len(logits) {
		s.weights, s.ids = make([]float64, len(logits)), make([]int32, 0, len(logits))
	}
	s.logits, s.weights, s.ids = logits, s.weights[:len(logits)], s.ids[:0]
	best := int32(-1)
	for j, l := range logits {
		if mask != nil && mask[j/32]>>(j%32)&1 == 0 {
			continue
		}
		if l != l || l > math.MaxFloat32 {
			return -1
		}
		if l < -math.MaxFloat32 {
			continue
		}
		s.ids = append(s.ids, int32(j))
		if best < 0 || l > logits[best] {
			best = int32(j)
		}
	}
	t := float64(temperature)
	if t == 0 {
		t = 1
	}
	for _, j := range s.ids {
		s.weights[j] = math.Exp((float64(logits[j]) - float64(logits[best])) / t)
	}
	return best
}

// topK keeps the k most likely and whatever ties with the last of them.
func (s *Scratch) topK(k int) {
	s.heapify()
	n := len(s.ids)
	for range k {
		n = s.pop(n)
	}
	least := s.logits[s.ids[n]]
	s.keep(func(j int32) bool { return s.logits[j] >= least })
}

// topP keeps the most likely ids until they hold mass p: an id stays while those more likely
// than it hold less. Among equals the lower id counts as the more likely.
func (s *Scratch) topP(p float64) {
	want := p * s.total()
	s.heapify()
	n, held := len(s.ids), 0.0
	for n > 0 && held < want {
		n = s.pop(n)
		held += s.weights[s.ids[n]]
	}
	s.ids = s.ids[:copy(s.ids, s.ids[n:])]
}

// keep drops the candidates that do not pass.
func (s *Scratch) keep(pass func(j int32) bool) {
	n := 0
	for _, j := range s.ids {
		if pass(j) {
			s.ids[n] = j
			n++
		}
	}
	s.ids = s.ids[:n]
}

// draw walks the candidates until their cumulative weight exceeds the share u of the whole. One without
// weight cannot be drawn; should rounding leave u beyond the end, the last with weight is.
func (s *Scratch) draw(u float64) int32 {
	threshold, sum, last := u*s.total(), 0.0, int32(-1)
	for _, j := range s.ids {
		if s.weights[j] == 0 {
			continue
		}
		sum += s.weights[j]
		last = j
		if sum > threshold {
			break
		}
	}
	return last
}

// total is the weight of the candidates.
func (s *Scratch) total() float64 {
	sum := 0.0
	for _, j := range s.ids {
		sum += s.weights[j]
	}
	return sum
}

// logprob is the log-probability of j among the candidates.
func (s *Scratch) logprob(j int32) float32 { return float32(math.Log(s.weights[j] / s.total())) }

// more reports whether candidate a is more likely than b, the lower id among equals.
func (s *Scratch) more(a, b int32) bool {
	return s.logits[a] > s.logits[b] || s.logits[a] == s.logits[b] && a < b
}

// heapify arranges the candidates as a heap, the most likely first.
func (s *Scratch) heapify() {
	for i := len(s.ids)/2 - 1; i >= 0; i-- {
		s.sift(i, len(s.ids))
	}
}

// pop moves the most likely of the heap of the first n candidates behind it and returns n-1.
func (s *Scratch) pop(n int) int {
	n--
	s.ids[0], s.ids[n] = s.ids[n], s.ids[0]
	s.sift(0, n)
	return n
}

// sift lets candidate i sink to its place in the heap of the first n.
func (s *Scratch) sift(i, n int) {
	for {
		child := 2*i + 1
		if child >= n {
			return
		}
		if child+1 < n && s.more(s.ids[child+1], s.ids[child]) {
			child++
		}
		if !s.more(s.ids[child], s.ids[i]) {
			return
		}
		s.ids[i], s.ids[child] = s.ids[child], s.ids[i]
		i = child
	}
}
