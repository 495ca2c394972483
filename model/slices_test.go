package model_test

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// ledger notes what is asked for once it is on, and makes no room for it.
type ledger struct {
	kernels.Backend
	on      bool
	largest int // bytes
}

func (l *ledger) New(t kernels.DType, rows, cols int) kernels.Tensor {
	if !l.on {
		return l.Backend.New(t, rows, cols)
	}
	l.largest = max(l.largest, 4*rows*cols)
	return kernels.Tensor{Rows: rows, Cols: cols}
}

// A training pass over 16,384 tokens with a vocabulary of 151,936 would need 10 GB for all its logits. It
// must not ask for more than its slice of 128 rows at once.
func TestLongPassHoldsASliceOfItsLogits(t *testing.T) {
	const vocab, tokens, slice = 151936, 16384, 128
	be := &ledger{Backend: ref.New()}
	c := weights.Config{Architecture: "llama", Layers: 1, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: vocab,
		Context: tokens, Eps: 1e-5, Theta: 1e4, TieEmbeddings: true}
	d, err := model.Load(be, c, &model.Random{Config: c, Std: 0.02}, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	be.on = true
	d.NewPass(model.Size{Tokens: tokens, Sequences: 1, Wanted: tokens, Slice: slice, Train: true})
	if be.largest != 4*slice*vocab {
		t.Errorf("the largest tensor has %d bytes; the slice of logits has %d", be.largest, 4*slice*vocab)
	}
}
