package predict

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// An operation says how a call is played: play makes the operands and returns the call; blocks is how many of a launch's
// are run, 0 for all; least is the bytes that must come from memory and go to it, nil where each block's are its own.
type operation struct {
	play   func(o *operands, d [7]int) func()
	blocks func(d [7]int) int
	least  func(d [7]int) float64
}

func some(n int) func([7]int) int { return func([7]int) int { return n } }

// few runs more of the blocks of products with few tokens: where they share a tile's terms among them, they are not alike. (Those that
// are left out do not come to where parts meet: what is moved there, a few in a hundred, is missing.)
func few(d [7]int) int {
	switch {
	case d[0]*d[1]*d[2] < 1<<24:
		return 0
	case d[0] <= 512:
		return 12
	}
	return 4
}

// sequenced runs blocks enough that the first and the last tiles of a causal sequence, which differ most, count as they should: with 6, attention
// of 16k tokens came out a third too short. Where sequences share pages, blocks have the rows of one, of several, or none.
func sequenced(d [7]int) int {
	if d[6] > 1 {
		return 160
	}
	return 24
}

// rowwise is an operation on rows × columns.
func rowwise(play func(dev k.Backend, o *operands, rows, cols int) func()) operation {
	return operation{play: func(o *operands, d [7]int) func() { return play(o.s.dev, o, d[0], d[1]) }, blocks: some(16)}
}

var operations = map[string]operation{
	"Linear": {blocks: few, play: func(o *operands, d [7]int) func() {
		x, w, out := o.floats(d[0], d[2]), o.weight(d[1], d[2]), o.floats(d[0], d[1])
		return func() { o.s.dev.Linear(out, x, w, k.Tensor{}) }
	}, least: func(d [7]int) float64 { return product(d[0], d[1], d[2], 2) }},
	"LinearGrad": {blocks: few, play: func(o *operands, d [7]int) func() {
		dx, w, dout := o.floats(d[0], d[2]), o.weight(d[1], d[2]), o.floats(d[0], d[1])
		return func() { o.s.dev.LinearGrad(dx, dout, w) }
	}, least: func(d [7]int) float64 { return product(d[0], d[1], d[2], 2) + 4*float64(d[0]*d[2]) }},
	"Fused": {blocks: few, play: func(o *operands, d [7]int) func() {
		fused := playFused(o, d)
		return func() { fused() }
	}, least: func(d [7]int) float64 {
		out := product(d[0], d[1], d[2], 2)
		if d[3]&1 != 0 {
			out -= 2 * float64(d[0]*d[1])
		}
		if d[3]&2 != 0 {
			out += 4 * float64(d[0]*d[1])
		}
		return out
	}},
	"Score": {blocks: few, play: func(o *operands, d [7]int) func() {
		lp, lse, x, w, ids := o.floats(d[0], 1), o.floats(d[0], 1), o.floats(d[0], d[2]), o.weight(d[1], d[2]), o.each(d[0])
		var h k.Tensor
		if d[3] != 0 {
			h = o.floats(d[0], 1)
		}
		return func() { o.s.dev.Score(lp, lse, h, x, w, ids, k.Dist{}) }
	}, least: scored},
	"ScoreGrad": {blocks: few, play: func(o *operands, d [7]int) func() {
		dx, lse, coef, x, w, ids := o.floats(d[0], d[2]), o.floats(d[0], 1), o.floats(d[0], 1), o.floats(d[0], d[2]), o.weight(d[1], d[2]), o.each(d[0])
		return func() { o.s.dev.ScoreGrad(dx, x, w, lse, ids, coef, k.Dist{}) }
	}, least: scored},
	"MatMul": {blocks: some(12), play: func(o *operands, d [7]int) func() {
		a, b, c := o.floats(d[0], d[2]), o.floats(d[2], d[1]), o.floats(d[0], d[1])
		g := k.Gemm{TransA: d[3]&1 != 0, TransB: d[3]&2 != 0, Accumulate: d[3]&4 != 0, Alpha: 1}
		if g.TransA {
			a = o.floats(d[2], d[0])
		}
		if g.TransB {
			b = o.floats(d[1], d[2])
		}
		return func() { o.s.dev.MatMul(c, a, b, g) }
	}, least: func(d [7]int) float64 { return product(d[0], d[1], d[2], 4) }},
	"Attention":     {blocks: sequenced, play: playAttention, least: attended},
	"AttentionGrad": {blocks: sequenced, play: playAttentionGrad, least: func(d [7]int) float64 { return 2.5 * attended(d) }},
	"RMSNorm": {blocks: some(16), play: func(o *operands, d [7]int) func() {
		x, w := o.floats(d[0], d[1]), o.floats(1, d[2])
		return func() { o.s.dev.RMSNorm(x, x, w, 1e-6) }
	}},
	"RMSNormGrad": {blocks: some(16), play: func(o *operands, d [7]int) func() {
		dx, dy, x, w := o.floats(d[0], d[1]), o.floats(d[0], d[1]), o.floats(d[0], d[1]), o.floats(1, d[2])
		return func() { o.s.dev.RMSNormGrad(dx, k.Tensor{}, dy, x, w, 1e-6) }
	}},
	"RoPE": {blocks: some(16), play: func(o *operands, d [7]int) func() {
		x, pos, table := o.floats(d[0], d[1]), o.numbers(d[0], 1, func(i int) int { return i % 2048 }), o.floats(2048, d[2])
		return func() { o.s.dev.RoPE(x, pos, k.Rotary{HeadDim: d[2], Table: table}) }
	}},
	"RoPEStore": {blocks: some(16), play: func(o *operands, d [7]int) func() {
		qk, v, kc, vc, at := o.floats(d[0], d[1]), o.floats(d[0], d[2]), o.floats(d[0], d[2]), o.floats(d[0], d[2]), o.each(d[0])
		pos, table := o.numbers(d[0], 1, func(i int) int { return i % 2048 }), o.floats(2048, d[3])
		return func() { o.s.dev.RoPEStore(qk, v, pos, k.Rotary{HeadDim: d[3], Table: table}, kc, vc, at) }
	}},
	"Embed": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		out, w, ids := o.floats(rows, cols), o.weight(1024, cols), o.numbers(rows, 1, func(i int) int { return i % 1024 })
		return func() { dev.Embed(out, w, ids) }
	}),
	"SwiGLU": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		out, both := o.floats(rows, cols), o.floats(rows, 2*cols)
		return func() { dev.SwiGLU(out, both.Columns(0, cols), both.Columns(cols, cols)) }
	}),
	"SwiGLUGrad": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		dy, both, d := o.floats(rows, cols), o.floats(rows, 2*cols), o.floats(rows, 2*cols)
		return func() {
			dev.SwiGLUGrad(d.Columns(0, cols), d.Columns(cols, cols), dy, both.Columns(0, cols), both.Columns(cols, cols))
		}
	}),
	"Add": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a, b := o.floats(rows, cols), o.floats(rows, cols)
		return func() { dev.Add(a, a, b) }
	}),
	"Copy": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a, b := o.floats(rows, cols), o.floats(rows, cols)
		return func() { dev.Copy(a, b) }
	}),
	"Fill": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a := o.floats(rows, cols)
		return func() { dev.Fill(a, 0) }
	}),
	"Gather": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a, b, at := o.floats(rows, cols), o.floats(rows, cols), o.each(rows)
		return func() { dev.Gather(a, b, at) }
	}),
	"Scatter": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a, b, at := o.floats(rows, cols), o.floats(rows, cols), o.each(rows)
		return func() { dev.Scatter(a, b, at) }
	}),
	"ScatterAdd": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		a, b, at := o.floats(rows, cols), o.floats(rows, cols), o.each(rows)
		return func() { dev.ScatterAdd(a, b, at) }
	}),
	"LogProb": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		lp, lse, x, ids := o.floats(rows, 1), o.floats(rows, 1), o.floats(rows, cols), o.each(rows)
		return func() { dev.LogProb(lp, lse, x, ids, k.Dist{}) }
	}),
	"LogProbGrad": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		lse, coef, x, ids := o.floats(rows, 1), o.floats(rows, 1), o.floats(rows, cols), o.each(rows)
		return func() { dev.LogProbGrad(x, x, lse, ids, coef, k.Dist{}) }
	}),
	"Entropy": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		h, lse, x := o.floats(rows, 1), o.floats(rows, 1), o.floats(rows, cols)
		return func() { dev.Entropy(h, x, lse, k.Dist{}) }
	}),
	"Sample": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		ids, lp, x, u, t := o.each(rows), o.floats(rows, 1), o.floats(rows, cols), o.floats(rows, 1), o.floats(rows, 1)
		dev.Fill(t, 1)
		return func() { dev.Sample(ids, lp, x, u, k.Dist{Temperature: t}) }
	}),
	"SumRows": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		out, x := o.floats(1, cols), o.floats(rows, cols)
		return func() { dev.SumRows(out, x) }
	}),
	"SumSquares": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		out, x := o.floats(1, 1), o.floats(rows, cols)
		return func() { dev.SumSquares(out, x) }
	}),
	"AdamW": rowwise(func(dev k.Backend, o *operands, rows, cols int) func() {
		w, m, v, g := o.floats(rows, cols), o.floats(rows, cols), o.floats(rows, cols), o.floats(rows, cols)
		return func() { dev.AdamW(w, m, v, g, k.Adam{LR: 1e-5, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Scale: 1, Step: 1}) }
	}),
}

// product is the bytes of a product's operands, the second of so many bytes a number, and of what comes out.
func product(rows, out, in, bytes int) float64 {
	return 4*float64(rows)*float64(in+out) + float64(bytes)*float64(out)*float64(in)
}

// scored is the bytes of rows and of the head.
func scored(d [7]int) float64 { return 4*float64(d[0])*float64(d[2]) + 2*float64(d[1])*float64(d[2]) }

// playFused is a product that ends with what follows it; the parts of adapters are as wide as each other.
func playFused(o *operands, d [7]int) func() bool {
	out := d[1]
	if d[3]&1 != 0 {
		out /= 2
	}
	var e k.Ending
	e.Gated = d[3]&1 != 0
	y, x, w := o.floats(d[0], out), o.floats(d[0], d[2]), o.weight(d[1], d[2])
	if d[3]&2 != 0 {
		e.Plus = o.floats(d[0], out)
	}
	for i := range d[4] {
		wide := d[1] / d[4]
		e.Expands = append(e.Expands, k.Expand{Col: i * wide, Low: o.floats(d[0], d[5]), B: o.floats(wide, d[5])})
	}
	return func() bool { return o.s.dev.Fused(y, x, w, k.Tensor{}, e) }
}

// attended is the bytes of queries, keys, values and what comes out.
func attended(d [7]int) float64 {
	n, q, keys, heads, kv, dim := d[0], d[1], d[1]+d[2], d[3], d[4], d[5]
	again := float64(max(0, d[6]-1)*pageSize*(n-n/Samples)) * float64(2*kv*dim) // keys and values that another sequence has brought
	return 4 * (float64(n)*float64(dim)*float64(2*q*heads+2*keys*kv) - again)
}

const pageSize = 16

// attention makes the operands of n sequences: of d's queries, after d's keys. Without pages, what comes before is
// shared, and the first sequence has it; with them, d says how many pages are shared.
func (o *operands) attention(d [7]int) (out, lse, q, key, v k.Tensor, a k.Attn) {
	n, queries, before, heads, kv, dim := d[0], d[1], d[2], d[3], d[4], d[5]
	keys := before + queries
	a = k.Attn{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: float32(1 / math.Sqrt(float64(dim))), MaxQueries: queries}
	rows := n * queries
	switch {
	case d[6] != 0:
		pages := (keys + pageSize - 1) / pageSize
		a.PageSize, a.Pages = pageSize, o.numbers(n, pages, func(i int) int { return pageOf(i/pages, i%pages, pages, d[6]-1) })
		rows = n * pages * pageSize
		a.Starts, a.Lengths = o.numbers(n+1, 1, func(i int) int { return i * queries }), o.numbers(n, 1, func(int) int { return keys })
	case before == 0:
		a.Starts, a.Lengths = o.numbers(n+1, 1, func(i int) int { return i * queries }), o.numbers(n, 1, func(int) int { return keys })
	default: // a leader of the shared rows, whose own part is small beside the others'
		rows = before + n*queries
		a.MaxQueries = max(queries, before)
		a.Starts = o.numbers(n+2, 1, func(i int) int { return min(i, 1)*before + max(i-1, 0)*queries })
		a.Lengths = o.numbers(n+1, 1, func(i int) int { return []int{before, keys}[min(i, 1)] })
	}
	own := n * queries
	if d[6] == 0 {
		own = rows
	}
	out, q, lse = o.floats(own, heads*dim), o.floats(own, heads*dim), o.floats(own, heads)
	return out, lse, q, o.floats(rows, kv*dim), o.floats(rows, kv*dim), a
}

// pageOf is page p of sequence s's, of which the first so many are those of the first of its Samples.
func pageOf(s, p, pages, shared int) int {
	if p < shared {
		s -= s % Samples
	}
	return s*pages + p
}

func playAttention(o *operands, d [7]int) func() {
	out, lse, q, key, v, a := o.attention(d)
	return func() { o.s.dev.Attention(out, lse, q, key, v, a) }
}

func playAttentionGrad(o *operands, d [7]int) func() {
	out, lse, q, key, v, a := o.attention(d)
	dq, dk, dv, dout := o.floats(q.Rows, q.Cols), o.floats(key.Rows, key.Cols), o.floats(key.Rows, key.Cols), o.floats(q.Rows, q.Cols)
	return func() { o.s.dev.AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v, a) }
}
