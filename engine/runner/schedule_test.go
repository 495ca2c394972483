package runner_test

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
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
	"pgregory.net/rapid"
)

// Whatever is asked of an engine of whatever size, and in whatever order it is served, each log-probability is
// to the bit what one pass over the whole text gives that knows no cache, no chunks and nobody else.
func TestRandomRuns(t *testing.T) { rapid.Check(t, newBench(t).play) }

// FuzzRuns is TestRandomRuns for as long as the fuzzer likes.
func FuzzRuns(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 { // what is drawn is drawn from these bytes: enough for several requests
		b := make([]byte, 4096)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(rapid.MakeFuzz(newBench(f).play))
}

// A bench is a model, two adapters, and a pass that scores whole texts.
type bench struct {
	d     *model.Decoder
	hosts []*weights.Adapter
	ads   []*model.Adapter
	pass  *model.Pass
}

func newBench(t testing.TB) *bench {
	src := modeltest.Tiny("qwen3", 4)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 48})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{d: d, ads: []*model.Adapter{nil}, pass: d.NewPass(model.Size{Tokens: 64, Sequences: 1, Wanted: 64, Slice: 11, Rank: 6})}
	for i, rank := range []int{3, 6} {
		b.hosts = append(b.hosts, hostAdapter(t, src.Config, rank, uint64(i)))
		ad, err := d.LoadAdapter(b.hosts[i])
		if err != nil {
			t.Fatal(err)
		}
		b.ads = append(b.ads, ad)
	}
	return b
}

// score gives the log-probability of each token of a text but the first, at a temperature.
func (b *bench) score(t *rapid.T, tokens []int32, adapter int, temperature float32) []float32 {
	s := batch.Sequence{Tokens: tokens, Temperature: temperature}
	for i := 1; i < len(tokens); i++ {
		s.Predict = append(s.Predict, int32(i))
	}
	var in batch.Batch
	batch.Pack(&in, []batch.Sequence{s}, len(tokens))
	in.Adapters = []int32{int32(adapter)}
	if err := b.pass.Load(&in, b.ads, nil); err != nil {
		t.Fatal(err)
	}
	b.pass.Forward()
	out := make([]float32, len(s.Predict))
	if err := b.pass.LogProbs(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A wish is a request and what came of it, a text a sample.
type wish struct {
	engine.Request
	content int // which adapter its number stands for
	events  [][]engine.Event
	err     error
}

func drawWish(t *rapid.T, numbers []int) *wish {
	w := &wish{content: rapid.IntRange(0, len(numbers)-1).Draw(t, "adapter")}
	w.Prompt = rapid.SliceOfN(rapid.Int32Range(0, 2), 1, 20).Draw(t, "prompt") // few ids, so that many begin alike
	w.Samples = rapid.IntRange(1, 3).Draw(t, "samples")
	w.Limit = rapid.IntRange(1, 12).Draw(t, "limit")
	w.Adapter = numbers[w.content]
	w.Raw = true
	w.PromptLogProbs = rapid.Bool().Draw(t, "scored")
	w.Priority = rapid.IntRange(0, 1).Draw(t, "priority")
	w.Stop = []int32{5, 6, 7}
	w.Sampling = sample.Params{Temperature: rapid.SampledFrom([]float32{0, 0.7, 1}).Draw(t, "temperature"), Seed: rapid.Uint64Range(0, 9).Draw(t, "seed")}
	if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		w.Sampling.TopK, w.Sampling.Presence = 5, 0.5
	}
	w.events = make([][]engine.Event, w.Samples)
	return w
}

// play serves some requests on a fresh engine and scores each text anew.
func (b *bench) play(t *rapid.T) {
	sequences := rapid.IntRange(1, 8).Draw(t, "sequences")
	tokens := rapid.IntRange(1, 40).Draw(t, "tokens a step")
	pageSize := rapid.IntRange(1, 5).Draw(t, "page size")
	pages := (32+pageSize-1)/pageSize + rapid.IntRange(0, 20).Draw(t, "pages to spare")
	run, err := runner.New(b.d, model.Size{Tokens: tokens, Sequences: sequences, Wanted: tokens, Slice: min(tokens, 5), Pages: 48, PageSize: pageSize, Rank: 6, Masks: true}, pages)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: b.d.Config.Vocab, Context: 48, TokensPerStep: tokens, MaxSequences: sequences,
		Chunk: rapid.IntRange(0, 9).Draw(t, "chunk")})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	numbers := []int{0}
	for _, h := range b.hosts {
		n, err := e.Load(ctx, run.Adapter(h))
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	wishes := make([]*wish, rapid.IntRange(1, 9).Draw(t, "requests"))
	for i := range wishes {
		wishes[i] = drawWish(t, numbers)
	}
	var wg sync.WaitGroup
	for _, w := range wishes {
		wg.Go(func() {
			for ev, err := range e.Generate(ctx, w.Request) {
				if err != nil {
					w.err = err
					return
				}
				w.events[ev.Sample] = append(w.events[ev.Sample], ev)
			}
		})
	}
	wg.Wait()
	_ = e.Exclusive(ctx, func() error { // the device is ours
		for _, w := range wishes {
			b.compare(t, w)
		}
		return nil
	})
	for _, n := range numbers[1:] {
		if err := e.Unload(n); err != nil {
			t.Error(err)
		}
	}
}

// compare scores w's texts anew.
func (b *bench) compare(t *rapid.T, w *wish) {
	if w.err != nil {
		t.Errorf("%+v: %v", w.Request, w.err)
		return
	}
	same := func(what string, have, want float32) {
		if math.Float32bits(have) != math.Float32bits(want) {
			t.Errorf("%+v: %s: %v, in one pass %v", w.Request, what, have, want)
		}
	}
	scores := 0
	for _, events := range w.events {
		text := append([]int32(nil), w.Prompt...)
		for _, ev := range events {
			text = append(text, ev.Token.ID)
		}
		raw := b.score(t, text, w.content, 1)
		warm := raw
		if w.Sampling.Temperature > 0 {
			warm = b.score(t, text, w.content, w.Sampling.Temperature)
		}
		for i, ev := range events {
			same("unmodified", ev.Token.Raw, raw[len(w.Prompt)-1+i])
			if !w.Sampling.Host() {
				same("drawn", ev.Token.LogProb, warm[len(w.Prompt)-1+i])
			}
			for j, p := range ev.Prompt {
				same("prompt", p, raw[j])
			}
			scores += len(ev.Prompt)
		}
	}
	if w.PromptLogProbs && scores != len(w.Prompt)-1 {
		t.Errorf("%d scores of a prompt of %d", scores, len(w.Prompt))
	}
}
