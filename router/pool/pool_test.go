package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A step is what a fake model does at one attempt.
type step struct {
	c     router.Completion
	err   error
	takes time.Duration
}

// A player plays its steps, the last one for ever, and keeps when each attempt came.
type player struct {
	mu    sync.Mutex
	steps []step
	at    []time.Time
}

func (f *player) Complete(ctx context.Context, _ router.Request) (router.Completion, error) {
	f.mu.Lock()
	s := f.steps[min(len(f.at), len(f.steps)-1)]
	f.at = append(f.at, time.Now())
	f.mu.Unlock()
	select {
	case <-time.After(s.takes):
		return s.c, s.err
	case <-ctx.Done():
		return router.Completion{}, ctx.Err()
	}
}

// gaps are the waits between attempts.
func (f *player) gaps() (out []time.Duration) {
	for i := 1; i < len(f.at); i++ {
		out = append(out, f.at[i].Sub(f.at[i-1]))
	}
	return out
}

func busy(after time.Duration, worked bool) step {
	return step{err: &router.CallError{Err: fmt.Errorf("429: %w", router.ErrBusy), RetryAfter: after, Worked: worked}}
}

var (
	good    = step{c: router.Completion{Text: "yes", In: 10, Out: 2}}
	refused = step{err: &router.CallError{Err: fmt.Errorf("400: %w", router.ErrRefused)}}
)

// one is a pool of one member, m, whose tokens cost 3 and 5.
func one(t *testing.T, f router.Completer, o Options, change func(*Member)) *Pool {
	m := Member{Card: router.Card{Name: "m", Rank: 1, Price: router.Price{Input: 3, Output: 5}}, Completer: f}
	if change != nil {
		change(&m)
	}
	p, err := New([]Member{m}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var ask = router.Request{Messages: []router.Message{{Role: "user", Content: "really?"}}, Limit: 100}

func TestRetries(t *testing.T) {
	within := func(lo, hi time.Duration) func(time.Duration) bool {
		return func(d time.Duration) bool { return lo <= d && d <= hi }
	}
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		steps []step
		waits []func(time.Duration) bool
		is    error // nil: success
	}{
		{"at once", []step{good}, nil, nil},
		{"busy, then good", []step{busy(0, false), good}, []func(time.Duration) bool{within(250*ms, 500*ms)}, nil},
		{"waits double", []step{busy(0, false)},
			[]func(time.Duration) bool{within(250*ms, 500*ms), within(500*ms, 1000*ms), within(1000*ms, 2000*ms)}, router.ErrBusy},
		{"waits as long as it asks", []step{busy(7*time.Second, false), good}, []func(time.Duration) bool{within(7*time.Second, 7*time.Second)}, nil},
		{"not for too long", []step{busy(time.Hour, false), good}, nil, router.ErrBusy},
		{"refused", []step{refused, good}, nil, router.ErrRefused},
		{"unusable", []step{{err: router.ErrAnswer}, good}, nil, router.ErrAnswer},
		{"busy, then refused", []step{busy(0, false), refused}, []func(time.Duration) bool{within(250*ms, 500*ms)}, router.ErrRefused},
		{"timeout, then good", []step{{takes: time.Hour}, good}, []func(time.Duration) bool{within(60*time.Second+250*ms, 60*time.Second+500*ms)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &player{steps: c.steps}
				got, err := one(t, f, Options{}, nil).Complete(t.Context(), "m", ask)
				if !errors.Is(err, c.is) {
					t.Fatalf("error %v, want %v", err, c.is)
				}
				gaps := f.gaps()
				if len(gaps) != len(c.waits) {
					t.Fatalf("waits %v, want %d of them", gaps, len(c.waits))
				}
				for i, ok := range c.waits {
					if !ok(gaps[i]) {
						t.Errorf("wait %d is %v", i+1, gaps[i])
					}
				}
				var ce *router.CallError
				if c.name == "not for too long" && (!errors.As(err, &ce) || ce.RetryAfter != time.Hour) {
					t.Errorf("the wait it asks for is lost: %+v", ce)
				}
				if err == nil && got.Attempts != len(f.at) || err != nil && (!errors.As(err, &ce) || ce.Attempts != len(f.at)) {
					t.Errorf("%d attempts were made; told %d, %+v", len(f.at), got.Attempts, ce)
				}
			})
		})
	}
}

// The jitter is a function of the seed.
func TestJitterSeed(t *testing.T) {
	waits := func(seed uint64) (out []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			f := &player{steps: []step{busy(0, false)}}
			one(t, f, Options{Seed: seed}, nil).Complete(t.Context(), "m", ask)
			out = f.gaps()
		})
		return out
	}
	if a, b := waits(1), waits(1); !slices.Equal(a, b) {
		t.Errorf("seed 1 waits %v, then %v", a, b)
	}
	if a, b := waits(1), waits(2); slices.Equal(a, b) {
		t.Errorf("seeds 1 and 2 both wait %v", a)
	}
}

func TestDelayIsBounded(t *testing.T) {
	p := one(t, &player{}, Options{}, nil)
	for n := range 200 {
		if d := p.delay(n + 1); d <= 0 || d > longest {
			t.Fatalf("after %d attempts: %v", n+1, d)
		}
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &player{steps: []step{busy(30*time.Second, false)}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := one(t, f, Options{}, nil).Complete(ctx, "m", ask)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, router.ErrBusy) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &player{steps: []step{{takes: time.Hour}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := one(t, f, Options{}, nil).Complete(ctx, "m", ask)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, router.ErrBusy) || len(f.at) != 1 {
			t.Errorf("%d attempts: %v; the caller's own end is not a reason to retry", len(f.at), err)
		}
	})
}

func TestConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		f := router.CompleteFunc(func(context.Context, router.Request) (router.Completion, error) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
			return good.c, nil
		})
		p := one(t, f, Options{}, func(m *Member) { m.Concurrency = 3; m.Timeout = 1500 * time.Millisecond })
		start := time.Now()
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				if _, err := p.Complete(t.Context(), "m", ask); err != nil {
					t.Error(err) // waiting for a slot is not part of the timeout
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 || time.Since(start) != 4*time.Second {
			t.Errorf("%d at once, %v for 12 calls; want 3, 4s", most.Load(), time.Since(start))
		}
	})
}

// What failed attempts may have cost is counted at its most; what a server refused to work on costs nothing.
func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &player{steps: []step{busy(0, false), busy(0, true), good}}
		p := one(t, f, Options{}, nil)
		worst := p.Models()[0].Worst(ask)
		c, err := p.Complete(t.Context(), "m", ask)
		if err != nil {
			t.Fatal(err)
		}
		want := worst + 10*3 + 2*5
		if c.Cost != want || p.Spent() != want {
			t.Errorf("cost %d, spent %d, want %d", c.Cost, p.Spent(), want)
		}
		if _, err := p.Complete(t.Context(), "m", ask); err != nil {
			t.Fatal(err)
		}
		acc := []Account{{Model: "m", Calls: 2, Attempts: 4, In: 20, Out: 4, Cost: want + 40, Uncertain: worst}}
		if diff := cmp.Diff(acc, p.Accounts()); diff != "" {
			t.Error(diff)
		}
	})
}

// A server that does not say what it used is paid at the bound.
func TestUnknownUsage(t *testing.T) {
	p := one(t, &player{steps: []step{{c: router.Completion{Text: "yes"}}}}, Options{}, nil)
	c, err := p.Complete(t.Context(), "m", ask)
	if worst := p.Models()[0].Worst(ask); err != nil || c.Cost != worst {
		t.Errorf("cost %d, %v; want %d", c.Cost, err, worst)
	}
}

func TestBudgetOfZero(t *testing.T) {
	f := &player{steps: []step{good}}
	p := one(t, f, Options{Budget: new(router.Money(0))}, nil)
	if _, err := p.Complete(t.Context(), "m", ask); !errors.Is(err, router.ErrBudget) || len(f.at) != 0 {
		t.Errorf("%d attempts, %v; want none", len(f.at), err)
	}
	p = one(t, f, Options{Budget: new(router.Money(0))}, func(m *Member) { m.Price = router.Price{} })
	if _, err := p.Complete(t.Context(), "m", ask); err != nil {
		t.Errorf("a free model within a budget of nothing: %v", err)
	}
}

// However calls overlap and fail, the money truly used never passes the budget, and spent is never below it.
func TestBudgetIsHard(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		prices := rapid.SliceOfN(rapid.Int64Range(0, 1000), 2, 2).Draw(rt, "prices")
		budget := router.Money(rapid.Int64Range(0, 2_000_000).Draw(rt, "budget"))
		type plan struct {
			out   int
			fails bool
			lost  bool // the answer, on the way
			takes int
		}
		plans := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) plan {
			return plan{rapid.IntRange(1, 50).Draw(rt, "out"), rapid.Bool().Draw(rt, "fails"), rapid.Bool().Draw(rt, "lost"), rapid.IntRange(0, 3).Draw(rt, "takes")}
		}), 1, 60).Draw(rt, "calls")
		synctest.Test(t, func(t *testing.T) {
			var used, next atomic.Int64
			price := router.Price{Input: router.Rate(prices[0]), Output: router.Rate(prices[1])}
			var p *Pool
			f := router.CompleteFunc(func(context.Context, router.Request) (router.Completion, error) {
				s := plans[int(next.Add(1)-1)%len(plans)]
				time.Sleep(time.Duration(s.takes) * time.Second)
				if s.fails && !s.lost {
					return busy(0, false).c, busy(0, false).err
				}
				c := router.Completion{In: 64, Out: s.out}
				if n := used.Add(int64(price.Cost(c.In, c.Out))); n > int64(budget) {
					t.Errorf("%d used of %d", n, budget)
				}
				if s.fails {
					return router.Completion{}, busy(0, true).err
				}
				return c, nil
			})
			p = one(t, f, Options{Budget: &budget}, func(m *Member) { m.Price = price })
			var wg sync.WaitGroup
			for range plans {
				wg.Go(func() {
					_, err := p.Complete(t.Context(), "m", router.Request{Limit: 50})
					if err != nil && !errors.Is(err, router.ErrBudget) && !errors.Is(err, router.ErrBusy) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if s := p.Spent(); s > budget || int64(s) < used.Load() {
				t.Errorf("spent %d, used %d, budget %d", s, used.Load(), budget)
			}
			if p.held != 0 {
				t.Errorf("%d still held when all is done", p.held)
			}
		})
	})
}

func TestNewRefuses(t *testing.T) {
	ok := Member{Card: router.Card{Name: "m"}, Completer: &player{}}
	for _, c := range []struct {
		ms  []Member
		err string
	}{
		{[]Member{{Completer: &player{}}}, "no name"},
		{[]Member{{Card: router.Card{Name: "m"}}}, "nothing to send"},
		{[]Member{ok, ok}, `two members are named "m"`},
		{[]Member{{Card: router.Card{Name: "m", Limit: -1}, Completer: &player{}}}, "negative"},
	} {
		if _, err := New(c.ms, Options{}); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v, want %q", err, c.err)
		}
	}
	p, err := New([]Member{ok}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Complete(t.Context(), "other", ask); !errors.Is(err, router.ErrRefused) {
		t.Errorf("a model that is not there: %v", err)
	}
}

func TestModelsByRank(t *testing.T) {
	var ms []Member
	for _, r := range []int{3, 1, 2} {
		ms = append(ms, Member{Card: router.Card{Name: fmt.Sprint(r), Rank: r}, Completer: &player{}})
	}
	p, err := New(ms, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range p.Models() {
		if c.Rank != i+1 || c.Limit != defaultLimit {
			t.Errorf("place %d: %+v", i, c)
		}
	}
}
