package modeltest

import (
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// Tiny is a random model of two layers with grouped heads, of any architecture: qwen2, qwen3 or llama.
func Tiny(architecture string, seed uint64) *model.Random {
	c := weights.Config{
		Architecture: architecture, Layers: 2, Hidden: 32, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 40, Vocab: 96,
		Context: 512, Theta: 1e4, Eps: 1e-6, EOS: []int{2},
	}
	switch architecture {
	case "qwen2":
		c.QKVBias = true
	case "qwen3":
		c.QKNorm, c.TieEmbeddings, c.HeadDim = true, true, 16
	}
	return &model.Random{Config: c, Seed: seed, Std: 0.25, Spread: true}
}
