package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/r2-reasoner/r2/engine/sample"
)

// A job is a request and the way to its reader. The scheduler's goroutine writes events into it
// without waiting; the reader takes them when it likes. There are never more than Samples × Limit.
type job struct {
	Request
	rules     rules
	slot      int       // of its adapter in batches
	space     string    // of the prefix cache: what must be equal besides tokens
	order     uint64    // of arrival
	submitted time.Time // zero where nobody asks for times

	// Of the scheduler's goroutine:
	started  int               // samples that have become sequences
	finished int               // samples that are done
	scores   []float32         // of the prompt's tokens 1 …, as far as they are known
	ranks    []int32           // and their ranks, where asked
	tops     [][]sample.Scored // and the most likely ids in their places, where asked
	start    Start
	begun    bool // a sequence has been placed: start is known
	told     bool // the first event has been sent

	mu     sync.Mutex
	events []Event
	over   bool  // nothing follows: all is done, failed, or the reader has gone
	err    error // why it failed
	notify chan struct{}
}

func newJob(r Request, u rules) *job {
	j := &job{Request: r, rules: u, notify: make(chan struct{}, 1)}
	if n := len(r.Prompt) - 1; r.PromptLogProbs {
		j.scores = make([]float32, 0, n)
		if r.PromptRanks || r.PromptTop > 0 {
			j.ranks = make([]int32, 0, n)
		}
		if r.PromptTop > 0 {
			j.tops = make([][]sample.Scored, 0, n)
		}
	}
	return j
}

// scored takes the answer for the next token of the prompt.
func (j *job) scored(t Token) {
	j.scores = append(j.scores, t.LogProb)
	if j.ranks != nil {
		j.ranks = append(j.ranks, t.Rank)
	}
	if j.tops != nil {
		j.tops = append(j.tops, slices.Clone(t.RawTop))
	}
}

// scoring reports whether some of the prompt has still to be scored.
func (j *job) scoring() bool { return j.PromptLogProbs && len(j.scores) < len(j.Prompt)-1 }

// gone reports whether nothing that is computed for j will be read.
func (j *job) gone() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.over
}

// deliver adds an event, the request's last when over.
func (j *job) deliver(e Event, over bool) {
	j.mu.Lock()
	j.events = append(j.events, e)
	j.over = j.over || over
	j.mu.Unlock()
	j.wake()
}

// end ends j early, with err for its reader or without one.
func (j *job) end(err error) {
	j.mu.Lock()
	if !j.over {
		j.over, j.err = true, err
	}
	j.mu.Unlock()
	j.wake()
}

// take returns the events there are, in exchange for an empty slice, and whether they are the last.
func (j *job) take(empty []Event) (events []Event, over bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	events, j.events = j.events, empty[:0]
	return events, j.over, j.err
}

func (j *job) wake() {
	select {
	case j.notify <- struct{}{}:
	default:
	}
}
