package runner_test

import (
	"context"
	"iter"
	"math"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// metered is a runner that takes a step when it is told to.
type metered struct {
	*runner.Runner
	turns chan struct{}
}

func (m metered) Step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	<-m.turns
	return m.Runner.Step(b, draws)
}

// Once requests run, nothing is allocated from the plan of a step to the reader's events: with adapters,
// masks, penalties, raw log-probabilities and truncation on the host.
func TestEngineAllocatesNothing(t *testing.T) {
	t.Setenv("R2_VERIFY", "0")
	src := modeltest.Tiny("qwen3", 2)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 512})
	if err != nil {
		t.Fatal(err)
	}
	const pageSize, pages, tokens = 4, 1024, 16
	run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: 8, Wanted: tokens, Slice: 5, Pages: 128, PageSize: pageSize, Rank: 4, Masks: true}, pages)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, adapter(t, d, 4, 1))
	m := metered{run, make(chan struct{})}
	e := engine.New(m, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 512, Adapters: 1, TokensPerStep: tokens, MaxSequences: 8})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	defer func() { stop(); <-done }()
	warmed := make(chan struct{})
	go func() {
		for {
			select {
			case m.turns <- struct{}{}:
			case <-warmed:
				return
			}
		}
	}()
	// The longest text there can be makes the device's scratch as large as it gets.
	for _, err := range e.Generate(ctx, engine.Request{Prompt: make([]int32, 511), Samples: 1, Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var requests []func() (engine.Event, error, bool)
	for i := range 6 {
		r := engine.Request{Prompt: []int32{5, int32(i), 40}, Samples: 1, Limit: 400, Adapter: i % 2, Raw: i == 1, Sampling: sample.Params{Temperature: 0.9, Seed: uint64(i)}}
		switch i {
		case 2:
			r.BadWords = [][]int32{{3}, {4, 5}}
		case 3:
			r.Sampling.TopP, r.Sampling.Repetition = 0.9, 1.1
		}
		next, end := iter.Pull2(e.Generate(ctx, r))
		defer end()
		requests = append(requests, next)
	}
	step := func() {
		for _, next := range requests {
			if _, err, ok := next(); err != nil || !ok {
				t.Fatal(err, ok)
			}
		}
	}
	step()
	warmed <- struct{}{}
	const steps = 40
	least := math.Inf(1) // buffers that wait for readers, and the runtime's own, may grow once more
	for range 4 {
		least = min(least, testing.AllocsPerRun(1, func() { // once to warm up, once counted
			for range steps {
				m.turns <- struct{}{}
				step()
			}
		}))
	}
	if least != 0 {
		t.Errorf("at least %v allocations in %d steps", least, steps)
	}
	close(m.turns)
}
