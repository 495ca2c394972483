package runner_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

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

// A cell of the grid is a way to run some requests.
type cell struct {
	requests, chunk                 int
	cached, adapters, preempted     bool
	spoiled                         bool // one value is made wrong
	pages, sequences, tokensPerStep int
}

// gated is a runner whose first step waits, so that all requests are there when it is planned again; it
// remembers the largest batch.
type gated struct {
	*runner.Runner
	gate    chan bool
	most    int
	spoiled bool
	slow    bool
}

func (g *gated) Step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	<-g.gate
	if g.slow { // so that the urgent one comes in time
		time.Sleep(200 * time.Microsecond)
	}
	g.most = max(g.most, b.Sequences())
	tokens, err := g.Runner.Step(b, draws)
	if g.spoiled && err == nil && len(tokens) > 6 {
		tokens[6].LogProb = math.Nextafter32(tokens[6].LogProb, 0)
		g.spoiled = false
	}
	return tokens, err
}

// A grid is a model and what each of its requests gives alone.
type grid struct {
	d       *model.Decoder
	ads     []*model.Adapter
	context int
	length  func(i int) int // of a prompt
	limit   int
	rank    int
	alone   map[string][]uint32
}

const gridPage = 4

func (g *grid) request(i int, adapters bool) engine.Request {
	r := engine.Request{Samples: 1, Limit: g.limit, Adapter: 1, PromptLogProbs: i%2 == 0, Raw: i%5 == 0}
	if i%11 == 2 {
		r.Top, r.RawTop, r.PromptTop = 3, 2, 2*(1-i%2)
	}
	if adapters {
		r.Adapter = i % len(g.ads)
	}
	for j := range g.length(i) {
		id := (7*(i%5) + 5*j + j*j) % 90 // five families, whose members begin alike
		if j > 6 {
			id = (id + i) % 90
		}
		r.Prompt = append(r.Prompt, int32(id))
	}
	switch r.Sampling = (sample.Params{Temperature: 0.9, Seed: uint64(i)}); i % 7 {
	case 3:
		r.Sampling.TopP = 0.9
	case 4:
		r.Sampling.Repetition, r.Sampling.Frequency = 1.2, 0.3
	case 5:
		r.Sampling.Temperature = 0
	case 6:
		r.BadWords = [][]int32{{3}, {5, 6}}
	}
	return r
}

// bits is all that came of a request.
func bits(e *engine.Engine, r engine.Request, began func()) (out []uint32, err error) {
	for ev, err := range e.Generate(context.Background(), r) {
		if err != nil {
			return nil, err
		}
		began()
		for _, p := range ev.Prompt {
			out = append(out, math.Float32bits(p))
		}
		out = append(out, uint32(ev.Token.ID), math.Float32bits(ev.Token.LogProb), math.Float32bits(ev.Token.Raw))
		for _, list := range append(ev.PromptTop, ev.Token.Top, ev.Token.RawTop) {
			for _, o := range list {
				out = append(out, uint32(o.ID), math.Float32bits(o.LogProb))
			}
		}
	}
	return out, nil
}

// open makes an engine for a cell.
func (g *grid) open(t *testing.T, c cell) (*engine.Engine, *gated, func()) {
	t.Helper()
	size := model.Size{Tokens: c.tokensPerStep, Sequences: c.sequences, Wanted: c.tokensPerStep, Slice: min(c.tokensPerStep, 64),
		Pages: (g.context + gridPage - 1) / gridPage, PageSize: gridPage, Rank: g.rank, Masks: true}
	run, err := runner.New(g.d, size, c.pages)
	if err != nil {
		t.Fatal(err)
	}
	for i, ad := range g.ads[1:] {
		run.SetAdapter(i+1, ad)
	}
	s := &gated{Runner: run, gate: make(chan bool), spoiled: c.spoiled, slow: c.preempted && c.requests < 3}
	e := engine.New(s, kvcache.New(c.pages, gridPage), engine.Options{Vocab: g.d.Config.Vocab, Context: g.context,
		Adapters: len(g.ads) - 1, TokensPerStep: c.tokensPerStep, MaxSequences: c.sequences, Chunk: c.chunk})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	return e, s, func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// fill computes what each request gives alone, from nothing, in one piece.
func (g *grid) fill(t *testing.T, requests int, adapters ...bool) {
	g.alone = map[string][]uint32{}
	e, s, stop := g.open(t, cell{pages: 64, sequences: 1, tokensPerStep: 64})
	defer stop()
	close(s.gate)
	for _, mixed := range adapters {
		for i := range requests {
			r := g.request(i, mixed)
			r.Salt = fmt.Sprint(i, mixed)
			out, err := bits(e, r, func() {})
			if err != nil {
				t.Fatal(err)
			}
			g.alone[fmt.Sprint(i, mixed)] = out
		}
	}
}

// run plays a cell and returns how many values differ from those alone, of how many, the largest batch and
// how many sequences gave way.
func (g *grid) run(t *testing.T, c cell) (differ, of, most int, preempted int64) {
	e, s, stop := g.open(t, c)
	defer stop()
	rounds := 1
	if c.cached {
		rounds = 2
	}
	var once sync.Once
	for round := range rounds {
		got := make([][]uint32, c.requests)
		var wg, here sync.WaitGroup
		here.Add(c.requests)
		var intrude sync.Once
		for i := range got {
			wg.Go(func() {
				r := g.request(i, c.adapters)
				if !c.cached {
					r.Salt = fmt.Sprint(i)
				}
				here.Done()
				var err error
				got[i], err = bits(e, r, func() {
					if !c.preempted {
						return
					}
					intrude.Do(func() { // an urgent one comes, and takes most of the pages
						wg.Go(func() {
							r := engine.Request{Prompt: prompts(1, g.context-9)[0], Samples: 1, Limit: 1, Priority: -1}
							if _, err := bits(e, r, func() {}); err != nil {
								t.Error(err)
							}
						})
					})
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		here.Wait()
		time.Sleep(time.Millisecond)
		once.Do(func() { close(s.gate) })
		wg.Wait()
		for i, values := range got {
			want := g.alone[fmt.Sprint(i, c.adapters)]
			of += len(want)
			for j, w := range want {
				if j >= len(values) || values[j] != w {
					differ++
				}
			}
		}
		if st := e.Stats(); c.cached && round == 1 && !c.preempted && st.Reused == 0 {
			t.Errorf("%+v: nothing was found in the cache", c)
		}
	}
	preempted = e.Stats().Preempted
	return differ, of, s.most, preempted
}

// What comes of a request, its tokens and all log-probabilities, is the same to the bit alone and among
// others, with its prefix from the cache or not, in chunks of any size, beside other adapters or not, and
// preempted or not.
func TestGrid(t *testing.T) {
	t.Setenv("R2_VERIFY", "1")
	all := 1 << 20
	for _, arch := range []string{"qwen2", "qwen3", "llama"} {
		src := modeltest.Tiny(arch, 2)
		d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
		if err != nil {
			t.Fatal(err)
		}
		g := &grid{d: d, ads: []*model.Adapter{nil, adapter(t, d, 4, 1), adapter(t, d, 7, 2)}, rank: 7, context: 64, limit: 5,
			length: func(i int) int { return 9 + i%11 }}
		counts := []int{1, 2, 7, 44, 256}
		if arch != "qwen3" || testing.Short() {
			counts = []int{1, 7, 44}
		}
		last := counts[len(counts)-1]
		g.fill(t, last, false, true)
		cells, differ, of, most := 0, 0, 0, 0
		gave := map[int]int64{}
		for _, n := range counts {
			for _, chunk := range []int{1, 16, 64, all} {
				for way := range 8 {
					c := cell{requests: n, chunk: chunk, cached: way&1 > 0, adapters: way&2 > 0, preempted: way&4 > 0}
					c.sequences, c.tokensPerStep, c.pages = max(n, 2), max(64, n+40), 7*max(n, 4)
					if c.preempted {
						c.pages = 17 + n/8*3
					}
					bad, values, batch, preempted := g.run(t, c)
					if bad > 0 {
						t.Errorf("%s: %+v: %d of %d values differ", arch, c, bad, values)
					}
					cells, differ, of, most = cells+1, differ+bad, of+values, max(most, batch)
					if c.preempted {
						gave[n] += preempted
					}
				}
			}
			if gave[n] == 0 {
				t.Errorf("%s: %d requests: nobody gave way", arch, n)
			}
		}
		if bad, _, _, _ := g.run(t, cell{requests: 7, spoiled: true, pages: 64, sequences: 7, tokensPerStep: 64}); bad != 1 {
			t.Errorf("%s: one value was changed by one unit in the last place, %d are seen to differ", arch, bad)
		}
		t.Logf("%s: %d cells, %d of %d values differ; up to %d sequences in a batch; gave way: %v", arch, cells, differ, of, most, gave)
		if most < last {
			t.Errorf("%s: at most %d of %d sequences were in a batch", arch, most, last)
		}
	}
}

// The same of SmolLM2-135M as it is stored, with an adapter that was trained elsewhere.
func TestGridSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds of a larger model")
	}
	dir := []string{"models", "smollm2-135m-instruct"}
	files, err := weights.Open(modeltest.Shared(t, append(dir, "SmolLM2-135M-Instruct.Q4_1.gguf")...))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	d, err := model.Load(cpu.New(2), files.Config, files, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	host, err := weights.OpenAdapter(modeltest.Shared(t, append(dir, "adapter")...))
	if err != nil {
		t.Fatal(err)
	}
	ad, err := d.LoadAdapter(host)
	if err != nil {
		t.Fatal(err)
	}
	g := &grid{d: d, ads: []*model.Adapter{nil, ad}, rank: ad.Rank, context: 64, limit: 3, length: func(i int) int { return 8 + i%4 }}
	cells := []cell{
		{requests: 7, chunk: 1},
		{requests: 7, chunk: 16, cached: true},
		{requests: 7, chunk: 3, preempted: true},
	}
	if most, err := strconv.Atoi(os.Getenv("R2_GRID")); err == nil { // requests
		cells = nil
		for _, n := range []int{1, 2, 7, 44, 256} {
			if n > most {
				break
			}
			for _, chunk := range []int{1, 16, 64, 1 << 20} {
				for way := range 4 {
					cells = append(cells, cell{requests: n, chunk: chunk, cached: way&1 > 0, preempted: way&2 > 0})
				}
			}
		}
	}
	g.fill(t, cells[len(cells)-1].requests, true)
	differ, of := 0, 0
	for _, c := range cells {
		c.adapters, c.sequences, c.tokensPerStep, c.pages = true, max(c.requests, 2), max(64, c.requests+40), 7*max(c.requests, 9)
		if c.preempted {
			c.pages = 17 + c.requests/8*3
		}
		bad, values, most, preempted := g.run(t, c)
		if differ, of = differ+bad, of+values; bad > 0 || c.requests >= 7 && c.preempted != (preempted > 0) {
			t.Errorf("%+v: %d of %d values differ, %d gave way", c, bad, values, preempted)
		}
		t.Logf("%3d requests, chunks of %d, cached %v, preempted %v: %d of %d values differ; up to %d sequences in a batch", c.requests, c.chunk, c.cached, c.preempted, bad, values, most)
	}
	t.Logf("%d of %d values differ", differ, of)
}
