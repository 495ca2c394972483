package runner_test

import (
	"context"
	"math"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/weights"
)

// A stand is one decoder with an adapter, an engine that samples with it and a learner that trains it.
type stand struct {
	d       *model.Decoder
	ad      *model.Adapter
	host    *weights.Adapter
	eng     *engine.Engine
	learner *train.Learner
}

// seen is the pair whose value the test changes by one unit in the last place.
const seen = "model.layers.1.mlp.down_proj"

// newStand makes one on a device; chunk is the tokens of an engine's step.
func newStand(t *testing.T, be kernels.Backend, arch string, o model.Options, chunk, sequences int) *stand {
	t.Helper()
	src := modeltest.Tiny(arch, 5)
	if o.Convert && o.DType.Block() > 1 {
		src.Config.FFN = 64 // whole blocks
	}
	o.Context = 128
	d, err := model.Load(be, src.Config, src, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{d: d}
	s.host, err = model.RandomAdapter(src.Config, weights.AdapterConfig{R: 4, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.host.Pairs {
		for i := range p.B {
			p.B[i] = float32(i%7-3) / 16
		}
	}
	s.host.Pairs[seen].B[1] = 8 // its last place is above that of what it is added to
	if s.ad, err = d.LoadAdapter(s.host); err != nil {
		t.Fatal(err)
	}
	const pageSize, pages = 4, 400
	size := model.Size{Tokens: chunk, Sequences: sequences, Wanted: chunk, Slice: 5, Pages: 32, PageSize: pageSize, Rank: 4}
	run, err := runner.New(d, size, pages)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, s.ad)
	s.eng = engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: src.Config.Vocab, Context: 128, Adapters: 1,
		TokensPerStep: chunk, MaxSequences: sequences})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.eng.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.learner, err = train.New(d, s.ad, nil, model.Size{Tokens: 256, Sequences: 64, Wanted: 256, Slice: 11},
		train.Optimizer{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parity samples groups and gives the largest difference between the sampler's log-probabilities and
// those of the very pass that Backward uses, cut into batches of at most micro tokens.
func (s *stand) parity(t *testing.T, prompts [][]int32, n, micro int) float64 {
	t.Helper()
	src := &rollout.Source{Engine: s.eng, Adapter: 1, Limit: 12, Temperature: 0.8, Vocab: s.d.Config.Vocab, Seed: 3}
	groups, err := src.Sample(context.Background(), prompts, n)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	err = s.eng.Exclusive(context.Background(), func() error {
		var seqs []batch.Sequence
		var old []float32
		for _, g := range groups {
			for _, r := range g {
				seqs = append(seqs, sequence(r))
				old = append(old, r.LogProbs...)
			}
		}
		for len(seqs) > 0 {
			var b batch.Batch
			seqs = seqs[batch.Pack(&b, seqs, micro):]
			lp, err := s.learner.LogProbs(&b)
			if err != nil {
				return err
			}
			for i, x := range lp {
				worst = max(worst, math.Abs(float64(x)-float64(old[i])))
			}
			old = old[len(lp):]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return worst
}

func sequence(r grpo.Rollout) batch.Sequence {
	s := batch.Sequence{Tokens: r.Tokens, Temperature: r.Temperature}
	for p := r.Prompt; p < len(r.Tokens); p++ {
		s.Predict = append(s.Predict, int32(p))
	}
	return s
}

func prompts(n, length int) [][]int32 {
	var ps [][]int32
	for i := range n {
		p := make([]int32, length+i%3)
		for j := range p {
			p[j] = int32((7*i + 5*j + j*j) % 90)
		}
		ps = append(ps, p)
	}
	return ps
}

// What the trainer computes of a rollout equals what the sampler drew it with, to the bit, with the
// adapter on: alone or among others, with the prompt in one piece or in chunks, with the prefix from
// the cache or not. One adapter value changed by one unit in the last place is seen.
func TestParity(t *testing.T) {
	for _, dev := range []kernels.Backend{cpu.New(2), ref.New()} {
		counts := []int{1, 2, 7, 16}
		if dev.Name() == "ref" { // which takes its time
			counts = []int{1, 5}
		}
		for _, arch := range []string{"qwen2", "qwen3", "llama"} {
			for _, chunk := range []int{16, 64} {
				s := newStand(t, dev, arch, model.Options{}, chunk, 16)
				for _, n := range counts {
					for pass := range 2 { // the second finds its prefixes in the cache
						if d := s.parity(t, prompts(n, 19), 2, 40+60*pass); d != 0 {
							t.Errorf("%s %s: chunks of %d, %d prompts, pass %d: largest difference %g, want 0", dev.Name(), arch, chunk, n, pass, d)
						}
					}
				}
				if d := s.parityAfter(t, func(v float32) float32 { return math.Nextafter32(v, 9) }); d == 0 {
					t.Errorf("%s %s: an adapter value changed by one ulp after sampling changed nothing", dev.Name(), arch)
				}
			}
		}
	}
}

// The same holds where rows are rounded before they meet a frozen matrix, and where that is quantised: sampler
// and trainer read it alike, and pairs of float32 are trained over it.
func TestParityOfRoundedActivations(t *testing.T) {
	for _, o := range []model.Options{
		{Convert: true, DType: weights.BF16, Acts: kernels.BF16},
		{Convert: true, DType: weights.Q8_0, Acts: kernels.I8},
		{Convert: true, DType: weights.Q4_0, Acts: kernels.I8},
		{Convert: true, DType: weights.Q4_0},
	} {
		for _, dev := range []kernels.Backend{cpu.New(2), ref.New()} {
			s := newStand(t, dev, "qwen3", o, 16, 16)
			for _, n := range []int{1, 16} {
				if d := s.parity(t, prompts(n, 19), 2, 60); d != 0 {
					t.Errorf("%s, %v: %d prompts: largest difference %g, want 0", dev.Name(), o, n, d)
				}
			}
			if d := s.parityAfter(t, func(v float32) float32 { return v + 1 }); d == 0 { // rounding hides an ulp
				t.Errorf("%s, %v: an adapter value changed after sampling changed nothing", dev.Name(), o)
			}
		}
	}
}

// parityAfter samples, then changes one value of the adapter, then compares.
func (s *stand) parityAfter(t *testing.T, change func(float32) float32) float64 {
	t.Helper()
	src := &rollout.Source{Engine: s.eng, Adapter: 1, Limit: 12, Temperature: 0.8, Vocab: s.d.Config.Vocab, Seed: 4}
	groups, err := src.Sample(context.Background(), prompts(4, 19), 2)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	err = s.eng.Exclusive(context.Background(), func() error {
		p := s.host.Pairs[seen]
		p.B[1] = change(p.B[1])
		if err := s.d.SetAdapter(s.ad, s.host); err != nil {
			return err
		}
		for _, g := range groups {
			for _, r := range g {
				var b batch.Batch
				batch.Pack(&b, []batch.Sequence{sequence(r)}, 256)
				lp, err := s.learner.LogProbs(&b)
				if err != nil {
					return err
				}
				for i, x := range lp {
					worst = max(worst, math.Abs(float64(x)-float64(r.LogProbs[i])))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return worst
}
