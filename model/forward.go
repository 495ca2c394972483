package model

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/r2-reasoner/r2/kernels"
)

// columns splits rows of queries, keys and values.
func (d *Decoder) columns(t kernels.Tensor) (q, k, v kernels.Tensor) {
	return t.Columns(0, d.q), t.Columns(d.q, d.kv), t.Columns(d.q+d.kv, d.kv)
}

// halves splits rows of gate and up.
func (d *Decoder) halves(t kernels.Tensor) (gate, up kernels.Tensor) {
	n := d.Config.FFN
	return t.Columns(0, n), t.Columns(n, n)
}

// linear sets out to x through l.
func (d *Decoder) linear(out, x kernels.Tensor, l linear) {
	if l.w.Zero() {
		d.be.MatMul(out, x, l.t, kernels.Gemm{TransB: true, Alpha: 1, Bias: l.bias.t})
		return
	}
	d.be.Linear(out, x, l.w, l.bias.t)
}

// project sets out to what e makes of the projection of x through l, and of what each sequence's adapter adds to it:
// scale·x·Aᵀ·Bᵀ (Hu et al. 2021). h is where the projection goes on a device that cannot end it so, and outs are
// the views of h that the sites from first on make.
func (p *Pass) project(out, h, x kernels.Tensor, l linear, layer, first int, e kernels.Ending, outs ...kernels.Tensor) {
	be := p.d.be
	p.expands = p.adapt(p.expands[:0], h, x, layer, first, outs...)
	e.Expands = p.expands
	if f, ok := be.(kernels.Fuser); ok && !l.w.Zero() && f.Fused(out, x, l.w, l.bias.t, e) {
		return
	}
	p.d.linear(h, x, l)
	for _, a := range e.Expands {
		be.MatMul(h.Slice(a.Row, a.Low.Rows).Columns(a.Col, a.B.Rows), a.Low, a.B, kernels.Gemm{TransB: true, Alpha: 1, Accumulate: true})
	}
	if e.Gated {
		gate, up := p.d.halves(h)
		be.SwiGLU(out, gate, up)
	}
	if !e.Plus.Zero() {
		be.Add(out, e.Plus, h)
	}
}

// adapt appends to all what adapters add to outs, views of h.
func (p *Pass) adapt(all []kernels.Expand, h, x kernels.Tensor, layer, first int, outs ...kernels.Tensor) []kernels.Expand {
	lows := p.layer(layer).low
	first += layer * sites
	for s := 0; s < p.b.Sequences(); {
		ad, end := p.run(s)
		if ad != nil {
			i := int(p.b.Starts[s])
			n := int(p.b.Starts[end]) - i
			low := lows.Slice(i, n)
			p.lower(low, x.Slice(i, n), ad, first)
			for j, out := range outs {
				if pair := &ad.sites[first+j]; !pair.A.Zero() {
					all = append(all, kernels.Expand{Row: i, Col: out.Off - h.Off, Low: low.Columns(pair.at, pair.B.Cols), B: pair.B})
				}
			}
		}
		s = end
	}
	return all
}

// lower sets low to scale·x·Aᵀ of the pairs at the site first and those that have its input.
func (p *Pass) lower(low, x kernels.Tensor, ad *Adapter, first int) {
	for _, s := range ad.stacks[first] {
		p.d.be.MatMul(low.Columns(s.at, s.A.Rows), x, s.A, kernels.Gemm{TransB: true, Alpha: s.Scale})
	}
}

// run is the adapter of sequence s, and the end of the sequences that share it.
func (p *Pass) run(s int) (*Adapter, int) {
	if len(p.b.Adapters) == 0 {
		return nil, p.b.Sequences()
	}
	a, end := p.b.Adapters[s], s+1
	for end < len(p.b.Adapters) && p.b.Adapters[end] == a {
		end++
	}
	if a == 0 {
		return nil, end
	}
	return p.ads[a], end
}

// block sets out to layer i's output for the residual stream x, which may be out.
func (p *Pass) block(i int, out, x kernels.Tensor) {
	p.inside(i, x)
	a := p.layer(i)
	p.project(out, a.h, a.ff, p.d.layers[i].down, i, siteDown, kernels.Ending{Plus: a.mid}, a.h)
}

// inside is layer i up to the input of its last projection; x stays.
func (p *Pass) inside(i int, x kernels.Tensor) {
	d, be, l, a, eps := p.d, p.d.be, &p.d.layers[i], p.layer(i), float32(p.d.Config.Eps)

	be.RMSNorm(a.xn, x, l.attnNorm.t, eps)
	rawQ, rawK, v := d.columns(a.raw)
	p.project(a.raw, a.raw, a.xn, l.qkv, i, siteQ, kernels.Ending{}, rawQ, rawK, v)
	q, k, _ := d.columns(a.qkv)
	if d.Config.QKNorm {
		be.RMSNorm(q, rawQ, l.qNorm.t, eps)
		be.RMSNorm(k, rawK, l.kNorm.t, eps)
	}
	rot := kernels.Rotary{HeadDim: d.Config.HeadDim, Table: d.rope}
	pos := p.pos.Slice(0, x.Rows)
	qk := a.qkv.Columns(0, d.q+d.kv)
	if p.kv != nil {
		p.store(i, qk, v, pos, rot)
		k, v = p.kv.k[i], p.kv.v[i]
	} else if be.RoPE(qk, pos, rot); !a.keys.Zero() {
		be.Copy(a.keys, k)
		be.Copy(a.values, v)
		k, v = a.keys, a.values
	}
	be.Attention(a.att, a.lse, q, k, v, p.attn())
	if p.kv != nil {
		p.copyRows(k)
		p.copyRows(v)
	}
	p.project(a.mid, a.h, a.att, l.o, i, siteO, kernels.Ending{Plus: x}, a.h)

	be.RMSNorm(a.hn, a.mid, l.ffnNorm.t, eps)
	gate, up := d.halves(a.gateUp)
	if !p.keeps {
		p.project(a.ff, a.gateUp, a.hn, l.gateUp, i, siteGate, kernels.Ending{Gated: true}, gate, up)
		return
	}
	p.project(a.gateUp, a.gateUp, a.hn, l.gateUp, i, siteGate, kernels.Ending{}, gate, up) // Backward needs both
	be.SwiGLU(a.ff, gate, up)
}

// store turns layer i's queries and keys, which qk holds, and stores the keys and v in the cache.
func (p *Pass) store(i int, qk, v, pos kernels.Tensor, rot kernels.Rotary) {
	d, slots := p.d, p.slots.Slice(0, qk.Rows)
	if one, ok := d.be.(kernels.Storer); ok {
		one.RoPEStore(qk, v, pos, rot, p.kv.k[i], p.kv.v[i], slots)
		return
	}
	d.be.RoPE(qk, pos, rot)
	d.be.Scatter(p.kv.k[i], qk.Columns(d.q, d.kv), slots)
	d.be.Scatter(p.kv.v[i], v, slots)
}

// copyRows copies the batch's rows From of a layer's keys or values to its rows To, by way of where the
// batch's own keys were.
func (p *Pass) copyRows(cache kernels.Tensor) {
	by := p.room.keys
	if by.Zero() {
		_, by, _ = p.d.columns(p.room.qkv)
	}
	for i := 0; i < len(p.b.From); i += by.Rows {
		n := min(by.Rows, len(p.b.From)-i)
		p.d.be.Gather(by.Slice(0, n), cache, p.from.Slice(i, n))
		p.d.be.Scatter(cache, by.Slice(0, n), p.to.Slice(i, n))
	}
}

// Forward runs the loaded batch, filling the cache where there is one. A pass made to train keeps what Backward needs.
func (p *Pass) Forward() { p.forward(p.g != nil) }

// ForwardAlone does what Forward does when no Backward follows: the bits are the same, and nothing is kept.
func (p *Pass) ForwardAlone() { p.forward(false) }

func (p *Pass) forward(keeps bool) {
	d, be, a := p.d, p.d.be, &p.act
	p.keeps = keeps
	ids := p.ids.Slice(0, a.x.Rows)
	if d.embed.w.Zero() {
		be.Gather(p.stream(0), d.embed.t, ids)
	} else {
		be.Embed(p.stream(0), d.embed.w, ids)
	}
	for i := range d.layers {
		p.block(i, p.stream(i+1), p.stream(i))
	}
	be.RMSNorm(a.xn, a.x, d.norm.t, float32(d.Config.Eps))
	p.held = -1
}

// stream is where the input of layer i goes, or behind the last layer its output.
func (p *Pass) stream(i int) kernels.Tensor {
	if p.keeps && i < len(p.trace) {
		return p.trace[i].Slice(0, p.act.x.Rows)
	}
	return p.act.x
}

// LogProbs sets dst to the log-probability of each wanted row's target.
func (p *Pass) LogProbs(dst []float32) error { return p.distributions(dst, nil) }

// Distributions sets logp as LogProbs does, and entropy to that of each wanted row's distribution, in nats. The
// pass must be one made to train.
func (p *Pass) Distributions(logp, entropy []float32) error { return p.distributions(logp, entropy) }

func (p *Pass) distributions(logp, entropy []float32) error {
	n := len(p.b.Want)
	if n == 0 {
		return p.d.be.Sync()
	}
	p.score(entropy != nil)
	err := p.readColumn(logp[:n], p.act.lp)
	if err == nil && entropy != nil {
		err = p.readColumn(entropy[:n], p.entropy)
	}
	if err != nil {
		return p.Explain(err)
	}
	return nil
}

// readColumn reads the first elements of a column.
func (p *Pass) readColumn(dst []float32, t kernels.Tensor) error {
	n := len(dst)
	p.raw = slices.Grow(p.raw[:0], 4*n)[:4*n]
	if err := p.d.be.Read(p.raw, t.Slice(0, n)); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(p.raw[4*i:]))
	}
	return nil
}

// Targets are the targets of wanted rows i … i+n-1, on the device.
func (p *Pass) Targets(i, n int) kernels.Tensor { return p.targets.Slice(i, n) }
