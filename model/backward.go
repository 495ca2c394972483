package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
)

// gradients is room for the gradients of one layer's activations.
type gradients struct {
	x, xn, raw, qkv, att, hn, gateUp, ff, low, last, coef kernels.Tensor
}

func (d *Decoder) gradients(n int, s Size) *gradients {
	c := &d.Config
	f := func(rows, cols int) kernels.Tensor { return d.be.New(kernels.F32, rows, cols) }
	g := &gradients{
		x: f(n, c.Hidden), xn: f(n, c.Hidden), qkv: f(n, d.qkv), att: f(n, d.q), hn: f(n, c.Hidden),
		gateUp: f(n, 2*c.FFN), ff: f(n, c.FFN), last: f(s.Slice, c.Hidden), coef: f(s.Wanted, 1),
	}
	g.raw = g.qkv
	if c.QKNorm {
		g.raw = f(n, d.qkv)
	}
	if s.Rank > 0 {
		g.low = f(n, sites*s.Rank)
	}
	return g
}

func (g gradients) rows(n int) *gradients {
	for _, t := range []*kernels.Tensor{&g.x, &g.xn, &g.raw, &g.qkv, &g.att, &g.hn, &g.gateUp, &g.ff, &g.low} {
		if !t.Zero() {
			*t = t.Slice(0, n)
		}
	}
	return &g
}

// linearGrad adds to dx the gradient through l, and to l's own gradients where it is trained.
func (d *Decoder) linearGrad(dx, dout, x kernels.Tensor, l linear) {
	if !l.w.Zero() {
		d.be.LinearGrad(dx, dout, l.w)
		return
	}
	d.be.MatMul(dx, dout, l.t, kernels.Gemm{Alpha: 1, Accumulate: true})
	d.be.MatMul(l.grad, dout, x, kernels.Gemm{TransA: true, Alpha: 1, Accumulate: true})
	if !l.bias.t.Zero() {
		d.be.SumRows(l.bias.grad, dout)
	}
}

// adaptGrad adds to dx the gradient through adapt, and to the pairs' gradients theirs. out += s·x·Aᵀ·Bᵀ,
// so dB += doutᵀ·(s·x·Aᵀ), dA += (s·dout·B)ᵀ·x, dx += (s·dout·B)·A.
func (p *Pass) adaptGrad(dx, x kernels.Tensor, layer, first int, g *gradients, into *Grads, douts ...kernels.Tensor) {
	if into.ad == nil {
		return
	}
	be, low := p.d.be, p.layer(layer).low
	first += layer * sites
	for j, dout := range douts {
		pair := &into.ad.sites[first+j]
		if pair.A.Zero() {
			continue
		}
		r := pair.B.Cols
		be.MatMul(into.sites[first+j].B, dout, low.Columns(pair.at, r), kernels.Gemm{TransA: true, Alpha: 1, Accumulate: true})
		be.MatMul(g.low.Columns(pair.at, r), dout, pair.B, kernels.Gemm{Alpha: pair.Scale})
	}
	for j, s := range into.ad.stacks[first] {
		dlow := g.low.Columns(s.at, s.A.Rows)
		be.MatMul(into.stacks[first][j], dlow, x, kernels.Gemm{TransA: true, Alpha: 1, Accumulate: true})
		be.MatMul(dx, dlow, s.A, kernels.Gemm{Alpha: 1, Accumulate: true})
	}
}

// again brings back the activations of layer i, whose input is x: of a layer that was kept only those that
// take no product, else all of them.
func (p *Pass) again(i int, x kernels.Tensor, into *Grads) {
	d, be, l, a, eps := p.d, p.d.be, &p.d.layers[i], p.layer(i), float32(p.d.Config.Eps)
	if i < len(p.kept) {
		be.RMSNorm(a.xn, x, l.attnNorm.t, eps)
		be.RMSNorm(a.hn, a.mid, l.ffnNorm.t, eps)
		gate, up := d.halves(a.gateUp)
		be.SwiGLU(a.ff, gate, up)
		return
	}
	p.inside(i, x)
	if into.ad != nil {
		p.lower(a.low, a.ff, into.ad, i*sites+siteDown)
	}
}

// blockGrad turns g.x from the gradient of layer i's output into that of its input x.
func (p *Pass) blockGrad(i int, x kernels.Tensor, g *gradients, into *Grads) {
	d, be, l, a, eps := p.d, p.d.be, &p.d.layers[i], p.layer(i), float32(p.d.Config.Eps)
	p.again(i, x, into)
	for _, t := range []kernels.Tensor{g.xn, g.qkv, g.att, g.hn, g.gateUp, g.ff} {
		be.Fill(t, 0)
	}
	if d.Config.QKNorm { // else it is qkv
		be.Fill(g.raw, 0)
	}

	gate, up := d.halves(a.gateUp)
	dgate, dup := d.halves(g.gateUp)
	d.linearGrad(g.ff, g.x, a.ff, l.down)
	p.adaptGrad(g.ff, a.ff, i, siteDown, g, into, g.x)
	be.SwiGLUGrad(dgate, dup, g.ff, gate, up)
	d.linearGrad(g.hn, g.gateUp, a.hn, l.gateUp)
	p.adaptGrad(g.hn, a.hn, i, siteGate, g, into, dgate, dup)
	be.RMSNormGrad(g.x, l.ffnNorm.grad, g.hn, a.mid, l.ffnNorm.t, eps)

	q, k, _ := d.columns(a.qkv)
	rawQ, rawK, v := d.columns(a.raw)
	dq, dk, _ := d.columns(g.qkv)
	drawQ, drawK, dv := d.columns(g.raw)
	rot := kernels.Rotary{HeadDim: d.Config.HeadDim, Table: d.rope, Inverse: true}
	pos := p.pos.Slice(0, x.Rows)
	d.linearGrad(g.att, g.x, a.att, l.o)
	p.adaptGrad(g.att, a.att, i, siteO, g, into, g.x)
	be.AttentionGrad(dq, dk, dv, g.att, a.att, a.lse, q, k, v, p.attn())
	be.RoPE(g.qkv.Columns(0, d.q+d.kv), pos, rot)
	if d.Config.QKNorm {
		be.RMSNormGrad(drawQ, l.qNorm.grad, dq, rawQ, l.qNorm.t, eps)
		be.RMSNormGrad(drawK, l.kNorm.grad, dk, rawK, l.kNorm.t, eps)
	}
	d.linearGrad(g.xn, g.raw, a.xn, l.qkv)
	p.adaptGrad(g.xn, a.xn, i, siteQ, g, into, drawQ, drawK, dv)
	be.RMSNormGrad(g.x, l.attnNorm.grad, g.xn, x, l.attnNorm.t, eps)
}

// Backward adds to into the gradient of Σ coef·logp over the wanted rows of the batch that Forward and
// LogProbs have just run. The batch must have no cache, and one adapter: the one of into.
func (p *Pass) Backward(coef []float32, into *Grads) error {
	if p.g == nil || p.kv != nil {
		return fmt.Errorf("model: this pass was not made to train")
	}
	if !p.keeps {
		return fmt.Errorf("model: nothing of this batch was kept for Backward: it needs Forward")
	}
	if len(coef) != len(p.b.Want) {
		return fmt.Errorf("model: %d coefficients for %d wanted rows", len(coef), len(p.b.Want))
	}
	for s := range p.b.Adapters {
		if ad, _ := p.run(s); ad != into.ad {
			return fmt.Errorf("model: sequence %d is not of the adapter whose gradients are asked for", s)
		}
	}
	if len(coef) == 0 {
		return nil
	}
	d, be := p.d, p.d.be
	g := p.g.rows(p.act.x.Rows)
	p.raw = p.raw[:0]
	for _, c := range coef {
		p.raw = binary.LittleEndian.AppendUint32(p.raw, math.Float32bits(c))
	}
	be.Write(g.coef.Slice(0, len(coef)), p.raw)
	be.Fill(g.xn, 0)
	p.headGrad(g)
	be.Fill(g.x, 0)
	be.RMSNormGrad(g.x, d.norm.grad, g.xn, p.act.x, d.norm.t, float32(d.Config.Eps))
	for i := len(d.layers) - 1; i >= 0; i-- {
		p.blockGrad(i, p.stream(i), g, into)
	}
	if !d.first.Zero() {
		be.ScatterAdd(d.first, g.x, p.ids.Slice(0, p.act.x.Rows))
	}
	return be.Sync()
}
