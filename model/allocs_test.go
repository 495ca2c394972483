package model_test

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A pass that scores and one that trains allocate nothing once they have run.
func TestTrainingAllocatesNothing(t *testing.T) {
	src := modeltest.Tiny("qwen2", 1)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 4, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	ad, err := d.LoadAdapter(pairs)
	if err != nil {
		t.Fatal(err)
	}
	g, err := d.NewGrads(ad)
	if err != nil {
		t.Fatal(err)
	}
	p := d.NewPass(model.Size{Tokens: 16, Sequences: 1, Wanted: 16, Rank: 4, Train: true})
	var b batch.Batch
	batch.Pack(&b, []batch.Sequence{{Tokens: []int32{1, 2, 3, 4, 5, 6}, Predict: []int32{1, 2, 3, 4, 5}}}, 16)
	b.Adapters = []int32{1}
	ads, logp, coef := []*model.Adapter{nil, ad}, make([]float32, 5), []float32{1, -2, 3, -4, 5}
	score := func() {
		if err := p.Load(&b, ads, nil); err != nil {
			t.Fatal(err)
		}
		p.Forward()
		if err := p.LogProbs(logp); err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		if err := p.Backward(coef, g); err != nil {
			t.Fatal(err)
		}
	}
	score()
	back()
	if n := testing.AllocsPerRun(20, score); n > 0 {
		t.Errorf("%v allocations to score", n)
	}
	score()
	if n := testing.AllocsPerRun(20, back); n > 0 {
		t.Errorf("%v allocations in Backward", n)
	}
}
