package engine

import (
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/kvcache"
)

// A scheduler decides what each batch computes. It has no tensors, clocks or globals.
//
// Sequences that need one more token come first, oldest first; then prompts, in chunks, as far as the
// step's budget goes; then new sequences, if their pages are there. When pages run out the youngest
// sequence gives its own back and waits; it is computed again later with equal results, since a draw
// is a function of seed, sample and step. The oldest can always go on, as any one request fits alone.
//
// A sequence shares the whole pages of its beginning with all that begin alike under the same adapter, the
// samples of its own request first of all, and computes the rest into pages of its own. So nothing is ever
// written to a shared page: instead of copying a part-filled page, each computes its few tokens again, which
// gives equal bits since a row depends on its own sequence only.
type scheduler struct {
	Options
	pages   *kvcache.Pool
	running []*sequence // oldest first
	ready   []*sequence // to be placed next: those that gave way, and at most one new one behind them
	jobs    []*job      // with samples that have not started
	hold    bool        // start no further job
	plan    plan
	news    []news   // of the last step, for the readers
	mask    []uint32 // room for what a form allows
	count   counters
}

// counters are what the scheduler has done so far.
type counters struct {
	steps, tokens, drawn, scored, reused, preempted int64
}

// news is an event on its way to the reader of a job, the last when over.
type news struct {
	job   *job
	event Event
	over  bool
}

// A sequence is one completion under way.
type sequence struct {
	job    *job
	sample int
	tokens []int32 // the prompt's, then those drawn
	pages  []int32 // of the first tokens; there is one for each token known when it was placed
	cached int     // tokens whose keys and values are in pages
	filled int     // pages that Keep has been told of, or that Find gave
	node   kvcache.Node
	state  int32 // of the job's form
	done   Reason
}

func newSequence(j *job) *sequence {
	s := &sequence{job: j, sample: j.started, tokens: make([]int32, len(j.Prompt), len(j.Prompt)+j.Limit)}
	copy(s.tokens, j.Prompt)
	j.started++
	return s
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

// next plans a batch, or returns nil when there is nothing to do.
func (s *scheduler) next() *plan {
	s.sweep()
	s.plan.reset()
	budget := s.TokensPerStep
	crowded := s.advance(&budget)
	for _, q := range s.running {
		if n := min(q.left(), budget); n > 0 && q.left() > 1 {
			budget -= n
			s.include(q, n)
		}
	}
	if !crowded {
		s.admit(&budget)
	}
	if len(s.plan.parts) == 0 {
		return nil
	}
	s.plan.fill(s.pages.Size(), s.Vocab)
	return &s.plan
}

// advance plans the sequences that need one token, and reports whether one had to give way.
func (s *scheduler) advance(budget *int) (crowded bool) {
	for i := 0; i < len(s.running) && *budget > 0; i++ {
		q := s.running[i]
		if q.left() != 1 {
			continue
		}
		if s.pages.Need(q.known()) > len(q.pages) {
			for s.pages.Idle() == 0 && i < len(s.running) {
				s.preempt()
				crowded = true
			}
			if i == len(s.running) {
				break // q itself was the youngest
			}
			page, _ := s.pages.Take()
			q.pages = append(q.pages, page)
		}
		*budget--
		s.include(q, 1)
	}
	return crowded
}

// preempt makes the youngest running sequence wait.
func (s *scheduler) preempt() {
	last := len(s.running) - 1
	q := s.running[last]
	s.running = slices.Delete(s.running, last, last+1)
	s.release(q)
	s.ready = slices.Insert(s.ready, 0, q)
	s.count.preempted++
}

// admit places waiting sequences while there is room.
func (s *scheduler) admit(budget *int) {
	for *budget > 0 && len(s.running) < s.MaxSequences {
		if len(s.ready) == 0 && !s.start() {
			return
		}
		q := s.ready[0]
		if !s.place(q) {
			return
		}
		s.ready = slices.Delete(s.ready, 0, 1)
		s.running = append(s.running, q)
		n := min(q.left(), *budget)
		*budget -= n
		s.include(q, n)
	}
}

// start makes a sequence of the next sample of the first job.
func (s *scheduler) start() bool {
	if len(s.jobs) == 0 || s.hold && s.jobs[0].started == 0 {
		return false
	}
	j := s.jobs[0]
	s.ready = append(s.ready, newSequence(j))
	if j.started == j.Samples {
		s.jobs = slices.Delete(s.jobs, 0, 1)
	}
	return true
}

// place gives q a page for each of its tokens, those found by prefix first. It leaves a page to each
// running sequence, so that the newcomer is not soon in the way.
func (s *scheduler) place(q *sequence) bool {
	size := s.pages.Size()
	if q.pages == nil {
		q.pages = make([]int32, 0, s.pages.Need(q.job.stored()))
	}
	q.node = s.pages.Root(q.job.Adapter)
	for size*(q.filled+1) <= q.reusable() {
		page, node, ok := s.pages.Find(q.node, q.tokens[size*q.filled:size*(q.filled+1)])
		if !ok {
			break
		}
		q.pages, q.node = append(q.pages, page), node
		q.filled++
	}
	need := s.pages.Need(q.known()) - len(q.pages)
	if s.pages.Idle() < need+len(s.running) {
		s.release(q)
		return false
	}
	for range need {
		page, _ := s.pages.Take()
		q.pages = append(q.pages, page)
	}
	q.cached = size * q.filled
	s.count.reused += int64(q.cached)
	return true
}

// include plans the next n tokens of q. The pages they complete can be found from now on, by
// sequences of the same step too: every layer stores all keys and values before it attends.
func (s *scheduler) include(q *sequence, n int) {
	s.plan.parts = append(s.plan.parts, part{seq: q, n: n})
	size := s.pages.Size()
	for size*(q.filled+1) <= q.cached+n {
		q.node = s.pages.Keep(q.pages[q.filled], q.node, q.tokens[size*q.filled:size*(q.filled+1)])
		q.filled++
	}
}

// release gives back q's pages, last first.
func (s *scheduler) release(q *sequence) {
	for _, page := range slices.Backward(q.pages) {
		s.pages.Release(page)
	}
	q.pages, q.cached, q.filled, q.node = q.pages[:0], 0, 0, 0
}

// sweep drops what belongs to jobs that are over.
func (s *scheduler) sweep() {
	s.running = slices.DeleteFunc(s.running, func(q *sequence) bool {
		gone := q.job.gone()
		if gone {
			s.release(q)
		}
		return gone
	})
	s.ready = slices.DeleteFunc(s.ready, func(q *sequence) bool { return q.job.gone() })
	s.jobs = slices.DeleteFunc(s.jobs, (*job).gone)
}

// commit takes the answers to the plan's wanted rows. Deliver follows, or after an error fail.
func (s *scheduler) commit(tokens []Token) error {
	p := &s.plan
	if len(tokens) != len(p.draws) {
		return fmt.Errorf("%d tokens for %d wanted rows", len(tokens), len(p.draws))
	}
	for i, t := range tokens {
		switch d := p.draws[i]; {
		case t.LogProb != t.LogProb:
			return fmt.Errorf("wanted row %d of %d: its log-probability is NaN", i, len(tokens))
		case t.ID < 0 || int(t.ID) >= s.Vocab || d.Score && t.ID != p.batch.Targets[i]:
			return fmt.Errorf("wanted row %d of %d: id %d, which it cannot have", i, len(tokens), t.ID)
		}
	}
	for _, part := range p.parts {
		q := part.seq
		q.cached += part.n
		for range part.scores {
			q.job.scores = append(q.job.scores, tokens[0].LogProb)
			tokens = tokens[1:]
		}
		s.count.scored += int64(part.scores)
		if part.draws {
			if err := s.grow(q, tokens[0]); err != nil {
				return err
			}
			tokens = tokens[1:]
		} else if q.left() == 0 {
			q.done = Length
			s.tell(q, Token{ID: -1})
		}
		if q.done != Running {
			s.release(q)
		}
	}
	s.running = slices.DeleteFunc(s.running, func(q *sequence) bool { return q.done != Running })
	s.count.steps++
	s.count.tokens += int64(len(p.batch.Tokens))
	return nil
}

// grow adds a token to q and finds out whether it is complete.
func (s *scheduler) grow(q *sequence, t Token) error {
	q.tokens = append(q.tokens, t.ID)
	s.count.drawn++
	if f := q.job.form; f != nil {
		next, complete, ok := f.Next(q.state, t.ID)
		if !ok {
			return fmt.Errorf("sample %d: id %d was drawn, which its form forbids", q.sample, t.ID)
		}
		q.state = next
		if complete {
			q.done = Stop
		} else if s.mask = slices.Grow(s.mask[:0], (s.Vocab+31)/32)[:(s.Vocab+31)/32]; !allows(f, next, s.mask) {
			q.job.end(fmt.Errorf("engine: sample %d: after %d tokens its form allows none of the vocabulary's", q.sample, q.drawn()))
		}
	} else if slices.Contains(q.job.Stop, t.ID) {
		q.done = Stop
	}
	if q.done == Running && q.drawn() == q.job.Limit {
		q.done = Length
	}
	s.tell(q, t)
	return nil
}

// tell has an event for q's reader.
func (s *scheduler) tell(q *sequence, t Token) {
	j := q.job
	e := Event{Sample: q.sample, Token: t, Done: q.done}
	if j.PromptLogProbs && !j.told {
		e.Prompt, j.told = j.scores, true
	}
	if q.done != Running {
		j.finished++
	}
	s.news = append(s.news, news{j, e, j.finished == j.Samples})
}

// deliver sends the readers what commit had for them.
func (s *scheduler) deliver() {
	for _, n := range s.news {
		n.job.deliver(n.event, n.over)
	}
	clear(s.news)
	s.news = s.news[:0]
}

// fail ends the requests that have a running sequence. What the step wrote is not to be found.
func (s *scheduler) fail(err error) {
	for _, q := range s.running {
		q.job.end(err)
	}
	clear(s.news)
	s.news = s.news[:0]
	s.sweep()
	s.pages.Drop()
}

// idle reports whether no request has begun.
func (s *scheduler) idle() bool {
	return len(s.running) == 0 && len(s.ready) == 0 && (len(s.jobs) == 0 || s.jobs[0].started == 0)
}
