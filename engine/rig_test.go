package engine

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	os.Setenv("R2_VERIFY", "1")
	goleak.VerifyTestMain(m)
}

const testVocab = 37

// A rig is an engine on a fake, running until the test ends.
type rig struct {
	*Engine
	fake *fake
	stop func() error // ends Run and returns its error
}

func newRig(t testing.TB, o Options, pages, size int) *rig {
	t.Helper()
	f := newFake(o, pages, size)
	r := &rig{fake: f, Engine: New(&line{fake: f}, kvcache.New(pages, size), o)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	return r.start(t, ctx, done)
}

func (r *rig) start(t testing.TB, ctx context.Context, done chan error) *rig {
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// prompts moves what the first event says of the prompt to the first sample, whose event may come later.
type prompts struct{ first Event }

func (p *prompts) add(out [][]Event, e Event) {
	if e.Prompt != nil {
		p.first = e
	}
	e.Prompt, e.PromptRanks, e.PromptTop = nil, nil, nil
	if e.Sample == 0 && len(out[0]) == 0 {
		e.Prompt, e.PromptRanks, e.PromptTop = p.first.Prompt, p.first.PromptRanks, p.first.PromptTop
	}
	e.Start = nil // says how it ran, not what came of it
	out[e.Sample] = append(out[e.Sample], e)
}

// collect runs a request to its end and sorts its events by sample.
func (r *rig) collect(ctx context.Context, req Request) ([][]Event, error) {
	out := make([][]Event, max(0, req.Samples))
	var p prompts
	for e, err := range r.Generate(ctx, req) {
		if err != nil {
			return out, err
		}
		p.add(out, e)
	}
	return out, nil
}

// randomRequest makes a request that fits. Prompts share beginnings, so that prefixes are found.
func randomRequest(rng *rand.Rand, o Options, room int) Request {
	room = min(room, o.Context)
	n := 1 + rng.IntN(room)
	r := Request{Samples: 1 + rng.IntN(4), Adapter: rng.IntN(o.Adapters + 1)}
	family := rng.IntN(3)
	for i := range n {
		id := int32((family*7 + i*5) % o.Vocab)
		if rng.IntN(40) == 0 {
			id = int32(rng.IntN(o.Vocab))
		}
		r.Prompt = append(r.Prompt, id)
	}
	r.Limit = rng.IntN(room - n + 1)
	r.PromptLogProbs = rng.IntN(3) == 0
	if r.Limit == 0 {
		r.PromptLogProbs, r.Samples = true, 1
	}
	for range rng.IntN(3) {
		r.Stop = append(r.Stop, int32(rng.IntN(o.Vocab)))
	}
	r.Sampling = sample.Params{Temperature: []float32{0, 0.5, 1, 1.5}[rng.IntN(4)], Seed: rng.Uint64()}
	switch rng.IntN(4) {
	case 0:
		r.Sampling.TopK = 1 + rng.IntN(6)
	case 1:
		r.Sampling.TopP = 0.7
	}
	if r.Limit > 1 && rng.IntN(3) == 0 {
		r.Stop = []int32{int32(o.Vocab - 1)}
		for range 1 + rng.IntN(4) {
			c := make([]int32, 1+rng.IntN(min(r.Limit, 4)))
			for i := range c {
				c[i] = int32(rng.IntN(4))
			}
			r.Choices = append(r.Choices, c)
		}
	}
	randomWishes(rng, o, &r)
	return r
}

// randomWishes adds some of what a request may ask for besides.
func randomWishes(rng *rand.Rand, o Options, r *Request) {
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(rng.IntN(o.Vocab))
		}
		return out
	}
	if rng.IntN(4) == 0 {
		r.Priority = rng.IntN(3) - 1
	}
	if rng.IntN(6) == 0 {
		r.Salt = "salt"
	}
	if rng.IntN(4) == 0 {
		r.Sampling.Repetition, r.Sampling.Presence, r.Sampling.Frequency = 1+rng.Float64(), rng.Float64()-0.5, rng.Float64()
		r.Sampling.Bias = []sample.Bias{{ID: ids(1)[0], Add: 4}}
	}
	if rng.IntN(5) == 0 {
		r.Allowed = ids(9)
	}
	if rng.IntN(5) == 0 {
		r.BadWords = [][]int32{ids(1), ids(2), ids(3), {3, 3}}
	}
	if r.Choices == nil && rng.IntN(5) == 0 {
		r.MinTokens = rng.IntN(r.Limit + 1)
	}
	if rng.IntN(4) == 0 {
		r.Top, r.RawTop, r.Raw = rng.IntN(4), rng.IntN(4), rng.IntN(2) == 0
	}
	if r.PromptLogProbs && rng.IntN(2) == 0 {
		r.PromptTop, r.PromptRanks = rng.IntN(3), rng.IntN(2) == 0
	}
}
