package cpu

//go:generate go run ./vecgen

// The leaves: loops over slices of float32 that the operations are made of. Each is written twice, in
// AVX-512 assembly (vec_amd64.s, printed by vecgen) and here in Go; both do the same float32 operations in
// the same order, so their bits are equal. The slices of one call have one length.
//
// A sum has 64 partial sums, element i going to partial sum i mod 64 in ascending order, and these are
// folded in halves by a fixed tree: its order depends on its length alone.

// partials are the partial results of one reduction.
type partials [64]float32

func (s *partials) sum() float32 {
	for l := range 16 {
		s[l] = (s[l] + s[l+16]) + (s[l+32] + s[l+48])
	}
	for h := 8; h > 0; h /= 2 {
		for l := range h {
			s[l] += s[l+h]
		}
	}
	return s[0]
}

func (s *partials) max() float32 {
	for l := range 16 {
		s[l] = larger(larger(s[l], s[l+16]), larger(s[l+32], s[l+48]))
	}
	for h := 8; h > 0; h /= 2 {
		for l := range h {
			s[l] = larger(s[l], s[l+h])
		}
	}
	return s[0]
}

// larger is VMAXPS: b when neither is larger.
func larger(a, b float32) float32 {
	if a > b {
		return a
	}
	return b
}

func addGo(out, a, b []float32) {
	for i := range out {
		out[i] = a[i] + b[i]
	}
}

func scaleGo(out, x []float32, a float32) {
	for i := range out {
		out[i] = x[i] * a
	}
}

// mulScaleGo sets out to (x·a)·w.
func mulScaleGo(out, x, w []float32, a float32) {
	for i := range out {
		out[i] = float32(x[i]*a) * w[i]
	}
}

func dotGo(x, y []float32) float32 {
	var s partials
	for i := range x {
		s[i%len(s)] = fma32(y[i], x[i], s[i%len(s)])
	}
	return s.sum()
}

// dot3Go is Σ (x·y)·z.
func dot3Go(x, y, z []float32) float32 {
	var s partials
	for i := range x {
		s[i%len(s)] = fma32(float32(x[i]*y[i]), z[i], s[i%len(s)])
	}
	return s.sum()
}

// rotateGo turns each pair (x, y) by the angle of (cos, sign·sin).
func rotateGo(x, y, cos, sin []float32, sign float32) {
	for i, c := range cos {
		s := float32(sin[i] * sign)
		x0, y0 := x[i], y[i]
		x[i] = fma32(x0, c, -float32(y0*s))
		y[i] = fma32(y0, c, float32(x0*s))
	}
}

// normGradGo adds (dy·w)·r - k·x to dx.
func normGradGo(dx, dy, x, w []float32, r, k float32) {
	for i := range dx {
		dx[i] += fma32(-x[i], k, float32(float32(dy[i]*w[i])*r))
	}
}

// normWeightGradGo adds dy·(x·r) to dw.
func normWeightGradGo(dw, dy, x []float32, r float32) {
	for i := range dw {
		dw[i] = fma32(dy[i], float32(x[i]*r), dw[i])
	}
}

// scoreGradGo turns ds, the gradient of a row of probabilities p, into that of its unscaled scores;
// dot is Σ p·ds.
func scoreGradGo(ds, p []float32, dot, scale float32) {
	for i := range ds {
		ds[i] = float32(float32(ds[i]-dot)*p[i]) * scale
	}
}
