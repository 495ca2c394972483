package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// A State is that of a member's circuit breaker (Nygard, Release It!, 2007). A member whose attempts fail one after
// another is left alone for a while, in which its calls fail at once; then a single attempt finds out whether it is
// well again.
type State int

const (
	Closed   State = iota // attempts are made
	HalfOpen              // a single one is made, or may be
	Open                  // none is made
)

const (
	mostFailures = 5                // attempts in a row that failed open the breaker: a call and the beginning of another,
	leastTime    = 2 * time.Second  // over no less than this: shorter trouble is what retries are for
	coolDown     = 10 * time.Second // until the single attempt
)

// A breaker is a state machine; the pool's mutex guards it.
type breaker struct {
	failures int           // in a row
	since    time.Time     // of the first of them
	last     error         // of them
	until    time.Time     // no attempt before; zero: it is closed
	probing  bool          // the single attempt is under way
	turn     int           // how often it has opened and closed
	opened   chan struct{} // is closed while the breaker is not
}

// A ticket lets one attempt through. What was begun before the breaker last changed says nothing of how things are now.
type ticket struct {
	turn  int
	probe bool
}

func (b *breaker) state(now time.Time) State {
	switch {
	case b.until.IsZero():
		return Closed
	case now.Before(b.until):
		return Open
	}
	return HalfOpen
}

// free reports whether an attempt would be let through.
func (b *breaker) free(now time.Time) bool {
	s := b.state(now)
	return s == Closed || s == HalfOpen && !b.probing
}

// admit lets an attempt through, or says why not.
func (b *breaker) admit(now time.Time) (ticket, error) {
	if !b.free(now) {
		return ticket{}, b.refusal(now)
	}
	t := ticket{b.turn, b.state(now) == HalfOpen}
	b.probing = t.probe
	return t, nil
}

// An outcome is what an attempt tells of its member.
type outcome int

const (
	untold outcome = iota // it was not made, or its caller left
	alive                 // it was answered, if only by a refusal
	failed
)

func (b *breaker) settle(t ticket, o outcome, err error, now time.Time) {
	if t.turn != b.turn {
		return
	}
	if t.probe {
		b.probing = false
	}
	switch o {
	case alive:
		if b.failures = 0; t.probe {
			b.until, b.last, b.opened = time.Time{}, nil, make(chan struct{})
			b.turn++
		}
	case failed:
		if b.failures == 0 {
			b.since = now
		}
		b.failures++
		b.last = err
		switch {
		case t.probe:
			b.until = now.Add(coolDown)
		case b.failures >= mostFailures && now.Sub(b.since) >= leastTime:
			b.until = now.Add(coolDown)
			b.turn++
			close(b.opened)
		}
	}
}

// refusal is why no attempt is let through.
func (b *breaker) refusal(now time.Time) error {
	return &openError{b.failures, max(time.Second, b.until.Sub(now)), b.last}
}

// An openError is an attempt that was not made because the breaker is open.
type openError struct {
	failures int
	wait     time.Duration // until it may be worth while, at least a second
	last     error
}

func (e *openError) Error() string {
	return fmt.Sprintf("%v: %d attempts in a row failed, and the next is made in %v at the earliest; the last: %v",
		router.ErrOpen, e.failures, e.wait.Round(100*time.Millisecond), e.last)
}

func (e *openError) Unwrap() error { return router.ErrOpen }

// told is what an attempt tells of its member. One that is there and has too much to do is not broken.
func told(ctx context.Context, err error) outcome {
	var ce *router.CallError
	switch {
	case err == nil:
		return alive
	case ctx.Err() != nil:
		return untold
	case errors.Is(err, router.ErrBusy) && !(errors.As(err, &ce) && ce.Overloaded):
		return failed
	}
	return alive
}

// Breaker is the state of a member's circuit breaker; Closed for a name that is not in the pool.
func (p *Pool) Breaker(model string) State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[model]; m != nil {
		return m.breaker.state(p.now())
	}
	return Closed
}

// Available are the cards of the members that would be asked now, in order of rank: those whose breaker is closed, and
// those that are to be tried again.
func (p *Pool) Available() []router.Card {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []router.Card
	for _, c := range p.cards {
		if p.members[c.Name].breaker.free(p.now()) {
			list = append(list, c)
		}
	}
	return list
}

// open is closed once m's breaker opens; nil while the single attempt may be made. The error says that none may.
func (p *Pool) open(m *member) (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch b, now := &m.breaker, p.now(); {
	case !b.free(now):
		return nil, b.refusal(now)
	case b.state(now) == Closed:
		return b.opened, nil
	}
	return nil, nil
}

// refusal is why m is left alone.
func (p *Pool) refusal(m *member) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.breaker.refusal(p.now())
}

// enter waits for a slot of m, which leave gives back, and for its breaker's ticket, which settle takes.
func (p *Pool) enter(ctx context.Context, m *member) (ticket, error) {
	opened, err := p.open(m)
	if err != nil {
		return ticket{}, err
	}
	if m.slots != nil {
		select {
		case m.slots <- struct{}{}:
		case <-opened:
			return ticket{}, p.refusal(m)
		case <-ctx.Done():
			return ticket{}, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := m.breaker.admit(p.now())
	if err != nil {
		p.leave(m)
	}
	return t, err
}

func (p *Pool) leave(m *member) {
	if m.slots != nil {
		<-m.slots
	}
}
