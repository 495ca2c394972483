package engine

import (
	"slices"
)

// enqueue takes a new job.
func (s *scheduler) enqueue(j *job) {
	j.order = s.arrived
	s.arrived++
	at := len(s.jobs)
	for at > 0 && j.Priority < s.jobs[at-1].Priority {
		at--
	}
	s.jobs = slices.Insert(s.jobs, at, j)
}

// displace places those that wait and are more urgent than one that runs, which gives way if it must.
func (s *scheduler) displace() {
	for len(s.running) > 0 {
		q := s.waiting()
		if q == nil || q.job.Priority >= s.running[len(s.running)-1].job.Priority {
			return
		}
		if len(s.running) == s.MaxSequences || !s.place(q, q.reusable()) {
			s.preempt()
			continue
		}
		s.ready = slices.Delete(s.ready, 0, 1)
		s.running = insert(s.running, q)
	}
}

// admit places waiting sequences while there is room.
func (s *scheduler) admit(budget *int) {
	for len(s.running) < s.MaxSequences {
		q := s.waiting()
		if q == nil {
			return
		}
		twin := s.twin(q)
		if *budget == 0 && (twin == nil || s.plan.rows == s.TokensPerStep) {
			return
		}
		reusable := q.reusable()
		if twin != nil {
			reusable = q.known()
		}
		if !s.place(q, reusable) {
			return
		}
		if twin != nil && q.left() >= s.pages.Size() { // a page that both begin with was given up just now
			s.release(q)
			return
		}
		s.ready = slices.Delete(s.ready, 0, 1)
		s.running = insert(s.running, q)
		if twin != nil {
			*budget = max(0, *budget-1) // a row that is wanted, so that there is room for all that are
			s.fork(twin, q)
			continue
		}
		n := min(q.left(), *budget, s.Chunk)
		*budget -= n
		s.include(q, n)
	}
}

// twin is the part of the plan whose last row is what q, which has not begun, begins to draw from.
func (s *scheduler) twin(q *sequence) *part {
	if q.drawn() > 0 || q.job.Limit == 0 || q.sample == 0 && q.job.scoring() {
		return nil
	}
	return s.first(q.job)
}

// first is the part of the plan that draws a first token of j.
func (s *scheduler) first(j *job) *part {
	at := slices.IndexFunc(s.plan.parts, func(t part) bool { return t.seq.job == j && t.draws && t.seq.drawn() == 0 })
	if at < 0 {
		return nil
	}
	return &s.plan.parts[at]
}

// fork makes q, which is placed, begin with t's last row.
func (s *scheduler) fork(t *part, q *sequence) {
	t.forks = append(t.forks, q)
	s.plan.rows++
	s.count.reused += int64(q.left())
}

// waiting is the sequence to be placed next, the first of those that are ready, or nil.
func (s *scheduler) waiting() *sequence {
	at := slices.IndexFunc(s.jobs, s.may)
	if at >= 0 {
		j := s.jobs[at]
		if next := (sequence{job: j, sample: j.started}); len(s.ready) == 0 || next.before(s.ready[0]) {
			s.ready = slices.Insert(s.ready, 0, newSequence(j, s.Vocab))
			if j.started == j.Samples {
				s.jobs = slices.Delete(s.jobs, at, at+1)
			}
		}
	}
	if len(s.ready) == 0 {
		return nil
	}
	return s.ready[0]
}

// may reports whether the next sample of j may start. The first one scores the prompt, and the others wait
// for that, so that whichever event comes first has the scores.
func (s *scheduler) may(j *job) bool {
	return j.started == 0 && !s.hold || j.started > 0 && (!j.scoring() || s.first(j) != nil)
}

// place gives q a page for each of its tokens, those found by prefix first, among its first reusable ones. It
// leaves a page to each running sequence, so that the newcomer is not soon in the way.
func (s *scheduler) place(q *sequence, reusable int) bool {
	size := s.pages.Size()
	if q.pages == nil {
		q.pages = make([]int32, 0, s.pages.Need(q.job.stored()))
	}
	if q.sample == 0 && q.job.scoring() {
		s.adopt(q.job)
		reusable = q.reusable()
	}
	q.node = s.pages.Root(q.job.space)
	for size*(q.filled+1) <= reusable {
		page, node, ok := s.pages.Find(q.node, q.tokens[size*q.filled:size*(q.filled+1)])
		if !ok {
			break
		}
		q.pages, q.node = append(q.pages, page), node
		q.filled++
	}
	need := s.pages.Need(q.known()) - len(q.pages)
	spare := len(s.running)
	if need == 0 {
		spare++ // q itself takes one in the next step
	}
	if s.pages.Idle() < need+spare {
		s.release(q)
		return false
	}
	for range need {
		page, _ := s.pages.Take()
		q.pages = append(q.pages, page)
	}
	q.cached = size * q.filled
	s.count.reused += int64(q.cached)
	if !q.job.begun {
		q.job.begun, q.job.start.Cached = true, min(q.cached, len(q.job.Prompt))
	}
	return true
}
