package model

import (
	"math"

	"github.com/r2-reasoner/r2/weights"
)

// The seven projections a LoRA adapter may add to, in the order of weights.Config.Projections.
const (
	siteQ = iota
	siteK
	siteV
	siteO
	siteGate
	siteUp
	siteDown
	sites
)

// shape is the widths a configuration implies.
type shape struct {
	q, kv, qkv int // columns of the queries, of the keys, of both and the values
}

func shapeOf(c *weights.Config) shape {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return shape{q: q, kv: kv, qkv: q + 2*kv}
}

// inverseFrequencies are RoPE's, with Llama 3's scaling where the configuration has it: long
// wavelengths are divided by the factor, short ones kept, those between interpolated.
func inverseFrequencies(c *weights.Config) []float64 {
	f := make([]float64, c.HeadDim/2)
	for j := range f {
		f[j] = math.Pow(c.Theta, -2*float64(j)/float64(c.HeadDim))
	}
	s := c.RopeScaling
	if s == nil {
		return f
	}
	for j, v := range f {
		wave, old := 2*math.Pi/v, float64(s.Original)
		switch {
		case wave < old/s.HighFreq:
		case wave > old/s.LowFreq:
			f[j] = v / s.Factor
		default:
			smooth := (old/wave - s.LowFreq) / (s.HighFreq - s.LowFreq)
			f[j] = (1-smooth)*v/s.Factor + smooth*v
		}
	}
	return f
}

// rotations are the rows of a kernels.Rotary table for positions 0 … n-1.
func rotations(c *weights.Config, n int) []float32 {
	f := inverseFrequencies(c)
	half := len(f)
	t := make([]float32, n*2*half)
	for p := range n {
		for j, w := range f {
			s, cos := math.Sincos(float64(p) * w)
			t[p*2*half+j], t[p*2*half+half+j] = float32(cos), float32(s)
		}
	}
	return t
}
