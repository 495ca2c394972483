package bench

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// slow answers with tokens, the first after first and the others each after between; at most one at a time when
// it is alone.
type slow struct {
	first, between time.Duration
	fail           func(n int) bool

	alone chan struct{} // room for one
	mu    sync.Mutex
	asked []router.Request
}

func (s *slow) Stream(_ context.Context, r router.Request) iter.Seq2[router.Delta, error] {
	return func(yield func(router.Delta, error) bool) {
		s.mu.Lock()
		s.asked = append(s.asked, r)
		n := len(s.asked)
		s.mu.Unlock()
		if s.fail != nil && s.fail(n) {
			yield(router.Delta{}, errors.New("full"))
			return
		}
		if s.alone != nil {
			s.alone <- struct{}{}
			defer func() { <-s.alone }()
		}
		wait := s.first
		for range r.Limit {
			time.Sleep(wait)
			if wait = s.between; !yield(router.Delta{Text: "x"}, nil) {
				return
			}
		}
		yield(router.Delta{Done: &router.Completion{In: 10, Out: r.Limit}}, nil)
	}
}

func near(got float64, want time.Duration) bool {
	return got > want.Seconds()*0.999 && got < want.Seconds()*1.001
}

// On a clock that only sleeping moves, what is measured is what was slept.
func TestServeMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{first: 300 * time.Millisecond, between: 20 * time.Millisecond}
		r, err := Serve(t.Context(), s, Traffic{Requests: 12, Clients: 4, Prompt: 20, Prefix: 5, Tokens: 11}, nil)
		if err != nil {
			t.Fatal(err)
		}
		// three turns of 300 + 10·20 ms
		if !near(r.Seconds, 1500*time.Millisecond) || !near(r.First.P99, 300*time.Millisecond) || !near(r.Between.P50, 20*time.Millisecond) ||
			!near(r.Whole.P95, 500*time.Millisecond) || r.Out != 132 || r.In != 120 || !near(r.Reached, 88*time.Second) {
			t.Errorf("%+v", r)
		}
		words := map[string]bool{}
		for _, q := range s.asked {
			words[q.Messages[0].Content] = true
		}
		if len(words) != 12 {
			t.Errorf("%d different prompts of 12", len(words))
		}
	})
}

// In an open loop a service that does one thing at a time falls behind, and the waiting counts.
func TestServeOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{first: time.Second, alone: make(chan struct{}, 1)}
		r, err := Serve(t.Context(), s, Traffic{Requests: 40, Rate: 10, Prompt: 1, Tokens: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		// forty seconds of work come within some four
		if r.Seconds < 40 || r.First.P99 < 30 || r.First.P50 < 10 {
			t.Errorf("%+v", r)
		}
	})
}

// Failures are counted, not hidden; when nothing is answered, that is the error.
func TestServeFailures(t *testing.T) {
	s := &slow{fail: func(n int) bool { return n%2 == 0 }}
	r, err := Serve(t.Context(), s, Traffic{Requests: 10, Clients: 1, Prompt: 3, Tokens: 2}, nil)
	if err != nil || r.Failed != 5 || r.Error != "full" {
		t.Errorf("%+v, %v", r, err)
	}
	s.fail = func(int) bool { return true }
	if _, err := Serve(t.Context(), s, Traffic{Requests: 3, Clients: 1, Prompt: 3, Tokens: 2}, nil); err == nil {
		t.Error("no error when all fail")
	}
	for _, bad := range []Traffic{{}, {Requests: 1, Prompt: 1, Tokens: 1}, {Requests: 1, Clients: 1, Prompt: 1, Prefix: 2, Tokens: 1}} {
		if _, err := Serve(t.Context(), s, bad, nil); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestSpread(t *testing.T) {
	var x []float64
	for i := range 100 {
		x = append(x, float64(100-i))
	}
	if got, want := spread(slices.Clone(x)), (Spread{50, 95, 99}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := spread([]float64{7}); got != (Spread{7, 7, 7}) {
		t.Errorf("of one: %v", got)
	}
}
