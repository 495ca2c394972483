package bench

import (
	"fmt"
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// trained is the rows of a training batch.
const trained = 512

// backward is what a training step needs besides a forward pass: the frozen matrices' gradients, a LoRA pair's at
// some ranks, attention's, the row-wise operations' and an optimizer's step. A Grad operation adds, so that its
// result is read and written.
func (p *problems) backward() (ops []op) {
	c := p.s.Decoder.Config
	q, kv, size := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, p.s.Decoder.Format().Type
	for _, s := range [][2]int{{q + 2*kv, c.Hidden}, {c.Hidden, q}, {2 * c.FFN, c.Hidden}, {c.Hidden, c.FFN}} {
		ws, dout, dx := p.loaded(s[0], s[1]), p.floats(trained, s[0]), p.floats(trained, s[1])
		w := work{2 * float64(s[0]*s[1]) * trained, float64(s[0]*size.Bytes(s[1]) + 4*trained*(s[0]+2*s[1]))}
		ops = append(ops, op{fmt.Sprintf("LinearGrad %dx%d, %d rows", s[0], s[1], trained), "GFLOP/s", w, func(i int) {
			p.be.LinearGrad(dx, dout, ws[i%len(ws)])
		}})
	}
	for _, rank := range []int{8, 16, 32} {
		ops = append(ops, p.pairGrad(rank))
	}
	return append(append(ops, p.attentionGrad()), p.rowwiseGrad()...)
}

// pairGrad is the gradients of a LoRA pair of the MLP's projections, and through it.
func (p *problems) pairGrad(rank int) op {
	c := p.s.Decoder.Config
	a, b, da, db := p.floats(rank, c.Hidden), p.floats(c.FFN, rank), p.floats(rank, c.Hidden), p.floats(c.FFN, rank)
	x, dx, dout := p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(trained, c.FFN)
	low, dlow := p.floats(trained, rank), p.floats(trained, rank)
	n := (c.Hidden + c.FFN) * rank
	w := work{4 * float64(n) * trained, float64(4 * (3*n + trained*(3*c.Hidden+c.FFN)))}
	return op{fmt.Sprintf("LoRA's gradients %dx%d rank %d, %d rows", c.FFN, c.Hidden, rank, trained), "GFLOP/s", w, func(int) {
		p.be.MatMul(db, dout, low, k.Gemm{TransA: true, Alpha: 1, Accumulate: true})
		p.be.MatMul(dlow, dout, b, k.Gemm{Alpha: 2})
		p.be.MatMul(da, dlow, x, k.Gemm{TransA: true, Alpha: 1, Accumulate: true})
		p.be.MatMul(dx, dlow, a, k.Gemm{Alpha: 1, Accumulate: true})
	}}
}

// attentionGrad is of the sequences of a batch: scores and their gradients, and three sums over them.
func (p *problems) attentionGrad() op {
	c := p.s.Decoder.Config
	const n, sequences = 128, trained / 128
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	wide := func() k.Tensor { return p.floats(trained, q) }
	narrow := func() k.Tensor { return p.floats(trained, kv) }
	x, dx, out, dout, lse := wide(), wide(), wide(), wide(), p.floats(trained, c.Heads)
	key, value, dkey, dvalue := narrow(), narrow(), narrow(), narrow()
	starts, lengths := []int32{0}, []int32{}
	for s := range sequences {
		starts, lengths = append(starts, int32(n*(s+1))), append(lengths, n)
	}
	a := k.Attn{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: float32(1 / math.Sqrt(float64(c.HeadDim))),
		Starts: p.ints(starts), Lengths: p.ints(lengths), MaxQueries: n}
	p.be.Attention(out, lse, x, key, value, a)
	w := work{10 * float64(q*triangle(n)*sequences), float64(4 * trained * (5*q + 6*kv + c.Heads))}
	return op{fmt.Sprintf("AttentionGrad, %d sequences of %d", sequences, n), "GFLOP/s", w,
		func(int) { p.be.AttentionGrad(dx, dkey, dvalue, dout, out, lse, x, key, value, a) }}
}

func (p *problems) rowwiseGrad() []op {
	c := p.s.Decoder.Config
	x, dx, dy, w := p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(1, c.Hidden)
	gateUp, dGateUp, ff := p.floats(trained, 2*c.FFN), p.floats(trained, 2*c.FFN), p.floats(trained, c.FFN)
	weight, m, v, g, sum := p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(trained, c.Hidden), p.floats(1, 1)
	p.be.Fill(v, 1) // a second moment is not negative
	size, f := float64(4*trained*c.Hidden), c.FFN
	return []op{
		{fmt.Sprintf("RMSNormGrad %dx%d", trained, c.Hidden), "GB/s", work{bytes: 4 * size}, func(int) { p.be.RMSNormGrad(dx, k.Tensor{}, dy, x, w, 1e-5) }},
		{fmt.Sprintf("SwiGLUGrad %dx%d", trained, f), "GB/s", work{bytes: float64(28 * trained * f)}, func(int) {
			p.be.SwiGLUGrad(dGateUp.Columns(0, f), dGateUp.Columns(f, f), ff, gateUp.Columns(0, f), gateUp.Columns(f, f))
		}},
		{fmt.Sprintf("SumSquares %dx%d", trained, c.Hidden), "GB/s", work{bytes: size}, func(int) { p.be.SumSquares(sum, g) }},
		{fmt.Sprintf("AdamW %dx%d", trained, c.Hidden), "GB/s", work{bytes: 7 * size}, func(int) {
			p.be.AdamW(weight, m, v, g, k.Adam{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Scale: 1, Step: 1})
		}},
	}
}
