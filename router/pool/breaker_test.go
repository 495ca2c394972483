package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/router"
)

var broken = step{err: &router.CallError{Err: fmt.Errorf("500: %w", router.ErrBusy)}}

func overloaded() step {
	return step{err: &router.CallError{Err: fmt.Errorf("429: %w", router.ErrBusy), Overloaded: true}}
}

// once makes attempts of one call each.
func once(m *Member) { m.Retries = -1 }

// apart is between two failures, so that five of them take as long as opens a breaker.
const apart = leastTime / (mostFailures - 1)

// opens lets a member fail until its breaker opens.
func opens(t *testing.T, p *Pool) {
	t.Helper()
	for i := range mostFailures {
		if p.Breaker("m") != Closed {
			t.Fatalf("it opened after %d failures", i)
		}
		if i > 0 {
			time.Sleep(apart)
		}
		p.Complete(t.Context(), "m", ask)
	}
	if p.Breaker("m") != Open {
		t.Fatalf("it is %v after %d failures", p.Breaker("m"), mostFailures)
	}
}

// Trouble that is short does not open it, however many calls fail.
func TestBreakerLetsRetriesBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := router.CompleteFunc(func(context.Context, router.Request) (router.Completion, error) {
			if time.Since(start) < leastTime*3/4 {
				return broken.c, broken.err
			}
			return good.c, nil
		})
		p := one(t, f, Options{}, nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := p.Complete(t.Context(), "m", ask); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// What opens the breaker, and what does not: only failures in a row do.
func TestBreakerOpens(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
		after int // calls until it is open; 0: never
	}{
		{"failures", []step{broken}, 5},
		{"timeouts", []step{{takes: time.Hour}}, 5},
		{"a success between", []step{broken, broken, broken, broken, good, broken}, 10},
		{"a refusal between", []step{broken, broken, broken, broken, refused, broken}, 10},
		{"too much to do between", []step{broken, broken, broken, broken, overloaded(), broken}, 10},
		{"too much to do", []step{overloaded()}, 0},
		{"refusals", []step{refused}, 0},
		{"unusable answers", []step{{err: router.ErrAnswer}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &player{steps: c.steps}
				p := one(t, f, Options{}, once)
				var opened time.Time
				for i := range 12 {
					want := Closed
					if c.after > 0 && i >= c.after {
						want = Open
					}
					if got := p.Breaker("m"); got != want {
						t.Fatalf("after %d calls it is %v, want %v", i, got, want)
					}
					start, seen := time.Now(), len(f.at)
					_, err := p.Complete(t.Context(), "m", ask)
					made := len(f.at) - seen
					if i+1 == c.after {
						opened = time.Now()
					}
					if want == Closed && made != 1 || want == Open && (made > 0 || time.Since(start) > 0 || !errors.Is(err, router.ErrOpen)) {
						t.Fatalf("call %d: %v after %v, %d attempts", i+1, err, time.Since(start), made)
					}
					var ce *router.CallError
					if want == Open && (!errors.As(err, &ce) || ce.RetryAfter != time.Until(opened.Add(coolDown)) || ce.Attempts != 0 || !errors.Is(err, router.ErrBusy)) {
						t.Fatalf("call %d: %+v; want to be told to come again %v after %v", i+1, ce, coolDown, opened)
					}
					time.Sleep(apart)
				}
			})
		})
	}
}

// A caller that leaves says nothing of the model.
func TestBreakerIgnoresLeavers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := one(t, &player{steps: []step{{takes: time.Hour}}}, Options{}, once)
		for range 2 * mostFailures {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			p.Complete(ctx, "m", ask)
			cancel()
		}
		if got := p.Breaker("m"); got != Closed {
			t.Errorf("it is %v", got)
		}
	})
}

// After the cool-down one attempt is made, while others fail at once; its end decides.
func TestBreakerProbes(t *testing.T) {
	for _, c := range []struct {
		name string
		is   step
		want State
	}{
		{"well again", good, Closed}, {"still broken", broken, Open}, {"refuses", refused, Closed}, {"too much to do", overloaded(), Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.is.takes = time.Second
				f := &player{steps: append(slices.Repeat([]step{broken}, mostFailures), c.is)}
				p := one(t, f, Options{}, once)
				opens(t, p)
				time.Sleep(coolDown - time.Nanosecond)
				if got := p.Breaker("m"); got != Open || len(p.Available()) > 0 {
					t.Fatalf("within the cool-down: %v, available %v", got, p.Available())
				}
				time.Sleep(time.Nanosecond)
				if got := p.Breaker("m"); got != HalfOpen || len(p.Available()) != 1 {
					t.Fatalf("after the cool-down: %v, available %v", got, p.Available())
				}
				var wg sync.WaitGroup
				var refusals atomic.Int32
				for range 7 {
					wg.Go(func() {
						if _, err := p.Complete(t.Context(), "m", ask); errors.Is(err, router.ErrOpen) {
							refusals.Add(1)
						}
					})
				}
				synctest.Wait()
				if refusals.Load() != 6 || len(f.at) != mostFailures+1 || len(p.Available()) != 0 {
					t.Errorf("%d of 7 were refused, %d attempts made", refusals.Load(), len(f.at)-mostFailures)
				}
				wg.Wait()
				if got := p.Breaker("m"); got != c.want {
					t.Errorf("then it is %v, want %v", got, c.want)
				}
			})
		})
	}
}

// The one who probes may leave: then another does.
func TestBreakerProbeLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &player{steps: append(slices.Repeat([]step{broken}, mostFailures), step{takes: time.Hour}, good)}
		p := one(t, f, Options{}, once)
		opens(t, p)
		time.Sleep(coolDown)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.Complete(ctx, "m", ask)
		if got := p.Breaker("m"); got != HalfOpen {
			t.Errorf("it is %v", got)
		}
		if _, err := p.Complete(t.Context(), "m", ask); err != nil || p.Breaker("m") != Closed {
			t.Errorf("%v, then %v", err, p.Breaker("m"))
		}
	})
}

// Those who wait, for a slot or to try again, are told when the breaker opens.
func TestBreakerWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		f := router.CompleteFunc(func(ctx context.Context, _ router.Request) (router.Completion, error) {
			if calls.Add(1) == 1 { // one is there for long
				time.Sleep(50 * time.Second)
				return good.c, nil
			}
			time.Sleep(apart)
			return broken.c, broken.err
		})
		p := one(t, f, Options{Backoff: 40 * time.Second}, func(m *Member) { m.Concurrency = 2 })
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 9 {
			wg.Go(func() {
				_, err := p.Complete(t.Context(), "m", ask)
				if i > 0 && (!errors.Is(err, router.ErrOpen) || time.Since(start) != mostFailures*apart) {
					t.Errorf("call %d: %v after %v", i, err, time.Since(start))
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if n := calls.Load(); n != 1+mostFailures {
			t.Errorf("%d attempts were made", n)
		}
		// The first was begun before it opened, and its success closes nothing; the cool-down is over.
		if got := p.Breaker("m"); got != HalfOpen {
			t.Errorf("it is %v", got)
		}
	})
}

// Whatever a member does and whoever calls it: after five failures in a row and two seconds nothing is sent for the cool-down, then one
// attempt at a time, and once it is well a call after the cool-down succeeds.
func TestBreakerProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		outage := rapid.SliceOfN(rapid.IntRange(1, 40), 2, 6).Draw(rt, "seconds up and down in turn")
		callers := rapid.IntRange(1, 5).Draw(rt, "callers")
		takes := rapid.IntRange(0, 3).Draw(rt, "seconds an answer takes")
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			up := func() bool {
				d, on := int(time.Since(start)/time.Second), true
				for _, s := range outage {
					if d < s {
						return on
					}
					d, on = d-s, !on
				}
				return true
			}
			var mu sync.Mutex
			row, probes, open := 0, 0, false
			var since, openUntil time.Time
			f := router.CompleteFunc(func(context.Context, router.Request) (router.Completion, error) {
				mu.Lock()
				probe := open
				if probe {
					if probes++; probes > 1 || time.Now().Before(openUntil) {
						t.Errorf("after %v: an attempt after %d failures, %d of them at once", time.Since(start), row, probes)
					}
				}
				mu.Unlock()
				ok := up()
				time.Sleep(time.Duration(takes) * time.Second)
				mu.Lock()
				defer mu.Unlock()
				if probe {
					probes--
				}
				switch {
				case !probe && open: // it began before the breaker opened, and says nothing
				case ok:
					row, open = 0, false
				default:
					if row == 0 {
						since = time.Now()
					}
					if row++; row >= mostFailures && time.Since(since) >= leastTime {
						open, openUntil = true, time.Now().Add(coolDown)
					}
				}
				if ok {
					return good.c, nil
				}
				return broken.c, broken.err
			})
			p := one(t, f, Options{}, once)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 37 * time.Millisecond) // no two do something at one time, so the order is known
					for ctx.Err() == nil {
						p.Complete(ctx, "m", ask)
						time.Sleep(700 * time.Millisecond)
					}
				})
			}
			wg.Wait()
			time.Sleep(coolDown)
			if _, err := p.Complete(t.Context(), "m", ask); err != nil {
				t.Errorf("it is well and %v", err)
			}
		})
	})
}
