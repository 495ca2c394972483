package bench

import (
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
)

// A Roof is what a device can do at most (Williams, Waterman and Patterson 2009).
type Roof struct {
	Flops float64 // a second; a multiply-add is two
	Bytes float64 // read from memory a second
}

// CPURoof measures this processor with that many threads. It takes about a second.
func CPURoof(threads int) Roof {
	flops, bytes := cpu.Roof(threads)
	return Roof{flops, bytes}
}

// seconds is the least time that work takes whose arithmetic and memory traffic overlap wholly.
func (r Roof) seconds(w work) float64 { return max(w.flops/r.Flops, w.bytes/r.Bytes) }

// work is what has to be done: arithmetic, and bytes of weights and keys and values to read once.
type work struct{ flops, bytes float64 }

func (w work) plus(v work) work { return work{w.flops + v.flops, w.bytes + v.bytes} }

// elements counts the matrices of all layers, and the head.
func (s *Subject) elements() (layers, head float64) {
	c := s.Decoder.Config
	for _, p := range c.Projections(0) {
		layers += float64(p.In * p.Out)
	}
	return layers * float64(c.Layers), float64(c.Vocab * c.Hidden)
}

// forward is the work of one batch: rows tokens that see keys keys together, of which wanted get
// logits, where cached positions are read from the cache.
func (s *Subject) forward(rows, keys, wanted, cached int) work {
	c := s.Decoder.Config
	layers, head := s.elements()
	size := float64(s.Decoder.Format().Type.Bytes(kernels.BlockLen)) / kernels.BlockLen
	w := work{flops: 2 * layers * float64(rows), bytes: size * layers}
	if wanted > 0 {
		w.flops += 2 * head * float64(wanted)
		w.bytes += size * head
	}
	w.flops += 4 * float64(keys) * float64(c.Heads*c.HeadDim*c.Layers)
	w.bytes += float64(cached) * float64(s.Decoder.CacheBytes())
	return w
}

// prefill is the least time of prompts of n tokens with one row of logits each.
func (s *Subject) prefill(prompts, n int) float64 {
	return s.Roof.seconds(s.forward(prompts*n, prompts*triangle(n), prompts, 0))
}

// steps is the least time of n steps of samples sequences over each of some prompts, a token each. What
// the samples of a prompt share is read once.
func (s *Subject) steps(prompts, prompt, n, samples int) (seconds float64) {
	rows := prompts * samples
	for i := range n {
		own := i + 1
		seconds += s.Roof.seconds(s.forward(rows, rows*(prompt+own), rows, prompts*prompt+rows*own))
	}
	return seconds
}

// triangle is the keys that the rows of a whole sequence of n see together.
func triangle(n int) int { return n * (n + 1) / 2 }
