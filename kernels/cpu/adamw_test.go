package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// Five steps against torch.optim.AdamW's definition in float64, from the same float32 gradients.
func TestAdamWAgainstFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 13))
	const n, cols = 60, 20
	d := New(2)
	o := kernels.Adam{LR: 1e-2, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Decay: 0.1, Scale: 0.37}
	start := normals(r, n)
	w, m, v := f32(d, start, cols), f32(d, make([]float32, n), cols), f32(d, make([]float32, n), cols)
	want, wantM, wantV := make([]float64, n), make([]float64, n), make([]float64, n)
	for i, x := range start {
		want[i] = float64(x)
	}
	for step := 1; step <= 5; step++ {
		g := normals(r, n)
		o.Step = step
		d.AdamW(w, m, v, f32(d, g, cols), o)
		lr, b1, b2 := float64(o.LR), float64(o.Beta1), float64(o.Beta2)
		for i, x := range g {
			x := float64(x) * float64(o.Scale)
			want[i] *= 1 - lr*float64(o.Decay)
			wantM[i] = b1*wantM[i] + (1-b1)*x
			wantV[i] = b2*wantV[i] + (1-b2)*x*x
			root := math.Sqrt(wantV[i]) / math.Sqrt(1-math.Pow(b2, float64(step)))
			want[i] -= lr / (1 - math.Pow(b1, float64(step))) * wantM[i] / (root + float64(o.Eps))
		}
	}
	worst := near(t, "w", flat(w), want, 3e-7, 1)
	worst = max(worst, near(t, "m", flat(m), wantM, 3e-7, 0.1))
	worst = max(worst, near(t, "v", flat(v), wantV, 3e-6, 0))
	t.Logf("worst error %.2g", worst)
}

func TestSumSquaresAgainstFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 14))
	d := New(3)
	for _, s := range [][2]int{{1, 1}, {1, 4096}, {3, 4097}, {40, 1000}, {1, 300000}} {
		x := normals(r, s[0]*s[1])
		want := 0.0
		for _, v := range x {
			want += float64(v) * float64(v)
		}
		out := d.New(kernels.F32, 1, 1)
		d.SumSquares(out, f32(d, x, s[1]))
		near(t, "sum", flat(out), []float64{want}, 1e-6, 0)
	}
}
