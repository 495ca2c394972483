package runner_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A step of decoding, with adapters, masks and one row whose logits come to the host, allocates nothing.
func TestStepAllocatesNothing(t *testing.T) {
	src := modeltest.Tiny("qwen2", 1)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	const pageSize, n = 4, 6
	run, err := runner.New(d, model.Size{Tokens: 16, Sequences: n, Wanted: 16, Slice: 4, Pages: 8, PageSize: pageSize, Rank: 4, Masks: true}, 64)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, adapter(t, d, 4, 1))
	words := (src.Config.Vocab + 31) / 32
	b := &batch.Batch{Starts: []int32{0}}
	draws := make([]sample.Draw, n)
	for s := range int32(n) {
		b.Tokens, b.Positions, b.Slots = append(b.Tokens, s+3), append(b.Positions, 5), append(b.Slots, 8*s+5)
		b.Starts, b.Lengths, b.Pages = append(b.Starts, s+1), append(b.Lengths, 6), append(b.Pages, []int32{2 * s, 2*s + 1})
		b.Adapters, b.Want, b.Temperatures = append(b.Adapters, s/3), append(b.Want, s), append(b.Temperatures, 0.8)
		draws[s] = sample.Draw{Params: sample.Params{Temperature: 0.8, Seed: 1}, Step: 2}
		for range words {
			b.Masks = append(b.Masks, 1<<32-1)
		}
	}
	draws[2].TopK = 5
	step := func() {
		if _, err := run.Step(b, draws); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if allocs := testing.AllocsPerRun(50, step); allocs > 0 {
		t.Errorf("%v allocations a step", allocs)
	}
}

// hostAdapter is one of random pairs on all projections.
func hostAdapter(t *testing.T, c weights.Config, rank int, seed uint64) *weights.Adapter {
	t.Helper()
	a, err := model.RandomAdapter(c, weights.AdapterConfig{R: rank, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, seed)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		for i := range p.B {
			p.B[i] = float32(rng.NormFloat64()) / 8
		}
	}
	return a
}

// adapter takes one to the device.
func adapter(t *testing.T, d *model.Decoder, rank int, seed uint64) *model.Adapter {
	t.Helper()
	ad, err := d.LoadAdapter(hostAdapter(t, d.Config, rank, seed))
	if err != nil {
		t.Fatal(err)
	}
	return ad
}

// What a request gets is the same to the bit alone and among others of other adapters of other ranks, and
// the log-probabilities of a prompt are the same in one piece and in chunks. (A prompt to be scored is computed whole: it takes no prefix from the cache.)
func TestMixedAdaptersAndScores(t *testing.T) {
	t.Setenv("R2_VERIFY", "1")
	src := modeltest.Tiny("qwen3", 2)
	be := cpu.New(2)
	d, err := model.Load(be, src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	ads := []*model.Adapter{nil, adapter(t, d, 4, 1), adapter(t, d, 7, 2)}
	open := func(tokens int) *engine.Engine {
		const pageSize, pages = 4, 256
		run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: 16, Wanted: tokens, Slice: 5, Pages: 16, PageSize: pageSize, Rank: 7}, pages)
		if err != nil {
			t.Fatal(err)
		}
		run.SetAdapter(1, ads[1])
		run.SetAdapter(2, ads[2])
		e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 64, Adapters: 2, TokensPerStep: tokens, MaxSequences: 16})
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
	ask := func(e *engine.Engine, i int) (out []engine.Token, scores []float32) {
		prompt := prompts(12, 23)[i]
		r := engine.Request{Prompt: prompt, Samples: 1, Limit: 8, Adapter: i % 3, PromptLogProbs: i%2 == 0,
			Sampling: sample.Params{Temperature: 0.9, Seed: uint64(i)}}
		for ev, err := range e.Generate(context.Background(), r) {
			if err != nil {
				t.Error(err)
				return
			}
			out = append(out, ev.Token)
			if ev.Prompt != nil {
				scores = ev.Prompt
			}
		}
		return out, scores
	}
	type answer struct {
		tokens []engine.Token
		scores []float32
	}
	alone := make([]answer, 12)
	first := open(64)
	for i := range alone {
		alone[i].tokens, alone[i].scores = ask(first, i)
	}
	for _, tokens := range []int{16, 37, 128} {
		e := open(tokens)
		for range 2 { // the second time prefixes are in the cache
			got := make([]answer, len(alone))
			done := make(chan int)
			for i := range got {
				go func() {
					got[i].tokens, got[i].scores = ask(e, i)
					done <- i
				}()
			}
			for range got {
				<-done
			}
			for i := range got {
				if !reflect.DeepEqual(got[i].tokens, alone[i].tokens) || !slices.Equal(got[i].scores, alone[i].scores) {
					t.Fatalf("steps of %d tokens: request %d differs from what it is alone", tokens, i)
				}
			}
		}
	}
}
