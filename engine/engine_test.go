package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// seq returns n ids from first on.
func seq(first, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32((first + i) % testVocab)
	}
	return ids
}

// outcome looks at what came of a request, and not at how it ran.
var outcome = cmpopts.IgnoreFields(Event{}, "Start")

func diff(t *testing.T, what string, alone, here []Event) {
	t.Helper()
	if d := cmp.Diff(alone, here, outcome); d != "" {
		t.Errorf("%s (-alone +here):\n%s", what, d)
	}
}

var warm = sample.Params{Temperature: 1, Seed: 5}

// want fails t unless the request gives what it gives alone.
func (r *rig) want(t *testing.T, req Request) {
	t.Helper()
	got, err := r.collect(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.fake.alone(req), got); diff != "" {
		t.Errorf("-alone +here:\n%s", diff)
	}
}

// within fails t if cond does not come true after a wait.
func within(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
	}
}

// A reader who leaves, by break or by its context, gives the pages back though the request could go on
// for long.
func TestLeaving(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 1 << 20}, 1<<16, 16)
	req := Request{Prompt: seq(0, 100), Samples: 3, Limit: 1 << 19, Sampling: warm}
	slow := func(*batch.Batch) error { time.Sleep(100 * time.Microsecond); return nil }
	r.fake.onStep = slow
	idle := func() bool { s := r.Stats(); return s.Idle == s.Pages && s.Running+s.Waiting == 0 }
	for e, err := range r.Generate(t.Context(), req) {
		if err != nil || e.Done != Running {
			t.Fatal(e, err)
		}
		break
	}
	within(t, "pages free after break", idle)

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("the line is dead")
	var last error
	for _, err := range r.Generate(ctx, req) {
		cancel(why)
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("ended with %v", last)
	}
	within(t, "pages free after cancel", idle)

	for _, err := range r.Generate(ctx, req) {
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("begun after the cancel, ended with %v", last)
	}
	within(t, "pages free", idle)
}

// A reader who does not read holds up nobody, and finds all its events when it does. What it does with the
// request's slices meanwhile is its own affair.
func TestSlowReader(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 1}, 40, 4)
	req := Request{Prompt: seq(0, 9), Samples: 2, Limit: 8, Stop: []int32{3}, Sampling: warm}
	want := r.fake.alone(req)
	changed := make(chan bool)
	r.fake.onStep = func(*batch.Batch) error {
		if r.fake.steps == 2 { // the second sample has yet to start
			<-changed
		}
		return nil
	}
	var got [2][]Event
	first := true
	for e, err := range r.Generate(t.Context(), req) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Sample] = append(got[e.Sample], e)
		if first {
			first = false
			clear(req.Prompt)
			req.Stop[0] = want[1][0].Token.ID
			close(changed)
			within(t, "all drawn", func() bool { return r.Stats().Drawn == int64(len(want[0])+len(want[1])) })
			r.want(t, Request{Prompt: seq(5, 5), Samples: 1, Limit: 5, Sampling: warm})
		}
	}
	if diff := cmp.Diff(want, got[:], outcome); diff != "" {
		t.Error(diff)
	}
}

// A failed step fails the requests that were running with its error, forgets what it may have half
// written, and leaves the others alone.
func TestStepFails(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 2}, 40, 4)
	bad := errors.New("row 3 of lm_head: NaN")
	begun, release := make(chan bool), make(chan bool)
	r.fake.onStep = func(*batch.Batch) error {
		if r.fake.steps == 3 {
			begun <- true
			<-release
			return bad
		}
		return nil
	}
	req := Request{Prompt: seq(0, 9), Samples: 2, Limit: 10, Sampling: warm}
	failed := make(chan error)
	go func() { _, err := r.collect(t.Context(), req); failed <- err }()
	<-begun
	waits := make(chan error)
	go func() {
		got, err := r.collect(t.Context(), req)
		if diff := cmp.Diff(r.fake.alone(req), got); err == nil && diff != "" {
			err = errors.New(diff)
		}
		waits <- err
	}()
	within(t, "second request queued", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.arrived) == 1 })
	close(release)
	if err := <-failed; !errors.Is(err, bad) || err.Error() != "engine: step of 2 tokens: row 3 of lm_head: NaN" {
		t.Errorf("the running one ends with %v", err)
	}
	if err := <-waits; err != nil {
		t.Errorf("the waiting one: %v", err)
	}
	if n := r.Stats().Reused; n != 2*9 {
		t.Errorf("%d tokens reused, want 18, those of each request's second sample: the failed step's pages were found", n)
	}
}

// An answer that cannot be is an error, not a token.
func TestStepAnswersWrong(t *testing.T) {
	nan := float32(math.NaN())
	for want, spoil := range map[string]func(tokens []Token) []Token{
		"1 tokens for 2 wanted rows":     func(t []Token) []Token { return t[:1] },
		"its log-probability is NaN":     func(t []Token) []Token { t[1].LogProb = nan; return t },
		"id -1, which it cannot have":    func(t []Token) []Token { t[0].ID = -1; return t },
		"id 37, which it cannot have":    func(t []Token) []Token { t[0].ID = testVocab; return t },
		"id 5 was drawn, which its form": func(t []Token) []Token { t[0].ID = 5; return t },
	} {
		o := Options{Vocab: testVocab, Context: 64}
		f := newFake(o, 10, 4)
		e := New(spoiler{f, spoil}, kvcache.New(10, 4), o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		req := Request{Prompt: seq(0, 3), Samples: 2, Limit: 2, Choices: [][]int32{{1}, {2}}, Sampling: warm}
		var last error
		for _, err := range e.Generate(t.Context(), req) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%v, want %q", last, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

type spoiler struct {
	*fake
	spoil func([]Token) []Token
}

func (s spoiler) Step(b *batch.Batch, draws []sample.Draw) ([]Token, error) {
	tokens, err := s.fake.Step(b, draws)
	return s.spoil(tokens), err
}

// queued waits until n Exclusive calls wait.
func queued(t *testing.T, e *Engine, n int) {
	t.Helper()
	within(t, fmt.Sprintf("%d calls wait", n), func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.turns) == n })
}

// arrived waits until n requests have arrived that Run has not looked at.
func arrived(t *testing.T, e *Engine, n int) {
	t.Helper()
	within(t, fmt.Sprintf("%d arrived", n), func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.arrived) == n })
}

// After a fatal error nothing waits forever.
func TestFatal(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 64, MaxSequences: 1}
	f := newFake(o, 10, 4)
	e := New(f, kvcache.New(10, 4), o)
	ends := make(chan error)
	f.onStep = func(*batch.Batch) error {
		if f.steps < 2 {
			return nil
		}
		go func() { ends <- e.Exclusive(t.Context(), func() error { return nil }) }()
		queued(t, e, 1)
		return fmt.Errorf("the card fell off the bus: %w", ErrFatal)
	}
	req := Request{Prompt: seq(0, 3), Samples: 2, Limit: 4}
	for range 3 { // one runs, two wait
		go func() {
			var last error
			for _, err := range e.Generate(t.Context(), req) {
				last = err
			}
			ends <- last
		}()
	}
	arrived(t, e, 3)
	if err := e.Run(t.Context()); !errors.Is(err, ErrFatal) {
		t.Errorf("Run: %v", err)
	}
	for range 4 {
		if err := <-ends; !errors.Is(err, ErrFatal) {
			t.Errorf("ended with %v", err)
		}
	}
	for _, err := range e.Generate(t.Context(), req) {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("afterwards: %v", err)
		}
	}
	if err := e.Exclusive(t.Context(), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("afterwards: %v", err)
	}
	if err := e.Run(t.Context()); err == nil {
		t.Error("it ran again")
	}
}

// Run ends when its context does: what has not finished ends with ErrStopped, and no page is held.
func TestRunEnds(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 1 << 20, MaxSequences: 2}, 1<<12, 16)
	ends := make(chan error)
	for range 3 {
		go func() {
			_, err := r.collect(t.Context(), Request{Prompt: seq(0, 9), Samples: 2, Limit: 1 << 14, Sampling: warm})
			ends <- err
		}()
	}
	within(t, "two run", func() bool { return r.Stats().Running == 2 })
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 3 {
		if err := <-ends; !errors.Is(err, ErrStopped) {
			t.Errorf("ended with %v", err)
		}
	}
	if s := r.Stats(); s.Idle != s.Pages || s.Running+s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// Exclusive waits for the requests that have begun, all their samples too, holds back the others, and
// can be withdrawn while it waits.
func TestExclusive(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, MaxSequences: 1}, 40, 4)
	entered, leave := make(chan bool), make(chan bool)
	r.fake.onStep = func(*batch.Batch) error { entered <- true; <-leave; return nil }
	req := Request{Prompt: seq(0, 5), Samples: 2, Limit: 2, Sampling: warm}
	ends := make(chan error, 4)
	generate := func() { _, err := r.collect(t.Context(), req); ends <- err }
	go generate()
	<-entered // its first step; the second of its samples has yet to start

	ctx, cancel := context.WithCancel(t.Context())
	go func() { ends <- r.Exclusive(ctx, func() error { t.Error("a withdrawn call ran"); return nil }) }()
	queued(t, r.Engine, 1)
	at := 0
	go func() {
		ends <- r.Exclusive(t.Context(), func() error {
			at = r.fake.steps
			if s := r.sched; len(s.running) != 0 || len(s.ready) != 0 || len(s.jobs) != 1 || s.jobs[0].started != 0 {
				t.Error("it does not have the engine for itself")
			}
			return nil
		})
	}()
	queued(t, r.Engine, 2)
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	go generate()
	arrived(t, r.Engine, 1)
	leave <- true
	for range 3 + 4 {
		<-entered
		leave <- true
	}
	for range 3 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	if at != 4 || r.fake.steps != 8 {
		t.Errorf("after step %d of %d, want 4 of 8", at, r.fake.steps)
	}
}
