package sample

import (
	"math"
	"slices"
)

// Scratch is memory that Choose reuses from row to row. The zero value is ready.
type Scratch struct {
	logits  []float64 // of the row, with bias and penalties
	counts  []int32   // of each id; all zero between rows
	weights []float64 // exp((logit − largest) / temperature) of the candidates, by id
	ids     []int32   // the candidates: the ids allowed, less what each filter takes away
}

// Choose draws an id from a row of logits on the host: bias, penalties, temperature, then top-k, top-p and
// min-p in the order and by the definitions of transformers (or min-p first, as vLLM). Of the ids left it
// takes, ids ascending, the first whose cumulative probability exceeds u. A set bit j%32 of mask[j/32]
// allows id j; a nil mask allows all.
//
// logprob is that of the distribution drawn from, so after temperature, mask and truncation,
// renormalised: the policy-gradient ratio is then one of the sampler's own probabilities. A temperature of
// 0 takes the largest logit, the lowest id among equals, and reports it at temperature 1 without truncation,
// as the device's Sample does.
//
// A row with a NaN or +Inf among its allowed logits, or without a finite one, has no distribution: the
// id is then -1 and logprob NaN.
func Choose(logits []float32, d Draw, mask []uint32, u float32, scratch *Scratch) (id int32, logprob float32) {
	s, p := scratch, &d.Params
	s.load(logits)
	if p.adjusts() {
		s.adjust(d)
	}
	best := s.candidates(mask)
	if best < 0 {
		return -1, float32(math.NaN())
	}
	if p.Temperature == 0 {
		s.weigh(best, 1)
		return best, s.logprob(best, s.total())
	}
	first := p.MinP > 0 && p.MinPFirst
	if first {
		s.weigh(best, p.Temperature)
		s.minP(p.MinP)
	}
	if p.TopK > 0 && p.TopK < len(s.ids) {
		s.topK(p.TopK) // dividing by the temperature would not change it
	}
	if !first {
		s.weigh(best, p.Temperature)
	}
	if p.TopP > 0 && p.TopP < 1 {
		s.topP(float64(p.TopP))
	}
	if p.MinP > 0 && !first {
		s.minP(p.MinP)
	}
	slices.Sort(s.ids)
	id = s.draw(float64(u))
	return id, s.logprob(id, s.total())
}

// load takes a row of logits.
func (s *Scratch) load(logits []float32) {
	if n := len(logits); cap(s.weights) < n {
		s.logits, s.weights, s.ids, s.counts = make([]float64, n), make([]float64, n), make([]int32, 0, n), make([]int32, n)
	}
	s.logits, s.weights, s.ids = s.logits[:len(logits)], s.weights[:len(logits)], s.ids[:0]
	for j, l := range logits {
		s.logits[j] = float64(l)
	}
}

// candidates sets them to the allowed ids and returns the lowest id of the largest logit, or -1.
func (s *Scratch) candidates(mask []uint32) int32 {
	best := int32(-1)
	for j, l := range s.logits {
		if mask != nil && mask[j/32]>>(j%32)&1 == 0 {
			continue
		}
		if l != l || l > math.MaxFloat64 {
			return -1
		}
		if l < -math.MaxFloat64 {
			continue
		}
		s.ids = append(s.ids, int32(j))
		if best < 0 || l > s.logits[best] {
			best = int32(j)
		}
	}
	return best
}

// weigh sets the candidates' weights.
func (s *Scratch) weigh(best int32, temperature float32) {
	most, t := s.logits[best], float64(temperature)
	for _, j := range s.ids {
		s.weights[j] = math.Exp((s.logits[j] - most) / t)
	}
}

// topK keeps the k most likely and whatever ties with the last of them: k of those it has seen stay in a
// heap, the least likely first.
func (s *Scratch) topK(k int) {
	heap := s.ids[:k]
	less := func(a, b int32) bool { return s.logits[a] < s.logits[b] }
	heapify(heap, less)
	for i := k; i < len(s.ids); i++ {
		if less(heap[0], s.ids[i]) {
			heap[0], s.ids[i] = s.ids[i], heap[0]
			sift(heap, 0, less)
		}
	}
	least := s.logits[heap[0]]
	s.keep(func(j int32) bool { return s.logits[j] >= least })
}

// topP keeps the most likely ids until they hold mass p: an id stays while those more likely
// than it hold less. Among equals the lower id counts as the more likely.
func (s *Scratch) topP(p float64) {
	total := s.total()
	// The ids lighter than this hold less than 1-p together, so none of them stays.
	light := (1 - p) * total / float64(len(s.ids))
	s.keep(func(j int32) bool { return s.weights[j] >= light })
	more := func(a, b int32) bool {
		return s.logits[a] > s.logits[b] || s.logits[a] == s.logits[b] && a < b
	}
	heapify(s.ids, more)
	n, held := len(s.ids), 0.0
	for n > 0 && held < p*total {
		n--
		s.ids[0], s.ids[n] = s.ids[n], s.ids[0]
		sift(s.ids[:n], 0, more)
		held += s.weights[s.ids[n]]
	}
	s.ids = s.ids[:copy(s.ids, s.ids[n:])]
}

// minP keeps the ids at least this fraction as likely as the most likely one, whose weight is 1.
func (s *Scratch) minP(p float32) {
	s.keep(func(j int32) bool { return s.weights[j] >= float64(p) })
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

// logprob is the log-probability of j among the candidates, whose weight is total.
func (s *Scratch) logprob(j int32, total float64) float32 {
	return float32(math.Log(s.weights[j] / total))
}

// heapify arranges ids as a heap, the one before all others first.
func heapify(ids []int32, before func(a, b int32) bool) {
	for i := len(ids)/2 - 1; i >= 0; i-- {
		sift(ids, i, before)
	}
}

// sift lets entry i sink to its place in the heap.
func sift(ids []int32, i int, before func(a, b int32) bool) {
	for {
		child := 2*i + 1
		if child >= len(ids) {
			return
		}
		if child+1 < len(ids) && before(ids[child+1], ids[child]) {
			child++
		}
		if !before(ids[child], ids[i]) {
			return
		}
		ids[i], ids[child] = ids[child], ids[i]
		i = child
	}
}
