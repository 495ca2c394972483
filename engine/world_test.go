package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/engine/sample"
)

// A world is a model whose logits are a function of a sequence's own adapter and tokens, and of the
// generation of its weights: any mixing of sequences, positions, pages or generations changes them.
type world struct {
	vocab      int
	generation uint64
}

func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9E3779B97F4A7C15
	return h ^ h>>29
}

func (w world) root(content uint64) uint64 { return mix(mix(1, w.generation), content) }

// logits follow the prefix whose hash is chain.
func (w world) logits(chain uint64) []float32 {
	out := make([]float32, w.vocab)
	for i := range out {
		chain = mix(chain, uint64(i)+77)
		out[i] = float32(chain>>40) / (1 << 24) * 6
	}
	return out
}

func (w world) score(chain uint64, id int32) float32 { return scoreOf(w.logits(chain), id, nil) }

// scoreOf is the log-probability of id among the ids that ok accepts, at temperature 1.
func scoreOf(l []float32, id int32, ok func(int32) bool) float32 {
	sum := 0.0
	for i, v := range l {
		if ok == nil || ok(int32(i)) {
			sum += math.Exp(float64(v))
		}
	}
	return float32(float64(l[id]) - math.Log(sum))
}

// sorted are all ids, the most likely first.
func (w world) sorted(chain uint64) []int32 {
	l := w.logits(chain)
	ids := make([]int32, len(l))
	for i := range ids {
		ids[i] = int32(i)
	}
	slices.SortStableFunc(ids, func(a, b int32) int { return cmp.Compare(l[b], l[a]) })
	return ids
}

// rawTop is the head of them with their log-probabilities.
func (w world) rawTop(chain uint64, k int) (top []sample.Scored) {
	if k == 0 {
		return nil
	}
	for _, id := range w.sorted(chain)[:k] {
		top = append(top, sample.Scored{ID: id, LogProb: w.score(chain, id)})
	}
	return top
}

func (w world) rank(chain uint64, id int32) int32 {
	return int32(slices.Index(w.sorted(chain), id)) + 1
}

// alone is what a request must give: each sample's events, computed alone and in order.
func (w world) alone(r Request) (out [][]Event) { return w.aloneAs(r, uint64(r.Adapter)) }

// aloneAs is what it must give under an adapter of a content.
func (w world) aloneAs(r Request, content uint64) (out [][]Event) {
	chain := w.root(content)
	first := Event{Prompt: []float32{}, PromptRanks: []int32{}, PromptTop: [][]sample.Scored{}}
	for i, id := range r.Prompt {
		if i > 0 {
			if r.PromptLogProbs {
				first.Prompt = append(first.Prompt, w.score(chain, id))
			}
			if r.PromptRanks || r.PromptTop > 0 {
				first.PromptRanks = append(first.PromptRanks, w.rank(chain, id))
				first.PromptTop = append(first.PromptTop, w.rawTop(chain, r.PromptTop))
			}
		}
		chain = mix(chain, uint64(id))
	}
	for n := range r.Samples {
		events := w.sample(r, n, chain)
		if r.PromptLogProbs && n == 0 {
			events[0].Prompt = first.Prompt
			if r.PromptRanks || r.PromptTop > 0 {
				events[0].PromptRanks = first.PromptRanks
			}
			if r.PromptTop > 0 {
				events[0].PromptTop = first.PromptTop
			}
		}
		out = append(out, events)
	}
	return out
}

// sample plays completion n after the prompt's chain. It knows choices as a list, not as a trie.
func (w world) sample(r Request, n int, chain uint64) (events []Event) {
	if r.Limit == 0 {
		return []Event{{Token: Token{ID: -1}, Done: Length}}
	}
	left := slices.Clone(r.Choices)
	var drawn []int32
	for step := range r.Limit {
		mask := restrict(allow(left, step, r.Stop, w.vocab), r, drawn, w.vocab)
		if mask != nil && !slices.ContainsFunc(mask, func(w uint32) bool { return w != 0 }) {
			return append(events, Event{Sample: n, Token: Token{ID: -2}}) // the request ends with an error
		}
		u := sample.Uniform(r.Sampling.Seed, uint32(n), uint32(step))
		var s sample.Scratch
		id, lp := sample.Choose(w.logits(chain), sample.Draw{Params: r.Sampling, Prompt: r.Prompt, Drawn: drawn}, mask, u, &s)
		e := Event{Sample: n, Token: Token{ID: id, LogProb: lp, Top: s.Top(nil, r.Top), RawTop: w.rawTop(chain, r.RawTop)}}
		if r.Raw || r.RawTop > 0 {
			e.Token.Raw, e.Token.Rank = w.score(chain, id), w.rank(chain, id)
		}
		drawn = append(drawn, id)
		chain = mix(chain, uint64(id))
		if r.Choices == nil {
			if slices.Contains(r.Stop, id) {
				e.Done = Stop
			}
		} else {
			whole := slices.ContainsFunc(left, func(c []int32) bool { return len(c) == step })
			left = slices.DeleteFunc(left, func(c []int32) bool { return len(c) <= step || c[step] != id })
			if whole && len(left) == 0 || !slices.ContainsFunc(left, func(c []int32) bool { return len(c) > step+1 }) {
				e.Done = Stop
			}
		}
		if e.Done == Running && step == r.Limit-1 {
			e.Done = Length
		}
		events = append(events, e)
		if e.Done != Running {
			break
		}
	}
	return events
}

// restrict takes from mask, nil for all, what else r forbids after drawn.
func restrict(mask []uint32, r Request, drawn []int32, vocab int) []uint32 {
	forbidden := func(id int32) bool {
		if r.Allowed != nil && !slices.Contains(r.Allowed, id) || len(drawn) < r.MinTokens && slices.Contains(r.Stop, id) {
			return true
		}
		text := fmt.Sprint(append(slices.Clone(drawn), id)) // as "[3 1 4]"
		for _, w := range r.BadWords {
			bad := strings.TrimPrefix(fmt.Sprint(w), "[")
			if strings.HasSuffix(text, " "+bad) || text == "["+bad {
				return true
			}
		}
		return false
	}
	for id := range int32(vocab) {
		if !forbidden(id) {
			continue
		}
		if mask == nil {
			mask = make([]uint32, (vocab+31)/32)
			for all := range vocab {
				mask[all/32] |= 1 << (all % 32)
			}
		}
		mask[id/32] &^= 1 << (id % 32)
	}
	return mask
}

// allow is the mask of what may come at step, given the choices that are still possible.
func allow(left [][]int32, step int, stop []int32, vocab int) []uint32 {
	if left == nil {
		return nil
	}
	mask := make([]uint32, (vocab+31)/32)
	set := func(id int32) { mask[id/32] |= 1 << (id % 32) }
	whole, more := false, false
	for _, c := range left {
		if len(c) > step {
			set(c[step])
			more = true
		} else {
			whole = true
		}
	}
	if whole && more {
		for _, id := range stop {
			set(id)
		}
	}
	return mask
}
