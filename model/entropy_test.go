package model_test

import (
	"math"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// Entropies are those of the distributions that the logits stand for, temperatures and masks included, and asking
// for them changes no log-probability.
func TestEntropies(t *testing.T) {
	for _, dev := range devices() {
		src := modeltest.Tiny("llama", 2)
		d, err := model.Load(dev.be, src.Config, src, model.Options{Context: 64})
		if err != nil {
			t.Fatal(err)
		}
		b := packed(twoSequences(), false)
		words := (src.Config.Vocab + 31) / 32
		for i, target := range b.Targets { // the target, and every third id
			mask := make([]uint32, words)
			for id := range src.Config.Vocab {
				if id%3 == i%3 || id == int(target) {
					mask[id/32] |= 1 << (id % 32)
				}
			}
			b.Masks = append(b.Masks, mask...)
		}
		p := d.NewPass(model.Size{Tokens: 16, Sequences: 2, Wanted: 16, Slice: 4, Masks: true, Train: true})
		if err := p.Load(b, []*model.Adapter{nil}, nil); err != nil {
			t.Fatal(err)
		}
		p.Forward()
		n := len(b.Want)
		logp, with, got := make([]float32, n), make([]float32, n), make([]float32, n)
		if err := p.LogProbs(logp); err != nil {
			t.Fatal(err)
		}
		if err := p.Distributions(with, got); err != nil || !slices.Equal(logp, with) {
			t.Fatalf("%s: log-probabilities %v and with entropies %v, %v", dev.name, logp, with, err)
		}
		whole := d.NewPass(model.Size{Tokens: 16, Sequences: 2, Wanted: 16, Slice: 4, Masks: true}) // one in training may have no logits
		if err := whole.Load(b, []*model.Adapter{nil}, nil); err != nil {
			t.Fatal(err)
		}
		whole.Forward()
		whole.Slices(func(first, rows int, logits kernels.Tensor, _ kernels.Dist) {
			x := read(t, dev.be, logits)
			for i := range rows {
				row := first + i
				var weights []float64
				sum, want := 0.0, 0.0
				for id, v := range x[i*logits.Cols : (i+1)*logits.Cols] {
					if b.Masks[row*words+id/32]>>(id%32)&1 == 1 {
						w := math.Exp(float64(v) / float64(b.Temperatures[row]))
						weights, sum = append(weights, w), sum+w
					}
				}
				for _, w := range weights {
					want -= w / sum * math.Log(w/sum)
				}
				if e := math.Abs(float64(got[row]) - want); !(e < 1e-5) {
					t.Errorf("%s: row %d: entropy %v, want %v", dev.name, row, got[row], want)
				}
			}
		})
	}
}
