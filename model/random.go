package model

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/weights"
)

// Random is a Source of random weights for a new model: matrices normal with standard deviation Std,
// norm weights one, biases zero, as transformers initialises them. With Spread, norm weights are
// uniform in 0.5 … 1.5 and biases normal too, so that a test sees one that is skipped.
type Random struct {
	Config weights.Config
	Seed   uint64
	Std    float64
	Spread bool
}

// Tensor makes the named tensor: the same for the same seed, whatever else was asked for.
func (r *Random) Tensor(name string) (weights.Tensor, error) {
	all := r.Config.Parameters()
	at := slices.IndexFunc(all, func(p weights.Parameter) bool { return p.Name == name })
	if at < 0 {
		return weights.Tensor{}, fmt.Errorf("model: no tensor %s in this configuration", name)
	}
	shape := all[at].Shape
	h := fnv.New64a()
	h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(r.Seed, h.Sum64()))
	v := make([]float32, weights.Tensor{Shape: shape}.Len())
	for i := range v {
		switch norm := len(shape) == 1 && strings.HasSuffix(name, ".weight"); {
		case norm && r.Spread:
			v[i] = float32(0.5 + rng.Float64())
		case norm:
			v[i] = 1
		case len(shape) == 2 || r.Spread:
			v[i] = float32(rng.NormFloat64() * r.Std)
		}
	}
	return weights.Encode(name, weights.F32, shape, v), nil
}
