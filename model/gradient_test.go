package model_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// The gradient of Σ coef·logp by every weight (all biases and norms too), and by every element of an
// adapter, is a central difference's, in float64.
func TestGradientIsFiniteDifference(t *testing.T) {
	for _, full := range []bool{true, false} {
		for _, arch := range []string{"qwen2", "qwen3", "llama"} {
			src := modeltest.Tiny(arch, 7)
			src.Config.OutBias, src.Config.MLPBias = arch == "llama", arch == "llama"
			src.Config.QKVBias = arch != "qwen3"
			be := ref.New()
			d, err := model.Load(be, src.Config, src, model.Options{Train: full, Context: 64})
			if err != nil {
				t.Fatal(err)
			}
			var ad *model.Adapter
			if !full {
				ad = randomAdapter(t, d, 3)
			}
			for name, seqs := range map[string][]batch.Sequence{"alone": twoSequences(), "shared": group(true)} {
				if name == "shared" && arch != "qwen3" {
					continue // what they share does not depend on it
				}
				worst := finiteDifference(t, be, d, ad, seqs)
				t.Logf("%s full=%v %s: worst relative difference %.1e", arch, full, name, worst)
				if !(worst < 1e-6) {
					t.Errorf("%s full=%v %s: worst relative difference %.1e", arch, full, name, worst)
				}
			}
		}
	}
}

// randomAdapter has pairs on all projections, B not zero.
func randomAdapter(t *testing.T, d *model.Decoder, seed uint64) *model.Adapter {
	t.Helper()
	return adapterOf(t, d, weights.AdapterConfig{R: 3, Alpha: 6, Targets: weights.Targets{Names: model.Modules()}}, seed)
}

// adapterOf is the random adapter that cfg describes, B not zero.
func adapterOf(t *testing.T, d *model.Decoder, cfg weights.AdapterConfig, seed uint64) *model.Adapter {
	t.Helper()
	a, err := model.RandomAdapter(d.Config, cfg, seed)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, name := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[name]
		for i := range p.B {
			p.B[i] = float32(rng.NormFloat64()) / 4
		}
	}
	ad, err := d.LoadAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	return ad
}

func finiteDifference(t *testing.T, be kernels.Backend, d *model.Decoder, ad *model.Adapter, seqs []batch.Sequence) (worst float64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	b := packed(seqs, ad != nil)
	coef := make([]float32, len(b.Want))
	for i := range coef {
		coef[i] = float32(rng.NormFloat64())
	}
	p := d.NewPass(model.Size{Tokens: 16, Sequences: 4, Wanted: 16, Slice: 3, Rank: 3, Train: true})
	whole := d.NewPass(model.Size{Tokens: 16, Sequences: 4, Wanted: 16, Slice: 3, Rank: 3}) // one in training may have no logits
	loss := func() (s float64) {
		if err := whole.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
			t.Fatal(err)
		}
		whole.Forward()
		i := 0
		whole.Slices(func(_, n int, logits kernels.Tensor, dist kernels.Dist) {
			lp, lse := be.New(kernels.F32, n, 1), be.New(kernels.F32, n, 1)
			be.LogProb(lp, lse, logits, whole.Targets(i, n), dist)
			for r := range n {
				s += float64(coef[i]) * ref.Row(lp, r)[0]
				i++
			}
		})
		return s
	}
	if err := p.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
		t.Fatal(err)
	}
	p.Forward()
	lp := make([]float32, len(coef))
	if err := p.LogProbs(lp); err != nil {
		t.Fatal(err)
	}
	g, err := d.NewGrads(ad)
	if err != nil {
		t.Fatal(err)
	}
	g.Zero()
	if err := p.Backward(coef, g); err != nil {
		t.Fatal(err)
	}
	g.Settle()
	for _, q := range g.Params() {
		for range 6 {
			r, c := rng.IntN(q.W.Rows), rng.IntN(q.W.Cols)
			const h = 1e-5
			at := &ref.Row(q.W, r)[c]
			old := *at
			*at = old + h
			up := loss()
			*at = old - h
			down := loss()
			*at = old
			want, got := (up-down)/(2*h), ref.Row(q.G, r)[c]
			worst = max(worst, math.Abs(want-got)/(1+math.Abs(want)))
		}
	}
	return worst
}

func twoSequences() []batch.Sequence {
	return []batch.Sequence{
		{Tokens: []int32{3, 1, 4, 1, 5, 9}, Predict: []int32{2, 3, 4, 5}, Temperature: 0.7},
		{Tokens: []int32{2, 7, 1, 8, 2, 8, 1}, Predict: []int32{1, 2, 3, 5, 6}},
	}
}

// group is two completions of one prompt, a third that goes its own way earlier, and a sequence of no group. The rows of what
// they begin with are shared, or each has its own.
func group(shared bool) []batch.Sequence {
	seqs := []batch.Sequence{
		{Tokens: []int32{3, 1, 4, 1, 5, 9, 2}, Predict: []int32{4, 5, 6}, Temperature: 0.7},
		{Tokens: []int32{3, 1, 4, 1, 6}, Predict: []int32{4}, Shared: 3},
		{Tokens: []int32{3, 1, 7, 7, 2, 5}, Predict: []int32{3, 5}, Shared: 2},
		{Tokens: []int32{2, 7, 1, 8}, Predict: []int32{1, 3}},
	}
	for i := range seqs {
		if !shared {
			seqs[i].Shared = 0
		}
	}
	return seqs
}

func packed(seqs []batch.Sequence, adapted bool) *batch.Batch {
	var b batch.Batch
	batch.Pack(&b, seqs, 100)
	for range seqs {
		if adapted {
			b.Adapters = append(b.Adapters, 1)
		}
	}
	return &b
}
