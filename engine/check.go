package engine

import (
	"fmt"
	"slices"
)

// check reports the first way in which the scheduler contradicts itself, between two steps.
func (s *scheduler) check() error {
	err := s.pages.Check(func(yield func([]int32) bool) {
		for _, q := range s.running {
			if !yield(q.pages) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if len(s.running) > s.MaxSequences {
		return fmt.Errorf("%d sequences run, at most %d may", len(s.running), s.MaxSequences)
	}
	for i, q := range s.running {
		if err := s.checkSequence(q); err != nil {
			return fmt.Errorf("running sequence %d (sample %d of %d): %w", i, q.sample, q.job.Samples, err)
		}
	}
	for i, q := range s.ready {
		if len(q.pages) > 0 || q.cached > 0 || q.filled > 0 || q.done != Running {
			return fmt.Errorf("waiting sequence %d holds %d pages for %d tokens", i, len(q.pages), q.cached)
		}
	}
	for i, j := range s.jobs {
		if j.started >= j.Samples {
			return fmt.Errorf("queued request %d has begun %d samples of %d", i, j.started, j.Samples)
		}
		if i > 0 && j.Priority < s.jobs[i-1].Priority {
			return fmt.Errorf("queued request %d of priority %d stands behind one of %d", i, j.Priority, s.jobs[i-1].Priority)
		}
	}
	for _, list := range [][]*sequence{s.running, s.ready} {
		if !slices.IsSortedFunc(list, func(a, b *sequence) int {
			if a.before(b) {
				return -1
			}
			return 1
		}) {
			return fmt.Errorf("sequences that run or wait are out of order")
		}
	}
	return nil
}

func (s *scheduler) checkSequence(q *sequence) error {
	size := s.pages.Size()
	switch {
	case q.done != Running:
		return fmt.Errorf("it is done: %v", q.done)
	case q.left() < 1:
		return fmt.Errorf("it has nothing to compute: %d of %d tokens are cached", q.cached, q.known())
	case q.drawn() >= max(1, q.job.Limit):
		return fmt.Errorf("%d tokens are drawn, the limit is %d", q.drawn(), q.job.Limit)
	case q.filled != q.cached/size:
		return fmt.Errorf("%d pages are filled by %d tokens, %d findable", q.cached/size, q.cached, q.filled)
	case len(q.pages) < s.pages.Need(q.cached) || len(q.pages) > s.pages.Need(q.job.stored()):
		return fmt.Errorf("%d pages for %d cached tokens, at most %d", len(q.pages), q.cached, q.job.stored())
	case q.sample == 0 && q.job.scoring() && q.cached > len(q.job.scores):
		return fmt.Errorf("%d tokens are cached, only %d scored", q.cached, len(q.job.scores))
	}
	return nil
}
