package cuda

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/weights"
)

// A stand is one decoder with an adapter, an engine that samples with it and a learner that trains it.
type stand struct {
	dec     *model.Decoder
	ad      *model.Adapter
	eng     *engine.Engine
	learner *train.Learner
}

func newStand(t *testing.T, be k.Backend, arch string, typ weights.DType) *stand {
	t.Helper()
	return newStandOf(t, be, arch, model.Options{DType: typ})
}

// newStandOf converts the matrices as the options say.
func newStandOf(t *testing.T, be k.Backend, arch string, o model.Options) *stand {
	t.Helper()
	const chunk, pageSize, pages = 16, 4, 100
	src := modeltest.Tiny(arch, 5)
	o.Context, o.Convert = 128, true
	if o.DType.Block() > 1 {
		src.Config.FFN = 64 // whole blocks
	}
	host, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 4, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range host.Pairs {
		for i := range p.B {
			p.B[i] = float32(i%7-3) / 16
		}
	}
	s := &stand{}
	attached(t, be, func() error {
		if s.dec, err = model.Load(be, src.Config, src, o); err != nil {
			return err
		}
		s.ad, err = s.dec.LoadAdapter(host)
		return err
	})
	run, err := runner.New(s.dec, model.Size{Tokens: chunk, Sequences: 8, Wanted: chunk, Slice: 5, Pages: 32, PageSize: pageSize, Rank: 4}, pages)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, s.ad)
	s.eng = engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 128, Adapters: 1,
		TokensPerStep: chunk, MaxSequences: 8})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.eng.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.learner, err = train.New(s.dec, s.ad, nil, model.Size{Tokens: 96, Sequences: 8, Wanted: 96, Slice: 11},
		train.Optimizer{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func attached(t *testing.T, be k.Backend, f func() error) {
	t.Helper()
	if err := be.Attach(); err != nil {
		t.Fatal(err)
	}
	defer be.Detach()
	if err := f(); err != nil {
		t.Fatal(err)
	}
}

// prompts are two: 19 and 20 tokens, more than an engine's step takes.
func prompts() [][]int32 {
	all := make([][]int32, 2)
	for i := range all {
		for j := range 19 + i {
			all[i] = append(all[i], int32((7*i+5*j+j*j)%90))
		}
	}
	return all
}

// An alphabet rewards a completion by its share of even tokens, and keeps what it was shown.
type alphabet struct{ seen [][]grpo.Rollout }

func (a *alphabet) Prompt(task []int32) []int32 { return task }
func (a *alphabet) Score(_ context.Context, _ [][]int32, groups [][]grpo.Rollout) error {
	for _, g := range groups {
		for i := range g {
			even := 0
			for _, id := range g[i].Tokens[g[i].Prompt:] {
				if id%2 == 0 {
					even++
				}
			}
			g[i].Reward = float32(even)
		}
	}
	a.seen = groups
	return nil
}

// learned is what a GRPO step on a device gives.
type learned struct {
	drawn [][]grpo.Rollout
	stats grpo.Stats
	after *weights.Adapter
}

func (s *stand) step(t *testing.T) learned {
	t.Helper()
	words := &alphabet{}
	tr := &grpo.Trainer[[]int32]{Config: grpo.Config{Loss: "dapo", Advantage: grpo.PerGroup, EpsilonLow: 0.2, EpsilonHigh: 0.2, KL: 0.05},
		Sampler: &rollout.Source{Engine: s.eng, Adapter: 1, Limit: 6, Temperature: 0.8, Vocab: s.dec.Config.Vocab, Seed: 3},
		Scorer:  words, Policy: s.learner, Device: s.eng, Group: 3, TokensPerBatch: 60}
	st, err := tr.Step(context.Background(), prompts(), nil, 1e-2)
	if err != nil {
		t.Fatal(err)
	}
	l := learned{drawn: words.seen, stats: st}
	attached(t, s.dec.Backend(), func() (err error) {
		l.after, err = s.dec.SaveAdapter(s.ad)
		return err
	})
	return l
}

// greedy completes the first prompt without the adapter, with each token's log-probability.
func (s *stand) greedy(t *testing.T) (ids []int32, lps []float32) {
	t.Helper()
	for e, err := range s.eng.Generate(context.Background(), engine.Request{Prompt: prompts()[0], Samples: 1, Limit: 8, Sampling: sample.Params{}}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Token.ID >= 0 {
			ids, lps = append(ids, e.Token.ID), append(lps, e.Token.LogProb)
		}
	}
	return ids, lps
}

// The whole engine on the simulated device: a tiny model generates, samples groups, scores them and takes
// a GRPO step. Sampler and trainer agree to the bit, and with the processor's answer within rounding.
func TestEngine(t *testing.T) { engineOn(t, simulated, stands...) }

// The same by the kernels of capability 9.0: what the sampler draws from logits, the trainer scores without them.
func TestEngineOnHopper(t *testing.T) {
	engineOn(t, func(t *testing.T) *Device { return simulatedAs(t, ptxsim.Options{Capability: 90}) }, stands[0],
		setting{"qwen2", weights.Q8_0})
}

func TestEngineOnGPU(t *testing.T) {
	needGPU(t).Close()
	engineOn(t, needGPU, stands...)
}

// A setting is a model's architecture and the type of its weights.
type setting struct {
	arch string
	typ  weights.DType
}

var stands = []setting{{"qwen2", weights.BF16}, {"qwen3", weights.F32}, {"llama", weights.BF16}}

func engineOn(t *testing.T, open func(*testing.T) *Device, settings ...setting) {
	for _, c := range settings {
		t.Run(c.arch+" "+c.typ.String(), func(t *testing.T) {
			gpu, host := newStand(t, open(t), c.arch, c.typ), newStand(t, cpu.New(2), c.arch, c.typ)
			ids, lps := gpu.greedy(t)
			wantIDs, wantLPs := host.greedy(t)
			if len(ids) != 8 || !slices.Equal(ids, wantIDs) || far(lps, wantLPs) > 1e-4 {
				t.Errorf("greedy: %v at %v, the processor %v at %v", ids, lps, wantIDs, wantLPs)
			}
			got, want := gpu.step(t), host.step(t)
			if got.stats.Parity != 0 || got.stats.GradNorm == 0 {
				t.Errorf("sampler and trainer differ by %g; the gradient's norm is %g", got.stats.Parity, got.stats.GradNorm)
			}
			for i, g := range got.drawn {
				for j, r := range g {
					w := want.drawn[i][j]
					if !slices.Equal(r.Tokens, w.Tokens) || far(r.LogProbs, w.LogProbs) > 1e-4 {
						t.Errorf("group %d, completion %d: %v at %v, the processor %v at %v", i, j, r.Tokens, r.LogProbs, w.Tokens, w.LogProbs)
					}
				}
			}
			if d := math.Abs(got.stats.GradNorm/want.stats.GradNorm - 1); !(d < 1e-3) {
				t.Errorf("the gradient's norm is %g, on the processor %g", got.stats.GradNorm, want.stats.GradNorm)
			}
			worst := 0.0
			for name, p := range got.after.Pairs {
				w := want.after.Pairs[name]
				worst = max(worst, share(p.A, w.A), share(p.B, w.B))
			}
			if !(worst < 0.02) {
				t.Errorf("after the step %g of some matrix's values differ from the processor's", worst)
			}
			t.Logf("log-probabilities off by %.1e, gradient's norm by %.1e, values that moved elsewhere %.2g", far(lps, wantLPs),
				got.stats.GradNorm/want.stats.GradNorm-1, worst)
		})
	}
}

// far is the largest difference.
func far(a, b []float32) (worst float64) {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

// share is how many of a's values are not b's within a hundredth of the step: AdamW's first step moves a
// value by the learning rate whichever size its gradient has, so one near zero may go the other way.
func share(a, b []float32) float64 {
	n := 0
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-4 {
			n++
		}
	}
	return float64(n) / float64(len(a))
}
