package ref_test

import (
	"math"
	"math/rand/v2"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// random is a tensor of normal deviates.
func random(d *ref.Device, rows, cols int) k.Tensor {
	t := d.New(k.F32, rows, cols)
	for i := range rows {
		for j := range cols {
			ref.Row(t, i)[j] = rand.NormFloat64()
		}
	}
	return t
}

func inner(a, b k.Tensor) (s float64) {
	for i := range a.Rows {
		for j, v := range ref.Row(a, i) {
			s += v * ref.Row(b, i)[j]
		}
	}
	return s
}

// already is what every gradient holds before a Grad operation adds to it.
const already = 0.75

// gradient is a tensor for a gradient by x.
func gradient(d *ref.Device, x k.Tensor) k.Tensor {
	g := d.New(k.F32, x.Rows, x.Cols)
	d.Fill(g, already)
	return g
}

// differ compares g − from with the central differences of loss by each element of x.
func differ(t *testing.T, name string, d *ref.Device, x, g k.Tensor, from float64, loss func() float64) {
	t.Helper()
	const h = 1e-5
	worst := 0.0
	for i := range x.Rows {
		for j, v := range ref.Row(x, i) {
			ref.Row(x, i)[j] = v + h
			up := loss()
			ref.Row(x, i)[j] = v - h
			down := loss()
			ref.Row(x, i)[j] = v
			got, want := ref.Row(g, i)[j]-from, (up-down)/(2*h)
			worst = max(worst, math.Abs(got-want)/(1+math.Abs(want)))
			if !(math.Abs(got-want) <= 1e-7*(1+math.Abs(want))) {
				t.Fatalf("%s: row %d, column %d: gradient %v, difference quotient %v", name, i, j, got, want)
			}
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Logf("%s: worst error %.1e", name, worst)
}

func TestRMSNormGrad(t *testing.T) {
	d := ref.New()
	x, w, dy, out := random(d, 3, 12), random(d, 1, 4), random(d, 3, 12), d.New(k.F32, 3, 12)
	loss := func() float64 { d.RMSNorm(out, x, w, 0.01); return inner(out, dy) }
	dx, dw := gradient(d, x), gradient(d, w)
	d.RMSNormGrad(dx, dw, dy, x, w, 0.01)
	differ(t, "dx", d, x, dx, already, loss)
	differ(t, "dw", d, w, dw, already, loss)
	alone := gradient(d, x)
	d.RMSNormGrad(alone, k.Tensor{}, dy, x, w, 0.01)
	differ(t, "dx without dw", d, x, alone, already, loss)
}

func TestLinearGrad(t *testing.T) {
	d := ref.New()
	raw := []byte{}
	for range 5 * 7 {
		raw = append(raw, byte(rand.N(256)), byte(0x3c+rand.N(8))) // some normal F16 numbers
	}
	w := d.Load(k.Format{Type: k.F16}, 5, 7, raw)
	x, bias, dout, out := random(d, 3, 7), random(d, 1, 5), random(d, 3, 5), d.New(k.F32, 3, 5)
	loss := func() float64 { d.Linear(out, x, w, bias); return inner(out, dout) }
	dx, db := gradient(d, x), gradient(d, bias)
	d.LinearGrad(dx, dout, w)
	d.SumRows(db, dout)
	differ(t, "dx", d, x, dx, already, loss)
	differ(t, "dbias", d, bias, db, already, loss)
}

func TestMatMulGrad(t *testing.T) {
	d := ref.New()
	a, b, dc, c := random(d, 3, 4), random(d, 4, 5), random(d, 3, 5), d.New(k.F32, 3, 5)
	loss := func() float64 { d.MatMul(c, a, b, k.Gemm{Alpha: 1}); return inner(c, dc) }
	da, db := gradient(d, a), gradient(d, b)
	d.MatMul(da, dc, b, k.Gemm{TransB: true, Alpha: 1, Accumulate: true})
	d.MatMul(db, a, dc, k.Gemm{TransA: true, Alpha: 1, Accumulate: true})
	differ(t, "da", d, a, da, already, loss)
	differ(t, "db", d, b, db, already, loss)
}

func TestGatherGrad(t *testing.T) {
	d := ref.New()
	x, dy, out, rows := random(d, 4, 3), random(d, 5, 3), d.New(k.F32, 5, 3), tensor(d, k.I32, 5, 1, 2, 0, 2, 3, 2)
	dx := gradient(d, x)
	d.ScatterAdd(dx, dy, rows)
	differ(t, "dx", d, x, dx, already, func() float64 { d.Gather(out, x, rows); return inner(out, dy) })
}

func TestRoPEGrad(t *testing.T) {
	d := ref.New()
	table := d.New(k.F32, 9, 6)
	for p := range 9 {
		for j := range 3 {
			ref.Row(table, p)[3+j], ref.Row(table, p)[j] = math.Sincos(float64(p) / math.Pow(100, float64(j)/3))
		}
	}
	r := k.Rotary{HeadDim: 6, Table: table}
	x, y, dy, pos := random(d, 4, 12), d.New(k.F32, 4, 12), random(d, 4, 12), tensor(d, k.I32, 4, 1, 0, 3, 8, 3)
	dx := d.New(k.F32, 4, 12)
	d.Copy(dx, dy)
	r.Inverse = true
	d.RoPE(dx, pos, r)
	r.Inverse = false
	differ(t, "dx", d, x, dx, 0, func() float64 { d.Copy(y, x); d.RoPE(y, pos, r); return inner(y, dy) })
}

func TestSwiGLUGrad(t *testing.T) {
	d := ref.New()
	gate, up, dy, out := random(d, 3, 5), random(d, 3, 5), random(d, 3, 5), d.New(k.F32, 3, 5)
	loss := func() float64 { d.SwiGLU(out, gate, up); return inner(out, dy) }
	dg, du := gradient(d, gate), gradient(d, up)
	d.SwiGLUGrad(dg, du, dy, gate, up)
	differ(t, "dgate", d, gate, dg, already, loss)
	differ(t, "dup", d, up, du, already, loss)
}

func TestAttentionGrad(t *testing.T) {
	t.Run("alone", func(t *testing.T) { attentionGrad(t, 5, 1, 3) })
	t.Run("keys shared", func(t *testing.T) { attentionGrad(t, 5, 3, 8) })
}

// attentionGrad checks three sequences of 5, 1 and 3 rows that see so many keys.
func attentionGrad(t *testing.T, keys ...float64) {
	d := ref.New()
	a := k.Attn{Heads: 4, KVHeads: 2, HeadDim: 3, Scale: 0.6, MaxQueries: 5,
		Starts: tensor(d, k.I32, 4, 1, 0, 5, 6, 9), Lengths: tensor(d, k.I32, 3, 1, keys...)}
	q, key, v, dout := random(d, 9, 12), random(d, 9, 6), random(d, 9, 6), random(d, 9, 12)
	out, lse := d.New(k.F32, 9, 12), d.New(k.F32, 9, 4)
	loss := func() float64 { d.Attention(out, lse, q, key, v, a); return inner(out, dout) }
	loss()
	dq, dk, dv := gradient(d, q), gradient(d, key), gradient(d, v)
	d.AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v, a)
	differ(t, "dq", d, q, dq, already, loss)
	differ(t, "dk", d, key, dk, already, loss)
	differ(t, "dv", d, v, dv, already, loss)
}

func TestLogProbGrad(t *testing.T) {
	d := ref.New()
	logits, coef, ids := random(d, 4, 35), random(d, 4, 1), tensor(d, k.I32, 4, 1, 0, 34, 7, 20)
	some := k.Dist{
		Temperature: tensor(d, k.F32, 4, 1, 0.5, 1, 2, 0),
		Mask:        tensor(d, k.I32, 4, 2, 0x55, 0, -1, 7, 0x700f0, 4, 0x7f100000, 5),
	}
	for name, dist := range map[string]k.Dist{"plain": {}, "temperature and mask": some} {
		lp, lse, dlogits := d.New(k.F32, 4, 1), d.New(k.F32, 4, 1), d.New(k.F32, 4, 35)
		loss := func() float64 { d.LogProb(lp, lse, logits, ids, dist); return inner(lp, coef) }
		loss()
		d.Fill(dlogits, float32(math.NaN())) // it is set, not added to
		d.LogProbGrad(dlogits, logits, lse, ids, coef, dist)
		differ(t, name, d, logits, dlogits, 0, loss)
		loss() // lse is that of the last difference by now
		held := d.New(k.F32, 4, 35)
		d.Copy(held, logits)
		d.LogProbGrad(held, held, lse, ids, coef, dist)
		differ(t, name+", in place", d, logits, held, 0, loss)
	}
}
