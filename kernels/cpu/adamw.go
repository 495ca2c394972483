package cpu

import "math"

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
