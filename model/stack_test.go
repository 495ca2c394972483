package model_test

import (
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// apart is a device that takes a product of several pairs at once as one product for each pair, of rank 3.
type apart struct {
	kernels.Backend
	joined int // products that it took apart
}

func (d *apart) MatMul(c, a, b kernels.Tensor, g kernels.Gemm) {
	const rank = 3
	stack := b.Rows // of x·Aᵀ, and of dlow·A
	if g.TransA {
		stack = a.Cols // of dlowᵀ·x
	}
	if stack != 2*rank && stack != 3*rank {
		d.Backend.MatMul(c, a, b, g)
		return
	}
	d.joined++
	for i := 0; i < stack; i += rank {
		switch {
		case g.TransB:
			d.Backend.MatMul(c.Columns(i, rank), a, b.Slice(i, rank), g)
		case g.TransA:
			d.Backend.MatMul(c.Slice(i, rank), a.Columns(i, rank), b, g)
		default:
			d.Backend.MatMul(c, a.Columns(i, rank), b.Slice(i, rank), g)
		}
	}
}

// One product for the pairs of one input gives the bits of one for each pair.
func TestStackedPairsAreEqualBits(t *testing.T) {
	split := &apart{Backend: cpu.New(2)}
	one, each := backward(t, cpu.New(2), false, group(true), 100, room), backward(t, split, false, group(true), 100, room)
	if want := 2 * 2 * 4; split.joined != want { // two layers; queries, keys and values, gate and up; forward, again, dA, dx
		t.Fatalf("%d products were of several pairs, want %d", split.joined, want)
	}
	if !slices.Equal(one.logp, each.logp) {
		t.Errorf("log-probabilities %v, pair by pair %v", one.logp, each.logp)
	}
	for name, g := range one.grads {
		if !slices.Equal(g, each.grads[name]) {
			t.Errorf("the gradient of %s is not that of pair by pair", name)
		}
	}
}

// Pairs with ranks and scales of their own, and modules without one, have gradients of finite differences; and α is
// what B is multiplied with.
func TestPairsOfSeveralRanksAndScales(t *testing.T) {
	src := modeltest.Tiny("qwen2", 7)
	be := ref.New()
	d, err := model.Load(be, src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	cfg := weights.AdapterConfig{R: 3, Alpha: 6,
		Targets:      weights.Targets{Names: []string{"q_proj", "k_proj", "v_proj", "up_proj", "down_proj"}},
		RankPattern:  []weights.Pattern{{Key: "k_proj", Value: 2}, {Key: "down_proj", Value: 1}},
		AlphaPattern: []weights.Pattern{{Key: "layers.1.self_attn.v_proj", Value: 12}, {Key: "k_proj", Value: 4}, {Key: "down_proj", Value: 1}},
	}
	ad := adapterOf(t, d, cfg, 3)
	if worst := finiteDifference(t, be, d, ad, group(true)); !(worst < 1e-6) {
		t.Errorf("worst relative difference %.1e", worst)
	}
	logp := func(d *model.Decoder, a *weights.Adapter) []float32 {
		ad, err := d.LoadAdapter(a)
		if err != nil {
			t.Fatal(err)
		}
		p, b := d.NewPass(room), packed(group(true), true)
		if err := p.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
			t.Fatal(err)
		}
		p.Forward()
		out := make([]float32, len(b.Want))
		if err := p.LogProbs(out); err != nil {
			t.Fatal(err)
		}
		d.FreeAdapter(ad)
		return out
	}
	fast, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.SaveAdapter(ad)
	if err != nil {
		t.Fatal(err)
	}
	uneven := logp(fast, a)
	for name, p := range a.Pairs { // a power of two: B takes it without rounding
		for i := range p.B {
			p.B[i] *= float32(p.Scale)
		}
		p.Scale = 1
		a.Pairs[name] = p
	}
	if even := logp(fast, a); !slices.Equal(uneven, even) {
		t.Errorf("log-probabilities %v; with the scales in B %v", uneven, even)
	}
}
