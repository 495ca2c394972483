package engine

import (
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/kvcache"
)

// A scheduler decides what each batch computes. It has no tensors, clocks or globals.
//
// Sequences that need one more token come first; then prompts, in chunks, as far as the step's budget goes;
// then new sequences, if their pages are there. Among each, the urgent come first, and of equal priority
// the oldest. When pages run out, or a more urgent sequence waits for room, the last one by that order
// gives its own back and waits; it is computed again later with equal results, since a draw is a function
// of what was drawn before, seed, sample and step. The first can always go on, as any one request fits alone.
//
// A sequence shares the whole pages of its beginning with all that begin alike under the same adapter, the
// samples of its own request first of all, and computes the rest into pages of its own: nothing is ever
// written to a shared page. A sample placed in the step that ends another one's prompt is a fork of it: it
// draws from the same row, and the part-filled page is copied. All this gives equal bits, since a row depends
// on its own sequence only.
type scheduler struct {
	Options
	pages   *kvcache.Pool
	running []*sequence // in the order of before
	ready   []*sequence // to be placed next, in that order: those that gave way, and new ones there was no room for
	jobs    []*job      // with samples that have not started, in the order of their sequences
	hold    bool        // start no further job
	arrived uint64      // jobs so far
	plan    plan
	beyond  [2]plan   // see ahead
	freed   bool      // sequences have ended since next
	news    []news    // of the last step, for the readers
	scores  []float32 // room for those of a page
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

// next plans a batch, or returns nil when there is nothing to do.
func (s *scheduler) next() *plan {
	s.sweep()
	s.plan.reset()
	s.freed = false
	budget := s.TokensPerStep
	s.displace()
	crowded := s.advance(&budget)
	for _, q := range s.running {
		if n := min(q.left(), budget, s.Chunk); n > 0 && q.left() > 1 {
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
				break // q itself was the last
			}
			page, _ := s.pages.Take()
			q.pages = append(q.pages, page)
		}
		*budget--
		s.include(q, 1)
	}
	return crowded
}

// preempt makes the last running sequence wait.
func (s *scheduler) preempt() {
	last := len(s.running) - 1
	q := s.running[last]
	s.running = slices.Delete(s.running, last, last+1)
	s.release(q)
	s.ready = insert(s.ready, q)
	s.count.preempted++
}

// include plans the next n tokens of q. The pages they complete can be found from now on, by
// sequences of the same step too: every layer stores all keys and values before it attends.
func (s *scheduler) include(q *sequence, n int) {
	t := part{seq: q, n: n}
	t.want()
	if s.plan.rows += t.scores; t.draws {
		s.plan.rows++
	}
	s.plan.parts = append(s.plan.parts, t)
	s.keep(q, q.cached+n)
}

// keep makes the pages that q's first n tokens fill ones that can be found.
func (s *scheduler) keep(q *sequence, n int) {
	size := s.pages.Size()
	for size*(q.filled+1) <= n {
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

// commit takes the answers to p's wanted rows. Deliver follows, or after an error fail.
func (s *scheduler) commit(p *plan, tokens []Token) error {
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
		if q.done != Running { // since its last token is known
			tokens = tokens[1:]
			continue
		}
		if part.ahead {
			s.keep(q, q.cached+part.n)
		}
		q.cached += part.n
		for range part.scores {
			q.job.scored(tokens[0])
			tokens = tokens[1:]
		}
		// The prompt's last page may be filled in a later step than that which scores its last token.
		if j := q.job; j.PromptLogProbs && !j.scoring() && (part.scores > 0 || part.draws && q.drawn() == 0) {
			s.remember(j)
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
		for _, f := range part.forks {
			f.cached = f.known()
			if err := s.grow(f, tokens[0]); err != nil {
				return err
			}
			tokens = tokens[1:]
		}
	}
	for _, q := range s.running {
		if q.done != Running {
			s.release(q)
			s.freed = true
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
	if f := q.job.rules.form; f != nil {
		next, complete, ok := f.Next(q.state, t.ID)
		if !ok {
			return fmt.Errorf("sample %d: id %d was drawn, which its form forbids", q.sample, t.ID)
		}
		q.state = next
		if complete {
			q.done = Stop
		}
	} else if slices.Contains(q.job.Stop, t.ID) {
		q.done = Stop
	}
	if q.done == Running && q.drawn() == q.job.Limit {
		q.done = Length
	}
	if q.done == Running && q.bound() {
		if err := q.allow(s.Vocab); err != nil {
			q.job.end(fmt.Errorf("engine: sample %d: after %d tokens: %w", q.sample, q.drawn(), err))
		}
	}
	t.Top, t.RawTop = slices.Clone(t.Top), slices.Clone(t.RawTop)
	s.tell(q, t)
	return nil
}

// tell has an event for q's reader.
func (s *scheduler) tell(q *sequence, t Token) {
	j := q.job
	e := Event{Sample: q.sample, Token: t, Done: q.done}
	if !j.told {
		j.told, e.Start = true, &j.start
		e.Prompt, e.PromptRanks, e.PromptTop = j.scores, j.ranks, j.tops
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
	return len(s.running) == 0 && len(s.ready) == 0 && !slices.ContainsFunc(s.jobs, func(j *job) bool { return j.started > 0 })
}
