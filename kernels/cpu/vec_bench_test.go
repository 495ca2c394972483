package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// reportRates reports what the time of one call is, in work done.
func reportRates(b *testing.B, flops, bytes int) {
	s := b.Elapsed().Seconds() / float64(b.N) * 1e9
	if flops > 0 {
		b.ReportMetric(float64(flops)/s, "GFLOP/s")
	}
	if bytes > 0 {
		b.ReportMetric(float64(bytes)/s, "GB/s")
	}
}

// SmolLM2-135M's attention: decoding many sequences with a long cache, which may share pages, and one prompt.
func BenchmarkAttention(b *testing.B) {
	h := headsCase{9, 3, 64}
	for _, c := range []struct{ seqs, queries, keys, shared int }{
		{16, 1, 512, 0}, {16, 1, 512, 448}, {16, 1, 160, 128}, {1, 1, 512, 0}, {1, 1, 4096, 0}, {1, 512, 512, 0}, {1, 64, 2048, 0}} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("seqs=%d/queries=%d/keys=%d/shared=%d/threads=%d", c.seqs, c.queries, c.keys, c.shared, threads), func(b *testing.B) {
				d := New(threads)
				defer d.Close()
				r := rand.New(rand.NewPCG(1, 1))
				const size = 16
				each := ceilDiv(c.keys, size)
				k := f32(d, normals(r, c.seqs*each*size*h.kv*h.dim), h.kv*h.dim)
				v := f32(d, normals(r, c.seqs*each*size*h.kv*h.dim), h.kv*h.dim)
				q := f32(d, normals(r, c.seqs*c.queries*h.heads*h.dim), h.heads*h.dim)
				out, lse := f32(d, make([]float32, q.Rows*q.Cols), q.Cols), kernels.Tensor{}
				a, starts, lengths, pages := h.attn(), []int32{0}, []int32(nil), []int32(nil)
				for _, p := range r.Perm(c.seqs * each) {
					pages = append(pages, int32(p))
				}
				for s := range c.seqs {
					copy(pages[s*each:], pages[:c.shared/size])
					starts, lengths = append(starts, int32((s+1)*c.queries)), append(lengths, int32(c.keys))
				}
				a.Starts, a.Lengths, a.Pages = i32(d, 1, starts...), i32(d, 1, lengths...), i32(d, each, pages...)
				a.PageSize, a.MaxQueries = size, c.queries
				for b.Loop() {
					d.Attention(out, lse, q, k, v, a)
				}
				pairs := c.seqs * (c.queries*(c.keys-c.queries) + c.queries*(c.queries+1)/2)
				reportRates(b, pairs*h.heads*h.dim*4, c.seqs*c.keys*h.kv*h.dim*8)
			})
		}
	}
}

func BenchmarkAttentionGrad(b *testing.B) {
	h, n := headsCase{9, 3, 64}, 512
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			d := New(threads)
			defer d.Close()
			s := h.gradCase(rand.New(rand.NewPCG(1, 1)), n)
			a, wide, narrow := h.attn(), h.heads*h.dim, h.kv*h.dim
			a.Starts, a.Lengths, a.MaxQueries = i32(d, 1, 0, int32(n)), i32(d, 1, int32(n)), n
			q, k, v, dout := f32(d, s.q, wide), f32(d, s.k, narrow), f32(d, s.v, narrow), f32(d, s.dout, wide)
			out, lse := f32(d, make([]float32, n*wide), wide), f32(d, make([]float32, n*h.heads), h.heads)
			dq, dk, dv := f32(d, s.dq, wide), f32(d, s.dk, narrow), f32(d, s.dv, narrow)
			d.Attention(out, lse, q, k, v, a)
			for b.Loop() {
				d.AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v, a)
			}
			reportRates(b, n*(n+1)/2*h.heads*h.dim*10, 0)
		})
	}
}

func BenchmarkDistribution(b *testing.B) {
	const rows, vocab = 16, 49152
	for _, threads := range []int{1, 2} {
		d := New(threads)
		defer d.Close()
		r := rand.New(rand.NewPCG(1, 1))
		x, u := f32(d, normals(r, rows*vocab), vocab), f32(d, make([]float32, rows), 1)
		for i := range rows {
			viewOf("", u).row(i)[0] = r.Float32()
		}
		ids, lp, lse := d.New(kernels.I32, rows, 1), d.New(kernels.F32, rows, 1), d.New(kernels.F32, rows, 1)
		out := d.New(kernels.F32, rows, vocab)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"Sample", func() { d.Sample(ids, lp, x, u, kernels.Dist{}) }},
			{"LogProb", func() { d.LogProb(lp, lse, x, ids, kernels.Dist{}) }},
			{"LogProbGrad", func() { d.LogProbGrad(out, x, lse, ids, lp, kernels.Dist{}) }},
		} {
			b.Run(fmt.Sprintf("%s/threads=%d", op.name, threads), func(b *testing.B) {
				for b.Loop() {
					op.run()
				}
				reportRates(b, 0, rows*vocab*4)
			})
		}
	}
}

// The leaves on a row that stays in the first cache: bytes read and written a second.
func BenchmarkLeaves(b *testing.B) {
	const n = 1536
	r := rand.New(rand.NewPCG(1, 1))
	var v [5][]float32
	for i := range v {
		v[i] = normals(r, n)
	}
	c := &adam{scale: 1, keep: 1, first: 0.1, beta2: 0.999, second: 0.001, root: 1, eps: 1e-8, step: 0}
	for _, leaf := range []struct {
		name    string
		streams int
		run     func()
	}{
		{"add", 3, func() { add(v[0], v[1], v[2]) }},
		{"dot", 2, func() { dot(v[0], v[1]) }},
		{"exp", 2, func() { exp(v[0], v[1]) }},
		{"maxScaled", 1, func() { maxScaled(v[1], nil, 1) }},
		{"sumExp", 1, func() { sumExp(v[1], nil, 1, 4) }},
		{"softmax", 2, func() { softmax(v[0], v[1], 1, 4) }},
		{"mulScale", 3, func() { mulScale(v[0], v[1], v[2], 1) }},
		{"swiglu", 3, func() { swiglu(v[0], v[1], v[2]) }},
		{"swigluGrad", 7, func() { swigluGrad(v[0], v[3], v[1], v[2], v[4]) }},
		{"adamStep", 7, func() { adamStep(v[1], v[2], v[0], v[4], c) }},
	} {
		b.Run(leaf.name, func(b *testing.B) {
			for b.Loop() {
				leaf.run()
			}
			reportRates(b, 0, leaf.streams*n*4)
		})
	}
}
