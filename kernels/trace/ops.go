package trace

import (
	"time"

	k "github.com/r2-reasoner/r2/kernels"
)

func (d *Device) Write(dst k.Tensor, src []byte) {
	d.op("Write", int64(len(src)), func() { d.Backend.Write(dst, src) })
}

func (d *Device) Copy(dst, src k.Tensor) {
	d.op("Copy", size(dst, src), func() { d.Backend.Copy(dst, src) })
}

func (d *Device) Fill(dst k.Tensor, v float32) {
	d.op("Fill", size(dst), func() { d.Backend.Fill(dst, v) })
}

// Embed reads as many rows of the table as it writes.
func (d *Device) Embed(out k.Tensor, table k.Weight, ids k.Tensor) {
	rows := int64(out.Rows) * int64(table.Type.Bytes(table.Cols))
	d.op("Embed", size(out, ids)+rows, func() { d.Backend.Embed(out, table, ids) })
}

func (d *Device) RMSNorm(out, x, w k.Tensor, eps float32) {
	d.op("RMSNorm", size(out, x, w), func() { d.Backend.RMSNorm(out, x, w, eps) })
}

func (d *Device) Linear(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	d.op("Linear", size(out, x, bias)+sizeW(w), func() { d.Backend.Linear(out, x, w, bias) })
}

// Fused is the inner device's, if it has one; what it refuses is not counted.
func (d *Device) Fused(out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) bool {
	f, ok := d.Backend.(k.Fuser)
	if !ok {
		return false
	}
	start := time.Now()
	if d.err == nil && !f.Fused(out, x, w, bias, e) {
		return false
	}
	n := size(out, x, bias, e.Plus) + sizeW(w)
	for _, a := range e.Expands {
		n += size(a.Low, a.B)
	}
	d.count("Fused", n, start)
	return true
}

func (d *Device) MatMul(c, a, b k.Tensor, g k.Gemm) {
	d.op("MatMul", size(c, a, b, g.Bias), func() { d.Backend.MatMul(c, a, b, g) })
}

func (d *Device) RoPE(x, pos k.Tensor, r k.Rotary) {
	d.op("RoPE", size(x, pos), func() { d.Backend.RoPE(x, pos, r) })
}

// Attention counts all of k and v: which pages are read is known on the device alone.
func (d *Device) Attention(out, lse, q, key, v k.Tensor, a k.Attn) {
	d.op("Attention", size(out, lse, q, key, v), func() { d.Backend.Attention(out, lse, q, key, v, a) })
}

func (d *Device) SwiGLU(out, gate, up k.Tensor) {
	d.op("SwiGLU", size(out, gate, up), func() { d.Backend.SwiGLU(out, gate, up) })
}

func (d *Device) Add(out, a, b k.Tensor) {
	d.op("Add", size(out, a, b), func() { d.Backend.Add(out, a, b) })
}

// Gather reads as many rows of x as it writes.
func (d *Device) Gather(out, x, rows k.Tensor) {
	d.op("Gather", 2*size(out)+size(rows), func() { d.Backend.Gather(out, x, rows) })
}

// Scatter writes as many rows of out as it reads, skipped ones included.
func (d *Device) Scatter(out, x, rows k.Tensor) {
	d.op("Scatter", 2*size(x)+size(rows), func() { d.Backend.Scatter(out, x, rows) })
}

func (d *Device) LogProb(lp, lse, logits, ids k.Tensor, dist k.Dist) {
	d.op("LogProb", size(lp, lse, logits, ids, dist.Temperature, dist.Mask), func() {
		d.Backend.LogProb(lp, lse, logits, ids, dist)
	})
}

func (d *Device) Entropy(h, logits, lse k.Tensor, dist k.Dist) {
	d.op("Entropy", size(h, logits, lse, dist.Temperature, dist.Mask), func() { d.Backend.Entropy(h, logits, lse, dist) })
}

func (d *Device) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	d.op("Sample", size(ids, lp, logits, uniform, dist.Temperature, dist.Mask), func() {
		d.Backend.Sample(ids, lp, logits, uniform, dist)
	})
}

func (d *Device) RMSNormGrad(dx, dw, dy, x, w k.Tensor, eps float32) {
	d.op("RMSNormGrad", size(dx, dw, dy, x, w), func() { d.Backend.RMSNormGrad(dx, dw, dy, x, w, eps) })
}

func (d *Device) LinearGrad(dx, dout k.Tensor, w k.Weight) {
	d.op("LinearGrad", size(dx, dout)+sizeW(w), func() { d.Backend.LinearGrad(dx, dout, w) })
}

func (d *Device) AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v k.Tensor, a k.Attn) {
	d.op("AttentionGrad", size(dq, dk, dv, dout, out, lse, q, key, v), func() {
		d.Backend.AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v, a)
	})
}

func (d *Device) SwiGLUGrad(dgate, dup, dy, gate, up k.Tensor) {
	d.op("SwiGLUGrad", size(dgate, dup, dy, gate, up), func() { d.Backend.SwiGLUGrad(dgate, dup, dy, gate, up) })
}

func (d *Device) LogProbGrad(dlogits, logits, lse, ids, coef k.Tensor, dist k.Dist) {
	d.op("LogProbGrad", size(dlogits, logits, lse, ids, coef, dist.Temperature, dist.Mask), func() {
		d.Backend.LogProbGrad(dlogits, logits, lse, ids, coef, dist)
	})
}

func (d *Device) SumRows(out, x k.Tensor) {
	d.op("SumRows", size(out, x), func() { d.Backend.SumRows(out, x) })
}

func (d *Device) ScatterAdd(out, x, rows k.Tensor) {
	d.op("ScatterAdd", 2*size(x)+size(rows), func() { d.Backend.ScatterAdd(out, x, rows) })
}

func (d *Device) SumSquares(out, x k.Tensor) {
	d.op("SumSquares", size(out, x), func() { d.Backend.SumSquares(out, x) })
}

func (d *Device) AdamW(w, m, v, g k.Tensor, o k.Adam) {
	d.op("AdamW", size(w, m, v, g), func() { d.Backend.AdamW(w, m, v, g, o) })
}
