package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// No operation of a step allocates once the scratch has grown.
func TestVectorOperationsDoNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, threads := range []int{1, 2} {
		d := New(threads)
		h, rows := headsCase{4, 2, 32}, 300
		s := h.gradCase(r, rows)
		wide, narrow := h.heads*h.dim, h.kv*h.dim
		x, y, z := f32(d, s.q, wide), f32(d, s.dq, wide), f32(d, s.dout, wide)
		k, v, dk, dv := f32(d, s.k, narrow), f32(d, s.v, narrow), f32(d, s.dk, narrow), f32(d, s.dv, narrow)
		out, lse := f32(d, make([]float32, rows*wide), wide), f32(d, make([]float32, rows*h.heads), h.heads)
		rk, rv := d.New(kernels.BF16, rows, narrow), d.New(kernels.BF16, rows, narrow)
		w, dw := f32(d, normals(r, wide), wide), f32(d, normals(r, wide), wide)
		ids, lp, one := d.New(kernels.I32, rows, 1), f32(d, make([]float32, rows), 1), f32(d, normals(r, rows), 1)
		total, table := d.New(kernels.F32, 1, 1), f32(d, normals(r, rows*h.dim), h.dim)
		a := h.attn()
		a.Starts, a.Lengths, a.MaxQueries = i32(d, 1, 0, int32(rows)), i32(d, 1, int32(rows)), rows
		dist := kernels.Dist{Temperature: lp, Mask: i32(d, wide/32, make([]int32, rows*wide/32)...)}
		for i := range ints("", dist.Mask) {
			ints("", dist.Mask)[i] = -1
		}
		exact := d.Load(kernels.Format{Type: kernels.BF16}, wide, wide, make([]byte, 2*wide*wide))
		rounding := d.Load(kernels.Format{Type: kernels.BF16, Acts: kernels.BF16}, wide, wide, make([]byte, 2*wide*wide))
		q8 := make([]byte, kernels.Q8_0.Bytes(wide*wide))
		blocks, widened := d.Load(kernels.Format{Type: kernels.Q8_0, Acts: kernels.I8}, wide, wide, q8), d.Load(kernels.Format{Type: kernels.Q8_0}, wide, wide, q8)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"RMSNorm", func() { d.RMSNorm(out, x, w, 1e-5) }},
			{"RMSNormGrad", func() { d.RMSNormGrad(y, dw, z, x, w, 1e-5) }},
			{"RoPE", func() { d.RoPE(out, ids, kernels.Rotary{HeadDim: h.dim, Table: table}) }},
			{"SwiGLU", func() { d.SwiGLU(out, x, y) }},
			{"SwiGLUGrad", func() { d.SwiGLUGrad(out, y, z, x, x) }},
			{"Add", func() { d.Add(out, x, y) }},
			{"Gather", func() { d.Gather(out, x, ids) }},
			{"Scatter", func() { d.Scatter(out, x, ids) }},
			{"ScatterAdd", func() { d.ScatterAdd(out, x, ids) }},
			{"SumRows", func() { d.SumRows(dw, x) }},
			{"SumSquares", func() { d.SumSquares(total, x) }},
			{"AdamW", func() { d.AdamW(y, z, out, x, kernels.Adam{Step: 1}) }},
			{"Sample", func() { d.Sample(ids, one, x, lp, dist) }},
			{"LogProb", func() { d.LogProb(one, lp, x, ids, dist) }},
			{"LogProbGrad", func() { d.LogProbGrad(out, x, one, ids, one, dist) }},
			{"Linear", func() { d.Linear(out, x, exact, kernels.Tensor{}) }},
			{"Linear by bf16", func() { d.Linear(out, x, rounding, kernels.Tensor{}) }},
			{"Linear by int8", func() { d.Linear(out, x, blocks, kernels.Tensor{}) }},
			{"Linear of blocks", func() { d.Linear(out, x, widened, kernels.Tensor{}) }},
			{"LinearGrad of blocks", func() { d.LinearGrad(out, x, blocks) }},
			{"LinearGrad by bf16", func() { d.LinearGrad(out, x, rounding) }},
			{"Attention", func() { d.Attention(out, lse, x, k, v, a) }},
			{"Copy, rounded", func() { d.Copy(rk, k) }},
			{"Scatter, rounded", func() { d.Scatter(rk, k, ids) }},
			{"Attention, rounded", func() { d.Attention(out, lse, x, rk, rv, a) }},
			{"AttentionGrad", func() { d.AttentionGrad(y, dk, dv, z, out, lse, x, k, v, a) }},
		} {
			d.Fill(lp, 0)
			if n := testing.AllocsPerRun(5, op.run); n > 0 {
				t.Errorf("%s on %d threads: %v allocations a call", op.name, threads, n)
			}
			if err := d.Sync(); err != nil {
				t.Errorf("%s: %v", op.name, err)
			}
		}
		d.Close()
	}
}
