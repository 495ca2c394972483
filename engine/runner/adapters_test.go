package runner_test

import (
	"context"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
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
