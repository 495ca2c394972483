package runner_test

import (
	"context"
	"math"
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

// What is listed beside a token is what scoring gives: its unmodified log-probability and each listed id's are,
// to the bit, those of a prompt that goes on with that id; the lists are in order, and a token's place in
// the list is its rank. Under its own distribution, the token in the list is the token drawn.
func TestBeside(t *testing.T) {
	src := modeltest.Tiny("llama", 2)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	const pageSize, pages, tokens = 4, 64, 16
	run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: 8, Wanted: tokens, Slice: 5, Pages: 16, PageSize: pageSize, Masks: true}, pages)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 64, TokensPerStep: tokens, MaxSequences: 8})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	ask := func(r engine.Request) (out []engine.Event) {
		for ev, err := range e.Generate(ctx, r) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, ev)
		}
		return out
	}
	scores := func(tokens []int32) engine.Event {
		return ask(engine.Request{Prompt: tokens, Samples: 1, PromptLogProbs: true, PromptTop: 4})[0]
	}
	prompt := []int32{5, 17, 40, 3, 88, 61}
	for name, p := range map[string]sample.Params{
		"device":   {Temperature: 1, Seed: 3},
		"tempered": {Temperature: 0.7, Seed: 4},
		"greedy":   {},
		"host":     {Temperature: 0.9, TopP: 0.8, Frequency: 0.5, Seed: 5},
	} {
		r := engine.Request{Prompt: prompt, Samples: 1, Limit: 5, Sampling: p, Top: 6, Raw: true, RawTop: 4, BadWords: [][]int32{{7}, {61}}}
		text := slices.Clone(prompt)
		for _, ev := range ask(r) {
			k := ev.Token
			text = append(text, k.ID)
			s := scores(text)
			last := len(s.Prompt) - 1
			if k.Raw != s.Prompt[last] || k.Rank != s.PromptRanks[last] || !slices.Equal(k.RawTop, s.PromptTop[last]) {
				t.Errorf("%s: %+v, scored: %v, rank %d, %v", name, k, s.Prompt[last], s.PromptRanks[last], s.PromptTop[last])
			}
			for i, o := range k.RawTop {
				if got := scores(append(slices.Clone(text[:len(text)-1]), o.ID)); o.LogProb != got.Prompt[last] || int(got.PromptRanks[last]) != i+1 {
					t.Errorf("%s: place %d is %+v, scored: %v, rank %d", name, i, o, got.Prompt[last], got.PromptRanks[last])
				}
			}
			mass := 0.0
			for i, o := range k.Top {
				mass += math.Exp(float64(o.LogProb))
				if i > 0 && o.LogProb > k.Top[i-1].LogProb || o.ID == k.ID && o.LogProb != k.LogProb || o.ID == 7 || o.ID == 61 {
					t.Errorf("%s: %d was drawn with %v from %v", name, k.ID, k.LogProb, k.Top)
				}
			}
			if len(k.Top) == 0 || mass > 1+1e-6 || p.Temperature == 0 && k.Top[0].ID != k.ID {
				t.Errorf("%s: %d was drawn from %v", name, k.ID, k.Top)
			}
		}
	}
}
