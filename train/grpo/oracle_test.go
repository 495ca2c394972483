package grpo

import (
	"math"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// scene is a step's worth of random completions.
type scene struct {
	c    Config
	rows []Row
	of   Totals
}

func anyScene(t *rapid.T) scene {
	s := scene{c: Config{
		Loss:        rapid.SampledFrom(Kinds).Draw(t, "loss"),
		Advantage:   PerGroup,
		EpsilonLow:  rapid.Float64Range(0.01, 0.5).Draw(t, "low"),
		EpsilonHigh: rapid.Float64Range(0.01, 2).Draw(t, "high"),
		KL:          rapid.SampledFrom([]float64{0, 0.04, 1}).Draw(t, "kl"),
		Delta:       rapid.SampledFrom([]float64{0, 1.5, 3}).Draw(t, "delta"),
		Kind:        rapid.SampledFrom([]Divergence{"", K1, K2, K3}).Draw(t, "divergence"),
		Corrected:   rapid.Bool().Draw(t, "corrected"),
		Length:      16,
	}}
	number := func(lo, hi float64) *rapid.Generator[float64] { return rapid.Float64Range(lo, hi) }
	for range rapid.IntRange(1, 5).Draw(t, "rows") {
		n := rapid.IntRange(0, 6).Draw(t, "tokens")
		s.rows = append(s.rows, Row{
			Advantage: number(-2, 2).Draw(t, "advantage"),
			LogProbs:  rapid.SliceOfN(number(-6, 0), n, n).Draw(t, "logp"),
			Old:       rapid.SliceOfN(number(-6, 0), n, n).Draw(t, "old"),
			Ref:       rapid.SliceOfN(number(-6, 0), n, n).Draw(t, "ref"),
		})
		s.of.Rows++
		s.of.Tokens += n
	}
	return s
}

// loss is the step's loss and the derivatives, flat.
func (s *scene) loss() (sum float64, coef []float64) {
	for _, r := range s.rows {
		c := make([]float64, len(r.LogProbs))
		sum += s.c.Row(c, r, s.of).Loss
		coef = append(coef, c...)
	}
	return sum, coef
}

// kinked reports whether a ratio is so near an edge of the clip that a finite difference would cross it.
func (s *scene) kinked() bool {
	near := func(logRatio float64) bool {
		for _, edge := range []float64{1 - s.c.EpsilonLow, 1 + s.c.EpsilonHigh, s.c.Delta} {
			if edge > 0 && math.Abs(logRatio-math.Log(edge)) < 1e-4 {
				return true
			}
		}
		return false
	}
	for _, r := range s.rows {
		total := 0.0
		for i, lp := range r.LogProbs {
			total += lp - r.Old[i]
			if near(lp - r.Old[i]) {
				return true
			}
		}
		if n := len(r.LogProbs); n > 0 && near(total/float64(n)) {
			return true
		}
	}
	return false
}

func TestDerivativesAreThoseOfTheLoss(t *testing.T) {
	const h = 1e-6
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		if s.c.Loss == CISPO || s.kinked() { // cispo's derivative holds the ratio still on purpose
			t.Skip()
		}
		_, coef := s.loss()
		at := 0
		for _, r := range s.rows {
			for i, lp := range r.LogProbs {
				r.LogProbs[i] = lp + h
				up, _ := s.loss()
				r.LogProbs[i] = lp - h
				down, _ := s.loss()
				r.LogProbs[i] = lp
				// The loss reaches e^6 here, so differences of it are good to about 1e-8 of that.
				if d := (up - down) / (2 * h); math.Abs(d-coef[at]) > 1e-6*(1+math.Abs(d)) {
					t.Fatalf("derivative %g, by differences %g", coef[at], d)
				}
				at++
			}
		}
	})
}

// The objective of the paper as autodiff sees it: no line is shared with the code above. Gorgonia's
// graphs race with each other, so this test must not run beside others.
func TestDerivativesMatchGorgonia(t *testing.T) {
	worst := 0.0
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		s.c.Delta, s.c.Kind, s.c.Corrected = 0, K3, false
		if s.c.Loss == CISPO || s.of.Tokens == 0 || s.kinked() {
			t.Skip()
		}
		loss, coef := s.loss()
		wantLoss, want := s.autodiff(t)
		scale := 1.0
		for _, w := range want {
			scale = max(scale, math.Abs(w))
		}
		worst = max(worst, math.Abs(loss-wantLoss)/(1+math.Abs(loss)))
		for i, w := range want {
			worst = max(worst, math.Abs(coef[i]-w)/scale)
		}
		if !(worst < 1e-12) {
			t.Fatalf("%s: off by %g: loss %g, autodiff's %g; coefficients %v, autodiff's %v", s.c.Loss, worst, loss, wantLoss, coef, want)
		}
	})
	t.Logf("worst relative difference %.2g", worst)
}

// columns lays the scene out flat: log-probabilities, and each token's constants.
func (s *scene) columns() (logp, old, ref, adv, weight []float64) {
	for _, r := range s.rows {
		n := float64(len(r.LogProbs))
		for i := range r.LogProbs {
			logp, old, ref = append(logp, r.LogProbs[i]), append(old, r.Old[i]), append(ref, r.Ref[i])
			adv = append(adv, r.Advantage)
			switch s.c.Loss {
			case GRPO, GSPO:
				weight = append(weight, 1/n/float64(s.of.Rows))
			case DrGRPO:
				weight = append(weight, 1/float64(s.of.Rows*s.c.Length))
			default:
				weight = append(weight, 1/float64(s.of.Tokens))
			}
		}
	}
	return
}

// averaging is the matrix that replaces each token's value by the mean over its completion.
func (s *scene) averaging() []float64 {
	n := s.of.Tokens
	m := make([]float64, n*n)
	at := 0
	for _, r := range s.rows {
		k := len(r.LogProbs)
		for i := at; i < at+k; i++ {
			for j := at; j < at+k; j++ {
				m[i*n+j] = 1 / float64(k)
			}
		}
		at += k
	}
	return m
}

func (s *scene) autodiff(t *rapid.T) (float64, []float64) {
	g, n := G.NewGraph(), s.of.Tokens
	logp, old, ref, adv, weight := s.columns()
	vector := func(name string, v []float64) *G.Node {
		return G.NewVector(g, tensor.Float64, G.WithShape(n), G.WithName(name),
			G.WithValue(tensor.New(tensor.WithShape(n), tensor.WithBacking(v))))
	}
	level := func(name string, x float64) *G.Node {
		v := make([]float64, n)
		for i := range v {
			v[i] = x
		}
		return vector(name, v)
	}
	x, a := vector("logp", logp), vector("adv", adv)
	diff := G.Must(G.Sub(x, vector("old", old)))
	if s.c.Loss == GSPO {
		mean := G.NewMatrix(g, tensor.Float64, G.WithShape(n, n), G.WithName("mean"),
			G.WithValue(tensor.New(tensor.WithShape(n, n), tensor.WithBacking(s.averaging()))))
		diff = G.Must(G.Mul(mean, diff))
	}
	ratio := G.Must(G.Exp(diff))
	within := G.Must(G.MinBetween(G.Must(G.MaxBetween(ratio, level("low", 1-s.c.EpsilonLow))), level("high", 1+s.c.EpsilonHigh)))
	gain := G.Must(G.MinBetween(G.Must(G.HadamardProd(ratio, a)), G.Must(G.HadamardProd(within, a))))
	if s.c.KL != 0 {
		d := G.Must(G.Sub(vector("ref", ref), x))
		k3 := G.Must(G.Sub(G.Must(G.Sub(G.Must(G.Exp(d)), d)), level("one", 1)))
		gain = G.Must(G.Sub(gain, G.Must(G.HadamardProd(level("beta", s.c.KL), k3))))
	}
	objective := G.Must(G.Sum(G.Must(G.HadamardProd(gain, vector("weight", weight)))))
	grads, err := G.Grad(objective, x)
	if err != nil {
		t.Fatal(err)
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	out := []float64{}
	switch v := grads[0].Value().Data().(type) {
	case []float64:
		out = append(out, v...)
	case float64:
		out = append(out, v)
	}
	for i := range out {
		out[i] = -out[i]
	}
	return -objective.Value().Data().(float64), out
}

func TestNothingOverflows(t *testing.T) {
	c := usual
	c.KL = 1
	for _, kind := range Kinds {
		c.Loss, c.Length = kind, 1
		for i, adv := range []float64{-3, 3, -3, 3} {
			c.Corrected = i >= 2
			for _, far := range []float64{0, -1e4} {
				coef := make([]float64, 1)
				got := c.Row(coef, Row{Advantage: adv, LogProbs: []float64{far}, Old: []float64{-1e4 - far}, Ref: []float64{-1e4 - far}}, Totals{1, 1})
				if x := float64(float32(coef[0])); math.IsInf(x, 0) || math.IsNaN(x) || math.IsInf(got.Loss, 0) || math.IsNaN(got.Loss) {
					t.Errorf("%s: loss %g, coefficient %g", kind, got.Loss, coef[0])
				}
			}
		}
	}
}
