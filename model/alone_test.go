package model_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A forward pass that keeps nothing has the bits of one that does; no Backward can follow it, and one that follows a
// later Forward does not see it.
func TestForwardAlone(t *testing.T) {
	for _, dev := range devices() {
		src := modeltest.Tiny("qwen3", 3)
		d, err := model.Load(dev.be, src.Config, src, model.Options{Context: 64})
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 3, Alpha: 6, Targets: weights.Targets{Names: model.Modules()}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		ad, err := d.LoadAdapter(pairs)
		if err != nil {
			t.Fatal(err)
		}
		b := packed(twoSequences(), true)
		coef := make([]float32, len(b.Want))
		for i := range coef {
			coef[i] = float32(i) - 2.5
		}
		run := func(p *model.Pass, forward func(*model.Pass)) []float32 {
			lp := make([]float32, len(b.Want))
			if err := p.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
				t.Fatal(err)
			}
			forward(p)
			if err := p.LogProbs(lp); err != nil {
				t.Fatal(err)
			}
			return lp
		}
		back := func(p *model.Pass) (all []float32) {
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
				all = append(all, read(t, dev.be, q.G)...)
			}
			return all
		}
		size := model.Size{Tokens: 16, Sequences: 2, Wanted: 16, Rank: 3, Train: true, Keep: 1}
		fresh := d.NewPass(size)
		logp := run(fresh, (*model.Pass).Forward)
		grads := back(fresh)
		p := d.NewPass(size)
		if alone := run(p, (*model.Pass).ForwardAlone); !slices.Equal(alone, logp) {
			t.Errorf("%s: log-probabilities %v, and %v where nothing is kept", dev.name, logp, alone)
		}
		if err := p.Backward(coef, nil); err == nil || !strings.Contains(err.Error(), "needs Forward") {
			t.Errorf("%s: Backward of a pass that kept nothing: %v", dev.name, err)
		}
		run(p, (*model.Pass).Forward)
		if after := back(p); !slices.Equal(after, grads) {
			t.Errorf("%s: gradients differ after a pass that kept nothing", dev.name)
		}
	}
}
