package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/kvcache"
)

// A sequence is one completion under way.
type sequence struct {
	job    *job
	sample int
	tokens []int32 // the prompt's, then those drawn
	pages  []int32 // of the first tokens; there is one for each token known when it was placed
	cached int     // tokens whose keys and values are in pages
	filled int     // pages that Keep has been told of, or that Find gave
	node   kvcache.Node
	state  int32    // of the job's form
	mask   []uint32 // what may be drawn next, where that is bound
	done   Reason
}

func newSequence(j *job, vocab int) *sequence {
	s := &sequence{job: j, sample: j.started, tokens: make([]int32, len(j.Prompt), len(j.Prompt)+j.Limit)}
	copy(s.tokens, j.Prompt)
	if s.bound() {
		s.mask = make([]uint32, (vocab+31)/32)
		if err := s.allow(vocab); err != nil { // its form has failed since the request was checked
			j.end(fmt.Errorf("engine: %w", err))
			everything(s.mask, vocab) // nobody reads what is drawn
		}
	}
	j.started++
	return s
}

// bound reports whether there are rules for the next token.
func (s *sequence) bound() bool { return s.job.rules.bind(s.drawn()) }

// allow sets mask; it is an error if there is nothing to draw.
func (s *sequence) allow(vocab int) error {
	return s.job.rules.allow(s.mask, vocab, s.state, s.tokens[len(s.job.Prompt):])
}

// before reports whether s comes before q: by priority, arrival and sample.
func (s *sequence) before(q *sequence) bool {
	a, b := s.job, q.job
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.order, b.order), s.sample-q.sample) < 0
}

// insert puts q in its place.
func insert(list []*sequence, q *sequence) []*sequence {
	at := len(list)
	for at > 0 && q.before(list[at-1]) {
		at--
	}
	return slices.Insert(list, at, q)
}

// known is how many tokens there are to compute. The last prompt token of a request that only
// scores predicts nothing that is asked for.
func (s *sequence) known() int {
	if s.job.Limit == 0 {
		return len(s.tokens) - 1
	}
	return len(s.tokens)
}

// left is how many of the known tokens are not in the cache.
func (s *sequence) left() int { return s.known() - s.cached }

// drawn is how many tokens the completion has.
func (s *sequence) drawn() int { return len(s.tokens) - len(s.job.Prompt) }

// reusable is how many first tokens need not be computed if they are found: all but the last known, whose
// distribution is wanted, and none that predicts a token still to be scored.
func (s *sequence) reusable() int {
	if s.sample == 0 && s.job.scoring() {
		return min(s.known()-1, len(s.job.scores))
	}
	return s.known() - 1
}
