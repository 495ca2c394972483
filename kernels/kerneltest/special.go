package kerneltest

import (
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// specialChecks meet inputs where a formula taken literally overflows or loses all digits.
var specialChecks = []check{
	{"SwiGLU/special", swiGLUSpecial},
	{"RMSNorm/special", rmsNormSpecial},
	{"LogProb/special", logProbSpecial},
	{"Entropy/special", entropySpecial},
	{"Attention/special", attentionSpecial},
	{"Add/in place", addInPlace},
	{"AdamW/steps", adamSteps},
}

// swiGLUSpecial: each gate by itself, since its results lie orders of magnitude apart. An exponential below
// the smallest normal number may be taken for zero: hence the scale.
func swiGLUSpecial(t *testing.T, be k.Backend, g source) {
	for _, gate := range []float64{0, math.Copysign(0, -1), 1e-30, -1e-30, 1, -1, 20, -20, 60, -60, 87, -87, 89, -89, 104, -104, 1e4, -1e4, 1e30, -1e30} {
		p := &problem{length: 4}
		out, x, y := p.out(shared, 1, 3, 1e-29), p.in(shared, of(3, gate, gate, gate)), p.in(shared, of(3, 1, -2, 0.5))
		p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SwiGLU(t[out], t[x], t[y]) }
		nearEach(t, be, g, p, gate)

		p = &problem{length: 4}
		dg, du := p.up(shared, of(3, 0, 0, 0), 1e-29), p.up(shared, of(3, 0, 0, 0), 1e-29)
		dy, x, y := p.in(shared, of(3, 1, 3, -1)), p.in(shared, of(3, gate, gate, gate)), p.in(shared, of(3, 1, -2, 0.5))
		p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SwiGLUGrad(t[dg], t[du], t[dy], t[x], t[y]) }
		nearEach(t, be, g, p, gate)
	}
}

// nearEach compares p's outputs with the oracle's and says which input it was.
func nearEach(t *testing.T, be k.Backend, g source, p *problem, input any) {
	t.Helper()
	got, want := p.run(t, be, g), p.run(t, oracle(), g)
	for i, o := range p.operands {
		if o.role != 0 {
			near(t, got[i], want[i], o.scale, p.length, "operand %d where the input is %v", i, input)
		}
	}
}

// rmsNormSpecial: rows of zeros, of tiny and of large numbers, and of one number among zeros.
func rmsNormSpecial(t *testing.T, be k.Backend, g source) {
	for _, n := range []int{8, 37, 576} {
		for _, size := range []float64{0, 1e-30, 1e-10, 1e-3, 1e3, 1e15} {
			p := &problem{length: n}
			x := g.floats(3, n, size)
			clear(x.row(1)[1:])
			out, in, w := p.out(shared, 3, n, 1e-37), p.in(shared, x), p.in(shared, g.floats(1, n, 1))
			p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.RMSNorm(t[out], t[in], t[w], eps) }
			nearEach(t, be, g, p, size)
		}
	}
}

// logProbSpecial: logits far apart, and impossible ones; a target without probability scores -Inf.
func logProbSpecial(t *testing.T, be k.Backend, g source) {
	const vocab = 40
	inf := math.Inf(-1)
	logits := g.floats(5, vocab, 1)
	set := func(row, id int, v float64) { logits.row(row)[id] = math.Float32bits(float32(v)) }
	for id := range vocab {
		set(0, id, 1e4+float64(id))         // large alike
		set(1, id, -1e4*float64(id))        // far apart
		set(2, id, inf)                     // all but one
		set(3, id, float64(id)*1e-30)       // equal
		set(4, id, []float64{3, inf}[id%2]) // the target impossible
	}
	set(2, 7, -5)
	p := &problem{length: vocab}
	l, ids := p.in(shared, logits), p.in(shared, intsOf(3, 1, 7, 39, 1))
	lp, lse := p.out(shared, 5, 1, 0), p.out(shared, 5, 1, 0)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.LogProb(t[lp], t[lse], t[l], t[ids], k.Dist{}) }
	got, want := p.run(t, be, g), p.run(t, oracle(), g)
	for i, size := range []float64{1e4, 1e4, 5, 4, 4} {
		for _, o := range []int{lp, lse} {
			near(t, of(1, got[o].value(i)), of(1, want[o].value(i)), size, 1, "row %d, operand %d", i, o)
		}
	}
}

// entropySpecial: one id alone has an entropy of 0, n equal ones of ln n, and an impossible one has no part in it.
func entropySpecial(t *testing.T, be k.Backend, g source) {
	const vocab = 1100
	inf := math.Inf(-1)
	for _, c := range []struct {
		name      string
		logit     func(id int) float64
		lse, want float64
	}{
		{"equal", func(int) float64 { return -2 }, math.Log(vocab) - 2, math.Log(vocab)},
		{"one possible", func(id int) float64 { return []float64{inf, 3}[min(id/(vocab-1), 1)] }, 3, 0},
		{"one far above", func(id int) float64 { return -200 * float64(id) }, 0, 0},
		{"every other impossible", func(id int) float64 { return []float64{0, inf}[id%2] }, math.Log(vocab / 2), math.Log(vocab / 2)},
	} {
		logits := filled(k.F32, 1, vocab, 0)
		for id := range vocab {
			logits.bits[id] = math.Float32bits(float32(c.logit(id)))
		}
		p := &problem{length: vocab}
		l, lse, h := p.in(shared, logits), p.in(shared, of(1, c.lse)), p.out(shared, 1, 1, 0)
		p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Entropy(t[h], t[l], t[lse], k.Dist{}) }
		got := p.run(t, be, g)[h]
		near(t, of(1, got.value(0)), of(1, c.want), 1, 1, "entropy where ids are %s", c.name)
	}
}

// attentionSpecial: scores of ± thousands, all scores equal, and one key alone.
func attentionSpecial(t *testing.T, be k.Backend, g source) {
	for _, size := range []float64{0, 1e-30, 30, 100} {
		h := g.heads()
		seqs := g.sequences(h, 2, 90)
		for i := range seqs {
			n := seqs[i].q.rows
			seqs[i].q, seqs[i].k = g.floats(n, h.heads*h.dim, size), g.floats(n, h.kv*h.dim, size)
		}
		a := attend(g, h, seqs, wholes(seqs, []int{1, 0}), 0)
		got, want := a.run(t, be, g), a.run(t, oracle(), g)
		scores := 1 + 5*size*size // their rounding moves each weight by this share
		near(t, got[a.out], want[a.out], scores, a.length, "out where q and k are of size %v", size)
		near(t, got[a.lse], want[a.lse], scores, a.length, "lse where q and k are of size %v", size)
	}
}

// addInPlace: the residual stream is added to where it is.
func addInPlace(t *testing.T, be k.Backend, g source) {
	for _, first := range []bool{true, false} {
		p, cols := &problem{}, g.size(1, 200)
		x, y := p.up(shared, g.floats(9, cols, 1), 0), p.in(shared, g.floats(9, cols, 1))
		p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
			if first {
				be.Add(t[x], t[x], t[y])
			} else {
				be.Add(t[x], t[y], t[x])
			}
		}
		values(t, be, g, p)
	}
}

// adamSteps: ten steps from zero moments, where the bias correction counts.
func adamSteps(t *testing.T, be k.Backend, g source) {
	p := &problem{length: 100}
	w, m, v := p.up(shared, g.floats(5, 33, 1), 0), p.up(shared, filled(k.F32, 5, 33, 0), 0.1), p.up(shared, filled(k.F32, 5, 33, 0), 0)
	var grads []int
	for range 10 {
		grads = append(grads, p.in(shared, g.floats(5, 33, 1)))
	}
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		for i, grad := range grads {
			be.AdamW(t[w], t[m], t[v], t[grad], k.Adam{LR: 0.02, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Decay: 0.1, Scale: 0.7, Step: i + 1})
		}
	}
	values(t, be, g, p)
}
