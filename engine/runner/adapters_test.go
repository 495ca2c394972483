package runner_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A request is served by the adapter it names: among others it gets what an engine that has that adapter
// and no other gives, and three policies score one prompt in three ways.
func TestRequestsGetTheirAdapter(t *testing.T) {
	src := modeltest.Tiny("qwen3", 2)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	ads := []*model.Adapter{nil, adapter(t, d, 4, 1), adapter(t, d, 7, 2)}
	open := func(ads ...*model.Adapter) *engine.Engine {
		const pageSize, pages, tokens = 4, 64, 64
		run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: 8, Wanted: tokens, Slice: 5, Pages: 16, PageSize: pageSize, Rank: 7}, pages)
		if err != nil {
			t.Fatal(err)
		}
		for i, ad := range ads {
			run.SetAdapter(i+1, ad)
		}
		e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 64, Adapters: len(ads), TokensPerStep: tokens, MaxSequences: 8})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return e
	}
	score := func(e *engine.Engine, ad int) (out []float32) {
		r := engine.Request{Prompt: []int32{5, 17, 40, 3, 88, 61}, Samples: 1, Limit: 6, Adapter: ad, PromptLogProbs: true, Sampling: sample.Params{Temperature: 0.9, Seed: 3}}
		for ev, err := range e.Generate(context.Background(), r) {
			if err != nil {
				t.Error(err)
				return nil
			}
			out = append(append(out, ev.Prompt...), float32(ev.Token.ID), ev.Token.LogProb)
		}
		return out
	}
	want := [][]float32{score(open(), 0), score(open(ads[1]), 1), score(open(ads[2]), 1)}
	for i, w := range want {
		if next := want[(i+1)%3]; len(w) < 5+2*6 || slices.Equal(w[:5], next[:5]) {
			t.Fatalf("policies %d and %d score alike: %v, %v", i, (i+1)%3, w, next)
		}
	}
	both := open(ads[1], ads[2])
	got := make([][]float32, 9)
	done := make(chan bool)
	for i := range got {
		go func() {
			got[i] = score(both, i%3)
			done <- true
		}()
	}
	for range got {
		<-done
	}
	for i, g := range got {
		if !slices.Equal(g, want[i%3]) {
			t.Errorf("request %d of adapter %d: %v, want %v", i, i%3, g, want[i%3])
		}
	}
}

// counting knows how many tensors there are.
type counting struct {
	kernels.Backend
	live int
}

func (c *counting) New(t kernels.DType, rows, cols int) kernels.Tensor {
	c.live++
	return c.Backend.New(t, rows, cols)
}

func (c *counting) Free(t kernels.Tensor) {
	c.live--
	c.Backend.Free(t)
}

// An adapter that comes while requests run serves as one that was there from the start, beside another of
// another rank; one of too large a rank, or of another model, is refused; and its memory goes when it
// does.
func TestLoadAndUnload(t *testing.T) {
	src := modeltest.Tiny("qwen3", 2)
	be := &counting{Backend: cpu.New(2)}
	d, err := model.Load(be, src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	hosts := []*weights.Adapter{hostAdapter(t, src.Config, 4, 1), hostAdapter(t, src.Config, 7, 2)}
	const pageSize, pages, tokens = 4, 64, 64
	open := func(fixed ...*weights.Adapter) (*runner.Runner, *engine.Engine) {
		run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: 8, Wanted: tokens, Slice: 5, Pages: 16, PageSize: pageSize, Rank: 7}, pages)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range fixed {
			ad, err := d.LoadAdapter(a)
			if err != nil {
				t.Fatal(err)
			}
			run.SetAdapter(i+1, ad)
		}
		e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 64, Adapters: len(fixed), TokensPerStep: tokens, MaxSequences: 8})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
		return run, e
	}
	ask := func(e *engine.Engine, ad int) (out []float32) {
		r := engine.Request{Prompt: []int32{5, 17, 40, 3, 88, 61}, Samples: 2, Limit: 6, Adapter: ad, PromptLogProbs: true, Sampling: sample.Params{Temperature: 0.9, Seed: 3}}
		lines := make([][]float32, 2)
		for ev, err := range e.Generate(context.Background(), r) {
			if err != nil {
				t.Error(err)
				return nil
			}
			lines[ev.Sample] = append(append(lines[ev.Sample], ev.Prompt...), float32(ev.Token.ID), ev.Token.LogProb)
		}
		return slices.Concat(lines...)
	}
	_, fixed := open(hosts...)
	want := [][]float32{ask(fixed, 0), ask(fixed, 1), ask(fixed, 2)}
	run, e := open()
	before := be.live
	numbers := []int{0}
	for _, h := range hosts {
		n, err := e.Load(t.Context(), run.Adapter(h))
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	got := make([][]float32, 9)
	done := make(chan bool)
	for i := range got {
		go func() {
			got[i] = ask(e, numbers[i%3])
			done <- true
		}()
	}
	for range got {
		<-done
	}
	for i, g := range got {
		if !slices.Equal(g, want[i%3]) {
			t.Errorf("request %d: %v, want %v", i, g, want[i%3])
		}
	}
	if _, err := e.Load(t.Context(), run.Adapter(hostAdapter(t, src.Config, 8, 3))); err == nil || !strings.Contains(err.Error(), "rank 8") || !strings.Contains(err.Error(), "up to 7") {
		t.Error(err)
	}
	other := modeltest.Tiny("qwen2", 2).Config
	other.Hidden *= 2
	if _, err := e.Load(t.Context(), run.Adapter(hostAdapter(t, other, 4, 3))); err == nil || !strings.Contains(err.Error(), "another model") {
		t.Error(err)
	}
	for _, n := range numbers[1:] {
		if err := e.Unload(n); err != nil {
			t.Error(err)
		}
	}
	ask(e, 0) // a step later
	_ = e.Exclusive(t.Context(), func() error {
		if be.live != before {
			t.Errorf("%d tensors, %d before the adapters came", be.live, before)
		}
		return nil
	})
	if a, b := run.Adapter(hosts[0]).Hash, run.Adapter(hosts[1]).Hash; a == b || a != run.Adapter(hostAdapter(t, src.Config, 4, 1)).Hash {
		t.Errorf("hashes %s, %s", a, b)
	}
	p := hosts[0].Pairs["model.layers.0.self_attn.q_proj"]
	hash := run.Adapter(hosts[0]).Hash
	p.A[0] = math.Nextafter32(p.A[0], 1)
	if run.Adapter(hosts[0]).Hash == hash {
		t.Error("a value of an adapter changed, its hash did not")
	}
}
