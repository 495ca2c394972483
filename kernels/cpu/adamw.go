package cpu

import (
	"math"

	"github.com/r2-reasoner/r2/kernels"
)

// adam holds the coefficients of one AdamW step in the order the assembly reads them.
type adam struct {
	scale  float32 // of the gradient
	keep   float32 // 1 - lr·decay
	first  float32 // 1 - β₁
	beta2  float32
	second float32 // 1 - β₂
	root   float32 // √(1 - β₂^step)
	eps    float32
	step   float32 // -lr / (1 - β₁^step)
}

func adamGo(w, m, v, g []float32, c *adam) {
	for i := range w {
		d := float32(g[i] * c.scale)
		x := float32(w[i] * c.keep)
		m[i] = fma32(d-m[i], c.first, m[i])
		v[i] = fma32(v[i], c.beta2, float32(float32(d*c.second)*d))
		den := float32(float32(math.Sqrt(float64(v[i])))/c.root) + c.eps
		w[i] = fma32(float32(m[i]/den), c.step, x)
	}
}

// AdamW takes one step of w. The order of float32 operations is PyTorch's: w shrinks by LR·Decay, the
// moments move, and w moves by m / (√v / √(1-β₂ᵗ) + Eps) times LR / (1-β₁ᵗ). (Loshchilov and Hutter 2019)
func (d *Device) AdamW(w, m, v, g kernels.Tensor, o kernels.Adam) {
	need(like(w, m, v, g) && o.Step >= 1, "AdamW", w, m, v, g)
	t := &d.rows
	t.begin("AdamW", w, m, v, g)
	lr, b1, b2 := float64(o.LR), float64(o.Beta1), float64(o.Beta2)
	t.step = adam{
		scale:  o.Scale,
		keep:   float32(1 - lr*float64(o.Decay)),
		first:  float32(1 - b1),
		beta2:  o.Beta2,
		second: float32(1 - b2),
		root:   float32(math.Sqrt(1 - math.Pow(b2, float64(o.Step)))),
		eps:    o.Eps,
		step:   float32(-lr / (1 - math.Pow(b1, float64(o.Step)))),
	}
	d.each(w.Rows, w.Cols, func(t *rowTask, i, _ int) {
		adamStep(t.v[0].row(i), t.v[1].row(i), t.v[2].row(i), t.v[3].row(i), &t.step)
	})
}
