package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/r2-reasoner/r2/model/batch"
)

// adapter is one of a content, that keeps count of itself.
func (f *fake) adapter(content uint64) Adapter {
	return Adapter{
		Hash: fmt.Sprint(content),
		Install: func(slot int) error {
			if _, ok := f.contents[int32(slot)]; ok {
				return fmt.Errorf("slot %d is not free", slot)
			}
			f.contents[int32(slot)] = content
			return nil
		},
		Remove: func(slot int) { delete(f.contents, int32(slot)) },
	}
}

// Requests in flight finish on the adapter they began with, new ones get the new one; an adapter's memory
// is given back when its last request is done, and its number is not used again.
func TestSwap(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64, Adapters: 1}, 80, 4)
	ctx := t.Context()
	old, err := r.Load(ctx, r.fake.adapter(100))
	if err != nil || old != 2 {
		t.Fatal(old, err)
	}
	held := Request{Prompt: seq(0, 9), Samples: 2, Limit: 20, Sampling: warm, Adapter: old}
	gate := make(chan bool)
	r.fake.onStep = func(*batch.Batch) error {
		if r.fake.steps == 3 {
			<-gate
		}
		return nil
	}
	var got [2][]Event
	first := true
	after := 0
	for e, err := range r.Generate(ctx, held) {
		if err != nil {
			t.Fatal(err)
		}
		e.Start = nil
		got[e.Sample] = append(got[e.Sample], e)
		if !first {
			continue
		}
		first = false
		swapped := make(chan error)
		go func() {
			var err error
			after, err = r.Load(ctx, r.fake.adapter(200))
			swapped <- err
		}()
		close(gate)
		if err := <-swapped; err != nil || after != 3 {
			t.Fatal(after, err)
		}
		if err := r.Unload(old); err != nil {
			t.Fatal(err)
		}
		if _, err := r.collect(ctx, held); !errors.Is(err, ErrNoAdapter) {
			t.Errorf("a request for an unloaded adapter: %v", err)
		}
		now := held
		now.Adapter = after
		r.same(t, now, 200)
	}
	if d := cmp.Diff(r.fake.aloneAs(held, 100), got[:]); d != "" {
		t.Error(d)
	}
	within(t, "the old adapter removed", func() bool { return r.contents() == "map[3:200]" })
	failed := r.fake.adapter(300)
	failed.Install = func(int) error { return errors.New("it is torn") }
	if _, err := r.Load(ctx, failed); err == nil || !strings.Contains(err.Error(), "it is torn") {
		t.Error(err)
	}
	now := held
	now.Adapter = after
	r.same(t, now, 200)
	again, err := r.Load(ctx, r.fake.adapter(100)) // in the slot that is free, under a new number
	if err != nil || again != 4 || r.contents() != "map[2:100 3:200]" {
		t.Errorf("number %d, %v, %v", again, err, r.contents())
	}
	reused := r.Stats().Reused
	held.Adapter = again
	r.same(t, held, 100)
	if r.Stats().Reused-reused < 16 {
		t.Error("an adapter of equal content does not find its prefixes")
	}
	for _, n := range []int{0, 1, old, 99} {
		if err := r.Unload(n); err == nil {
			t.Errorf("adapter %d can be unloaded", n)
		}
	}
}

// same fails t unless the request gives what it gives alone under a content.
func (r *rig) same(t *testing.T, req Request, content uint64) {
	t.Helper()
	got, err := r.collect(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.fake.aloneAs(req, content), got); d != "" {
		t.Errorf("-alone +here:\n%s", d)
	}
}

// contents are the adapters that the fake has now.
func (r *rig) contents() (s string) {
	_ = r.call(context.Background(), &r.calls, func() error { s = fmt.Sprint(r.fake.contents); return nil })
	return s
}

// While adapters come, go and are replaced by others under the same name, each request gets what one of
// those gives that were there when it was sent, and no request gets a mixture.
func TestSwapsUnderLoad(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 48, TokensPerStep: 20, MaxSequences: 6}
	const pages, size, clients, swaps = 30, 4, 8, 60
	r := newRig(t, o, pages, size)
	var mu sync.Mutex // of what the name stands for
	var number int
	var content uint64
	swap := func(c uint64) error {
		n, err := r.Load(t.Context(), r.fake.adapter(c))
		if err != nil {
			return err
		}
		mu.Lock()
		old := number
		number, content = n, c
		mu.Unlock()
		if old == 0 {
			return nil
		}
		return r.Unload(old)
	}
	if err := swap(500); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	var wg sync.WaitGroup
	var served atomic.Int64
	for client := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(client), 3))
			for {
				select {
				case <-done:
					return
				default:
				}
				req := randomRequest(rng, o, pages*size)
				mu.Lock()
				n, c := number, content
				mu.Unlock()
				req.Adapter = n
				got, err := r.collect(t.Context(), req)
				if errors.Is(err, ErrNoAdapter) || errors.Is(err, errNothing) {
					continue
				}
				if _, bad := req.rules(o.Vocab); bad != nil {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if d := cmp.Diff(r.fake.aloneAs(req, c), got); d != "" {
					t.Errorf("-alone +here:\n%s", d)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range swaps { // each while the requests of several that came before it are under way
		for want := served.Load() + 1; served.Load() < want && !t.Failed(); {
			time.Sleep(50 * time.Microsecond)
		}
		if err := swap(500 + uint64(i*i%7)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	within(t, "all but one removed", func() bool { return strings.Count(r.contents(), ":") == 1 })
	t.Logf("%d requests, %+v", served.Load(), r.Stats())
}
