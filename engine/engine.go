package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/r2-reasoner/r2/engine/kvcache"
)

// An Engine serves requests from any goroutine on the one that calls Run.
type Engine struct {
	step   Stepper
	sched  *scheduler // Run's
	verify bool
	wakeup chan struct{}

	mu       sync.Mutex
	arrived  []*job
	turns    []*turn // Exclusive calls that wait, the first first
	calls    []*turn // what is to be done between two steps
	adapters inventory
	state    state
	stats    Stats
}

type state uint8

const (
	unborn state = iota // Run has not been called: requests wait
	alive
	dead
)

// A turn is one call of a function on Run's goroutine.
type turn struct {
	f    func() error
	done chan error
}

// Stats is what an engine has done, and what it has to do. Counts are since New.
type Stats struct {
	Steps     int64 // batches
	Tokens    int64 // tokens computed
	Drawn     int64 // tokens drawn
	Scored    int64 // prompt tokens scored
	Reused    int64 // tokens that were found in the cache instead
	Preempted int64 // sequences that gave their pages back to go on later
	Running   int   // sequences
	Waiting   int   // sequences that have yet to run, or to run again
	Pages     int   // in the cache
	Idle      int   // pages of no sequence
	Cached    int   // pages that hold a prefix which can be found again
}

// New makes an engine on a Stepper whose cache has the pages of the pool. The pool is the engine's from
// now on. With R2_VERIFY=1 in the environment the scheduler and the pool are checked after every step.
func New(s Stepper, pages *kvcache.Pool, o Options) *Engine {
	return &Engine{
		step:     s,
		sched:    &scheduler{Options: o.complete(), pages: pages},
		verify:   os.Getenv("R2_VERIFY") == "1",
		wakeup:   make(chan struct{}, 1),
		adapters: inventory{fixed: o.Adapters, last: o.Adapters},
		stats:    Stats{Pages: pages.Pages(), Idle: pages.Idle()},
	}
}

// Run schedules and steps until ctx is done, and then returns nil; or until a step can no longer
// succeed, and then returns why. All steps and all functions given to Exclusive run on its goroutine.
// Requests that are not finished end with ErrStopped. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.state != unborn {
		e.mu.Unlock()
		return errors.New("engine: it has already run")
	}
	e.state = alive
	e.mu.Unlock()
	defer context.AfterFunc(ctx, e.wake)()
	var err error
	for err == nil && ctx.Err() == nil {
		turn, calls, closing := e.accept()
		for _, c := range calls {
			c.done <- c.f()
		}
		e.retire(closing)
		if p := e.sched.next(); p != nil {
			err = e.run(ctx, p)
			continue
		}
		e.report()
		switch {
		case turn != nil && e.sched.idle():
			e.serve(turn)
		default:
			<-e.wakeup
		}
	}
	e.stop(err)
	return err
}

// accept hands the scheduler what has arrived, and returns the Exclusive call that waits first, the calls
// to make now, and the adapters that were closing when no more than that had arrived.
func (e *Engine) accept() (first *turn, calls []*turn, closing []installed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.arrived {
		e.sched.enqueue(j)
	}
	clear(e.arrived)
	e.arrived = e.arrived[:0]
	calls, e.calls = e.calls, nil
	closing = slices.Clone(e.adapters.closing)
	if e.sched.hold = len(e.turns) > 0; e.sched.hold {
		first = e.turns[0]
	}
	return first, calls, closing
}

// serve runs an Exclusive call, unless its caller has left.
func (e *Engine) serve(t *turn) {
	e.mu.Lock()
	if len(e.turns) == 0 || e.turns[0] != t {
		e.mu.Unlock()
		return
	}
	e.turns = e.turns[1:]
	e.mu.Unlock()
	err := t.f()
	e.sched.pages.Drop()
	t.done <- err
}

// stop ends everything that waits or runs.
func (e *Engine) stop(err error) {
	if err == nil {
		err = fmt.Errorf("engine: %w", ErrStopped)
	}
	e.mu.Lock()
	e.state = dead
	jobs, turns := e.arrived, append(e.turns, e.calls...)
	e.arrived, e.turns, e.calls = nil, nil, nil
	e.mu.Unlock()
	for _, t := range turns {
		t.done <- err
	}
	s := e.sched
	for _, q := range s.running {
		jobs = append(jobs, q.job)
	}
	for _, q := range s.ready {
		jobs = append(jobs, q.job)
	}
	for _, j := range append(jobs, s.jobs...) {
		j.end(err)
	}
	s.sweep()
	e.report()
}

// Generate streams the completions of r: the events of each in order, those of several as they come. The
// last event is that of the last completion to be done. Breaking out of the loop, or ctx, ends the
// request, and its pages are free within a step. A slow reader holds up nobody.
func (e *Engine) Generate(ctx context.Context, r Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		j, err := e.submit(r)
		if err != nil {
			yield(Event{}, fmt.Errorf("engine: %w", err))
			return
		}
		defer func() {
			j.end(nil)
			e.wake()
		}()
		var events []Event
		for {
			var over bool
			events, over, err = j.take(events)
			for _, event := range events {
				if ctx.Err() != nil {
					break
				}
				if !yield(event, nil) {
					return
				}
			}
			switch {
			case ctx.Err() != nil:
				yield(Event{}, fmt.Errorf("engine: %w", context.Cause(ctx)))
				return
			case err != nil:
				yield(Event{}, err)
				return
			case over:
				return
			}
			select {
			case <-j.notify:
			case <-ctx.Done():
			}
		}
	}
}

// submit checks r and queues it.
func (e *Engine) submit(r Request) (*job, error) {
	if err := r.check(&e.sched.Options, e.sched.pages); err != nil {
		return nil, &RequestError{err}
	}
	rules, err := r.rules(e.sched.Vocab)
	if err != nil {
		return nil, &RequestError{err}
	}
	j := newJob(r.clone(), rules)
	j.submitted = time.Now()
	if r.stored() == 0 { // the score of a single token: there is none
		j.deliver(Event{Token: Token{ID: -1}, Done: Length, Prompt: j.scores, PromptRanks: j.ranks, PromptTop: j.tops, Start: &Start{}}, true)
		return j, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == dead {
		return nil, ErrStopped
	}
	if err := e.adapters.resolve(j); err != nil {
		return nil, err
	}
	e.arrived = append(e.arrived, j)
	e.wake()
	return j, nil
}

// Exclusive lets the requests that have begun finish, holds back all others, and calls f on Run's
// goroutine: the weights may be changed in it, since the cached prefixes are forgotten after it, whatever
// it returns. If ctx ends before f begins, f is not called. f must not use the engine.
func (e *Engine) Exclusive(ctx context.Context, f func() error) error {
	return e.call(ctx, &e.turns, f)
}

// call puts f into a list of what Run is to call, and waits for it. If ctx ends before f begins, f is not
// called.
func (e *Engine) call(ctx context.Context, list *[]*turn, f func() error) error {
	t := &turn{f: f, done: make(chan error, 1)}
	e.mu.Lock()
	if e.state == dead {
		e.mu.Unlock()
		return fmt.Errorf("engine: %w", ErrStopped)
	}
	*list = append(*list, t)
	e.mu.Unlock()
	e.wake()
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		if e.withdraw(list, t) {
			return fmt.Errorf("engine: %w", context.Cause(ctx))
		}
		return <-t.done
	}
}

// withdraw takes t back, unless it has begun.
func (e *Engine) withdraw(list *[]*turn, t *turn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(*list, t)
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	e.wake()
	return true
}

// Stats is a snapshot, taken after the last step.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// report takes the snapshot.
func (e *Engine) report() {
	s, c := e.sched, e.sched.count
	waiting := len(s.ready)
	for _, j := range s.jobs {
		waiting += j.Samples - j.started
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats = Stats{
		Steps: c.steps, Tokens: c.tokens, Drawn: c.drawn, Scored: c.scored, Reused: c.reused, Preempted: c.preempted,
		Running: len(s.running), Waiting: waiting,
		Pages: s.pages.Pages(), Idle: s.pages.Idle(), Cached: s.pages.Cached(),
	}
}

// wake makes Run look again.
func (e *Engine) wake() {
	select {
	case e.wakeup <- struct{}{}:
	default:
	}
}
