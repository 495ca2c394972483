package cpu

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A task is work that a team does. Every member that comes along calls work once, at the same time as
// the others, and work takes pieces off the task (from an atomic counter, say) until none is left: so
// the caller's own work ends only when every piece is taken, whether others came or not. What a piece
// computes must not depend on the worker.
type task interface {
	work(worker int) // 0 is the caller, others 1 … size-1
}

// A team is the caller of run and size-1 goroutines that wait for its tasks: spinning at first, since
// the operations of a forward pass follow each other closely, then parked.
type team struct {
	size    int
	spin    bool // there is a processor for everyone
	task    task
	state   atomic.Uint64 // number of the task << 32 | closed | members at work besides the caller
	members []member
	caller  sleeper
	stopped atomic.Bool
}

const (
	closed    = 1 << 31 // the caller found nothing left to do: nobody may join
	atWork    = closed - 1
	spinTime  = 100 * time.Microsecond
	spinBurst = 64 // pauses between two looks at the clock
)

// A member is a waiting goroutine. Each has cache lines of its own.
type member struct {
	sleeper
	_ [cacheLine]byte
}

// newTeam starts size-1 goroutines.
func newTeam(size int) *team {
	t := &team{size: size, spin: size <= runtime.GOMAXPROCS(0), members: make([]member, size)}
	t.state.Store(closed)
	t.caller.wake = make(chan struct{}, 1)
	for i := 1; i < size; i++ {
		t.members[i].wake = make(chan struct{}, 1)
		go t.member(i)
	}
	return t
}

// run does tk, with the help of the members that come along, and returns when it is done.
func (t *team) run(tk task) {
	if t.size == 1 {
		tk.work(0)
		return
	}
	t.task = tk
	t.state.Store((t.state.Load()>>32 + 1) << 32)
	for i := 1; i < t.size; i++ {
		t.members[i].rouse()
	}
	tk.work(0)
	t.state.Or(closed)
	t.caller.await(t.spin, func() bool { return t.state.Load()&atWork == 0 })
	t.task = nil
}

// member waits for tasks and joins those still open.
func (t *team) member(i int) {
	var seen uint64 // number of the last task looked at
	for !t.stopped.Load() {
		s := t.state.Load()
		switch {
		case s>>32 == seen:
			t.members[i].await(t.spin, func() bool { return t.state.Load()>>32 != seen || t.stopped.Load() })
		case s&closed != 0:
			seen = s >> 32
		case t.state.CompareAndSwap(s, s+1):
			seen = s >> 32
			t.task.work(i)
			if t.state.Add(^uint64(0))&(closed|atWork) == closed {
				t.caller.rouse()
			}
		}
	}
}

// stop ends the goroutines, when they are done with what they do. It may be called twice.
func (t *team) stop() {
	t.stopped.Store(true)
	for i := 1; i < t.size; i++ {
		t.members[i].rouse()
	}
}

// A sleeper is a goroutine that waits for a condition which others make true and then rouse it.
type sleeper struct {
	parked atomic.Bool
	wake   chan struct{} // of capacity 1: rouse does not block
}

// await returns when ready, which only looks at atomics, is true.
func (s *sleeper) await(spin bool, ready func() bool) {
	if spin {
		for start := time.Now(); time.Since(start) < spinTime; runtime.Gosched() {
			for range spinBurst {
				if ready() {
					return
				}
				pause()
			}
		}
	}
	for !ready() {
		s.parked.Store(true)
		// rouse may have come before parked was seen: look again before sleeping.
		if ready() && s.parked.CompareAndSwap(true, false) {
			return
		}
		<-s.wake
	}
}

// rouse wakes the goroutine if it is parked. The condition must be true before.
func (s *sleeper) rouse() {
	if s.parked.Load() && s.parked.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// A spanTask is work on the indices 0 … n-1 of something, in pieces of neighbours.
type spanTask interface {
	span(lo, hi, worker int)
}

// share has t.span called for pieces of at most grain indices that together are 0 … n-1. One piece is
// done by the caller alone: waking others costs microseconds.
func (d *Device) share(n, grain int, t spanTask) {
	if n <= grain || d.team.size == 1 {
		if n > 0 {
			t.span(0, n, 0)
		}
		return
	}
	d.spans.of, d.spans.n, d.spans.grain = t, n, grain
	d.spans.begin(ceilDiv(n, grain), d.team.size)
	d.run(&d.spans)
	d.spans.of = nil
}

// spans is a spanTask under way.
type spans struct {
	of       spanTask
	n, grain int
	claims
}

func (s *spans) work(worker int) {
	for {
		i, ok := s.claim(worker)
		if !ok {
			return
		}
		s.of.span(i*s.grain, min((i+1)*s.grain, s.n), worker)
	}
}

// A prelude is a spanTask that all who work on a task do first, together: nobody goes on before all of it is done.
type prelude struct {
	of         spanTask
	n, grain   int
	next, done atomic.Int64
}

func (p *prelude) begin(of spanTask, n, grain int) {
	p.of, p.n, p.grain = of, n, grain
	p.next.Store(0)
	p.done.Store(0)
}

func (p *prelude) work(worker int) {
	pieces := int64(ceilDiv(p.n, p.grain))
	for p.next.Load() < pieces {
		i := int(p.next.Add(1) - 1)
		if lo := i * p.grain; lo < p.n {
			p.of.span(lo, min(lo+p.grain, p.n), worker)
			p.done.Add(1)
		}
	}
	for looks := 1; p.done.Load() < pieces; looks++ {
		if pause(); looks%spinBurst == 0 {
			runtime.Gosched()
		}
	}
}

// claims hands out 0 … n-1 to workers: to each neighbours of its own, the same in every call of one n, and
// when those are gone what others have left. So what a worker comes to lies behind what it had before, and its
// caches hold what they held when it last did the same.
type claims struct {
	n      int
	shares []share
}

// A share is the first that nobody has taken of the neighbours meant for a worker.
type share struct {
	next atomic.Int64
	_    [cacheLine - 8]byte
}

func (c *claims) begin(n, workers int) {
	if len(c.shares) != workers {
		c.shares = make([]share, workers)
	}
	c.n = n
	for w := range c.shares {
		c.shares[w].next.Store(int64(n * w / workers))
	}
}

func (c *claims) claim(worker int) (i int, ok bool) {
	workers := len(c.shares)
	for j := range workers {
		w := (worker + j) % workers
		s, end := &c.shares[w], int64(c.n*(w+1)/workers)
		if s.next.Load() < end {
			if i := s.next.Add(1) - 1; i < end {
				return int(i), true
			}
		}
	}
	return 0, false
}
