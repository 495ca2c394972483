package ref_test

import (
	"math"
	"math/cmplx"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// near fails the test unless two numbers agree to float64's precision.
func near(t *testing.T, got, want float64, what string, args ...any) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-12*(1+math.Abs(want))) {
		t.Fatalf(what+": %v, want %v", append(args, got, want)...)
	}
}

func TestMatMulByHand(t *testing.T) {
	d := ref.New()
	bias := tensor(d, k.F32, 1, 2, 100, 200)
	// [1 2; 3 4; 5 6] · [7 8; 9 10] = [25 28; 57 64; 89 100]
	plain, turned := tensor(d, k.F32, 3, 2, 1, 2, 3, 4, 5, 6), tensor(d, k.F32, 2, 3, 1, 3, 5, 2, 4, 6)
	right, back := tensor(d, k.F32, 2, 2, 7, 8, 9, 10), tensor(d, k.F32, 2, 2, 7, 9, 8, 10)
	product := []float64{25, 28, 57, 64, 89, 100}
	for _, g := range []k.Gemm{{Alpha: 1}, {Alpha: -2}, {Alpha: 2, Bias: bias}, {Alpha: 1, Accumulate: true}} {
		for n := range 4 {
			a, b := plain, right
			if g.TransA = n&1 == 1; g.TransA {
				a = turned
			}
			if g.TransB = n&2 == 2; g.TransB {
				b = back
			}
			c := tensor(d, k.F32, 3, 2, 1, 1, 1, 1, 1, 1)
			d.MatMul(c, a, b, g)
			for i, p := range product {
				want := float64(g.Alpha) * p
				if !g.Bias.Zero() {
					want += []float64{100, 200}[i%2]
				}
				if g.Accumulate {
					want++
				}
				near(t, ref.Row(c, i/2)[i%2], want, "%+v: element %d", g, i)
			}
		}
	}
}

func TestRMSNormUnitMean(t *testing.T) {
	d := ref.New()
	x, w := random(d, 2, 15), tensor(d, k.F32, 1, 5, 1, 1, 1, 1, 1)
	out := d.New(k.F32, 2, 15)
	d.RMSNorm(out, x, w, 0)
	for i := range 2 {
		for o := 0; o < 15; o += 5 {
			y, xs := ref.Row(out, i)[o:o+5], ref.Row(x, i)[o:o+5]
			s := 0.0
			for j := range y {
				s += y[j] * y[j]
				near(t, y[j]*xs[0], xs[j]*y[0], "out is not along x in column %d", o+j)
			}
			near(t, s/5, 1, "mean square")
		}
	}
	d.RMSNorm(out, tensor(d, k.F32, 2, 15), w, 0.25)
	near(t, ref.Row(out, 1)[3], 0, "zeros")
	d.RMSNorm(out.Slice(0, 1).Columns(0, 5), tensor(d, k.F32, 1, 5, 0.5, -0.5, 0.5, 0.5, 0.5), w, 0.75)
	near(t, ref.Row(out, 0)[1], -0.5, "-½ / sqrt(¼ + ¾)")
}

func TestRoPEIsComplexRotation(t *testing.T) {
	d := ref.New()
	const dim, half = 8, 4
	table := d.New(k.F32, 50, dim)
	angle := func(p, j int) float64 { return float64(p) * math.Pow(10000, -float64(2*j)/dim) }
	for p := range 50 {
		for j := range half {
			ref.Row(table, p)[j], ref.Row(table, p)[half+j] = math.Cos(angle(p, j)), math.Sin(angle(p, j))
		}
	}
	x, y, pos := random(d, 3, 2*dim), d.New(k.F32, 3, 2*dim), tensor(d, k.I32, 3, 1, 49, 0, 17)
	for _, turn := range []float64{1, -1} {
		d.Copy(y, x)
		d.RoPE(y, pos, k.Rotary{HeadDim: dim, Table: table, Inverse: turn < 0})
		for i := range 3 {
			p := int(ref.Row(pos, i)[0])
			for h := range 2 {
				for j := range half {
					a, b := h*dim+j, h*dim+half+j
					want := complex(ref.Row(x, i)[a], ref.Row(x, i)[b]) * cmplx.Exp(complex(0, turn*angle(p, j)))
					near(t, ref.Row(y, i)[a], real(want), "row %d, column %d", i, a)
					near(t, ref.Row(y, i)[b], imag(want), "row %d, column %d", i, b)
				}
			}
		}
	}
}

func TestSwiGLUByTanh(t *testing.T) {
	d := ref.New()
	gate, up, out := random(d, 4, 9), random(d, 4, 9), d.New(k.F32, 4, 9)
	d.SwiGLU(out, gate, up)
	for i := range 4 {
		for j, g := range ref.Row(gate, i) {
			near(t, ref.Row(out, i)[j], g*(1+math.Tanh(g/2))/2*ref.Row(up, i)[j], "gate %v", g)
		}
	}
}

// naive is softmax(q·kᵀ·scale)·v of one head as two loops over plain slices, the exponentials not shifted.
func naive(q, key, v [][]float64, scale float64) (out [][]float64, lse []float64) {
	for i := range q {
		first := len(key) - len(q) + i + 1 // keys seen
		row, total := make([]float64, len(q[i])), 0.0
		for j := range first {
			s := 0.0
			for c := range q[i] {
				s += q[i][c] * key[j][c]
			}
			e := math.Exp(s * scale)
			total += e
			for c := range row {
				row[c] += e * v[j][c]
			}
		}
		for c := range row {
			row[c] /= total
		}
		out, lse = append(out, row), append(lse, math.Log(total))
	}
	return out, lse
}

// columnsOf copies some columns of the given rows.
func columnsOf(t k.Tensor, from, n int, rows ...int) (m [][]float64) {
	for _, r := range rows {
		m = append(m, append([]float64(nil), ref.Row(t, r)[from:from+n]...))
	}
	return m
}

func TestAttentionNaively(t *testing.T) {
	d := ref.New()
	// Two sequences in pages of 2: three queries over five keys, one query over two.
	a := k.Attn{Heads: 6, KVHeads: 2, HeadDim: 4, Scale: 0.5, PageSize: 2, MaxQueries: 3,
		Starts: tensor(d, k.I32, 3, 1, 0, 3, 4), Lengths: tensor(d, k.I32, 2, 1, 5, 2),
		Pages: tensor(d, k.I32, 2, 3, 4, 1, 2, 3, -9, -9)}
	keys := [][]int{{8, 9, 2, 3, 4}, {6, 7}}
	q, key, v := random(d, 4, 24), random(d, 10, 8), random(d, 10, 8)
	for _, unused := range []int{0, 1, 5} {
		ref.Row(key, unused)[0], ref.Row(v, unused)[0] = math.NaN(), math.NaN()
	}
	out, lse := d.New(k.F32, 4, 24), d.New(k.F32, 4, 6)
	d.Fill(out, float32(math.NaN()))
	d.Attention(out, lse, q, key, v, a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	for s, rows := range [][]int{{0, 1, 2}, {3}} {
		for h := range 6 {
			kv := h / 3 * 4
			want, wantLSE := naive(columnsOf(q, 4*h, 4, rows...), columnsOf(key, kv, 4, keys[s]...), columnsOf(v, kv, 4, keys[s]...), 0.5)
			for i, r := range rows {
				near(t, ref.Row(lse, r)[h], wantLSE[i], "lse of row %d, head %d", r, h)
				for c := range 4 {
					near(t, ref.Row(out, r)[4*h+c], want[i][c], "row %d, head %d, column %d", r, h, c)
				}
			}
		}
	}
}

// Softmax at a temperature is the distribution whose log-probabilities differ as logits do over it.
func TestLogProbDefinesSoftmax(t *testing.T) {
	d := ref.New()
	const vocab = 40
	for _, temperature := range []float64{0.5, 1, 3, 0} {
		logits, lp, lse, ids := d.New(k.F32, vocab, vocab), d.New(k.F32, vocab, 1), d.New(k.F32, vocab, 1), d.New(k.I32, vocab, 1)
		one, temps, mask := random(d, 1, vocab), d.New(k.F32, vocab, 1), d.New(k.I32, vocab, 2)
		d.Fill(temps, float32(temperature))
		var allowed []int
		for id := range vocab {
			copy(ref.Row(logits, id), ref.Row(one, 0))
			ref.Row(ids, id)[0] = float64(id)
			ref.Row(mask, id)[0], ref.Row(mask, id)[1] = -2147483648+1+4, 2 // 0, 2, 31, 33
			if id == 0 || id == 2 || id == 31 || id == 33 {
				allowed = append(allowed, id)
			}
		}
		by := temperature
		if by == 0 {
			by = 1
		}
		total := 0.0
		for i, id := range allowed {
			at := func(t k.Tensor) k.Tensor { return t.Slice(id, 1) }
			d.LogProb(at(lp), at(lse), at(logits), at(ids), k.Dist{Temperature: at(temps), Mask: at(mask)})
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			total += math.Exp(ref.Row(lp, id)[0])
			first := allowed[0]
			near(t, ref.Row(lp, id)[0]-ref.Row(lp, first)[0], (ref.Row(one, 0)[id]-ref.Row(one, 0)[first])/by, "id %d", allowed[i])
		}
		near(t, total, 1, "the allowed ids' probabilities at temperature %v", temperature)
	}
}

// AdamW's moments in closed form: weighted sums of all gradients so far.
func TestAdamWInClosedForm(t *testing.T) {
	d := ref.New()
	o := k.Adam{LR: 0.125, Beta1: 0.75, Beta2: 0.875, Eps: 0.0078125, Decay: 0.25, Scale: 0.5}
	w, m, v := random(d, 2, 3), d.New(k.F32, 2, 3), d.New(k.F32, 2, 3)
	want, grads := append(columnsOf(w, 0, 3, 0, 1)[0], ref.Row(w, 1)...), [][]float64{}
	for step := 1; step <= 6; step++ {
		g := random(d, 2, 3)
		grads = append(grads, append(columnsOf(g, 0, 3, 0)[0], ref.Row(g, 1)...))
		o.Step = step
		d.AdamW(w, m, v, g, o)
		for e := range want {
			var first, second, n1, n2 float64
			for i, past := range grads {
				w1, w2 := math.Pow(0.75, float64(step-1-i)), math.Pow(0.875, float64(step-1-i))
				first, n1 = first+w1*past[e]/2, n1+w1
				second, n2 = second+w2*past[e]*past[e]/4, n2+w2
			}
			want[e] = want[e]*(1-0.125*0.25) - 0.125*(first/n1)/(math.Sqrt(second/n2)+0.0078125)
			near(t, ref.Row(w, e/3)[e%3], want[e], "step %d, element %d", step, e)
		}
	}
}
