package model_test

import (
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// trained is what training on sequences gives: their log-probabilities, and the gradients of Σ coef·logp by
// the parameters' names.
type trained struct {
	logp  []float32
	grads map[string][]float32
}

var room = model.Size{Tokens: 64, Sequences: 8, Wanted: 64, Slice: 3, Rank: 3, Train: true}

// backward trains a tiny Qwen3 on the sequences in passes of at most limit tokens.
func backward(t *testing.T, be kernels.Backend, full bool, seqs []batch.Sequence, limit int, size model.Size) trained {
	t.Helper()
	src := modeltest.Tiny("qwen3", 5)
	d, err := model.Load(be, src.Config, src, model.Options{Train: full, Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	var ad *model.Adapter
	if !full {
		ad = randomAdapter(t, d, 3)
	}
	g, err := d.NewGrads(ad)
	if err != nil {
		t.Fatal(err)
	}
	p := d.NewPass(size)
	out := trained{grads: map[string][]float32{}}
	for len(seqs) > 0 {
		var b batch.Batch
		seqs = seqs[batch.Pack(&b, seqs, limit):]
		for range b.Lengths {
			if !full {
				b.Adapters = append(b.Adapters, 1)
			}
		}
		if err := p.Load(&b, []*model.Adapter{nil, ad}, nil); err != nil {
			t.Fatal(err)
		}
		p.Forward()
		logp, coef := make([]float32, len(b.Want)), make([]float32, len(b.Want))
		if err := p.LogProbs(logp); err != nil {
			t.Fatal(err)
		}
		for i := range coef {
			coef[i] = float32(len(out.logp)+i)/8 - 0.4
		}
		out.logp = append(out.logp, logp...)
		if err := p.Backward(coef, g); err != nil {
			t.Fatal(err)
		}
	}
	g.Settle()
	for _, q := range g.Params() {
		out.grads[q.Name] = read(t, be, q.G)
	}
	return out
}

// A prompt whose rows serve all its completions changes no bit of a log-probability, and a gradient only as the
// order of a sum does; and however passes are cut, between groups, the gradient is the same bits.
func TestSharedPromptsChangeNothing(t *testing.T) {
	for _, full := range []bool{false, true} {
		apart, exact := backward(t, cpu.New(2), full, group(false), 100, room), backward(t, ref.New(), full, group(false), 100, room)
		together := backward(t, cpu.New(2), full, group(true), 100, room)
		if !slices.Equal(apart.logp, together.logp) {
			t.Errorf("full=%v: log-probabilities %v, apart %v", full, together.logp, apart.logp)
		}
		worst := 0.0
		for name, want := range exact.grads {
			worst = max(worst, difference(together.grads[name], wide(want)))
		}
		t.Logf("full=%v: %d gradients, worst difference from float64's of sequences apart %.1e of a tensor's largest", full, len(exact.grads), worst)
		if !(worst < 1e-5) {
			t.Errorf("full=%v: worst difference %.1e", full, worst)
		}
		for _, limit := range []int{1, 9} {
			cut := backward(t, cpu.New(2), full, group(true), limit, room)
			for name, want := range together.grads {
				if !slices.Equal(cut.grads[name], want) {
					t.Errorf("full=%v: passes of %d tokens change bits of %s", full, limit, name)
				}
			}
		}
	}
}

// What is kept of a forward pass, layers or logits, changes no bit of a gradient.
func TestKeptActivationsChangeNothing(t *testing.T) {
	for _, full := range []bool{false, true} {
		want := backward(t, cpu.New(2), full, group(true), 9, room)
		for _, keep := range []int{1, 2} {
			size := room
			size.Keep, size.Slice = keep, 64
			got := backward(t, cpu.New(2), full, group(true), 9, size)
			for name, g := range want.grads {
				if !slices.Equal(got.grads[name], g) {
					t.Errorf("full=%v, %d layers kept: bits of %s change", full, keep, name)
				}
			}
		}
	}
}
