//go:build !purego

package cpu

//go:noescape
func addAVX(out, a, b *float32, n int)

//go:noescape
func scaleAVX(out, x *float32, n int, a float32)

//go:noescape
func mulScaleAVX(out, x, w *float32, n int, a float32)

//go:noescape
func rotateAVX(x, y, cos, sin *float32, n int, sign float32)

//go:noescape
func expAVX(out, x *float32, n int)

//go:noescape
func maxScaledAVX(x *float32, bits *uint32, step, n int, a float32) float32

//go:noescape
func softmaxAVX(p, x *float32, n int, a, m float32) float32

//go:noescape
func sumExpAVX(x *float32, bits *uint32, step, n int, a, m float32) float32

//go:noescape
func expScaledAVX(out, x *float32, bits *uint32, step, n int, a, m, c float32)

//go:noescape
func swigluAVX(out, gate, up *float32, n int)

//go:noescape
func swigluGradAVX(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func dotAVX(x, y *float32, n int) float32

//go:noescape
func dot3AVX(x, y, z *float32, n int) float32

//go:noescape
func normGradAVX(dx, dy, x, w *float32, n int, r, k float32)

//go:noescape
func normWeightGradAVX(dw, dy, x *float32, n int, r float32)

//go:noescape
func adamAVX(w, m, v, grad *float32, n int, c *adam)

//go:noescape
func scoreGradAVX(ds, p *float32, n int, dot, scale float32)

//go:noescape
func prefetchAVX(x *float32, step, bytes, n int)

// prefetch asks for n rows of cols elements, stride apart, to be brought into the cache.
func prefetch(x []float32, stride, cols, n int) {
	if useAssembly && n > 0 {
		prefetchAVX(ptr(x), 4*stride, 4*cols, n)
	}
}

func add(out, a, b []float32) {
	if a, b = a[:len(out)], b[:len(out)]; useAssembly {
		addAVX(ptr(out), ptr(a), ptr(b), len(out))
		return
	}
	addNarrow(out, a, b)
}

func scale(out, x []float32, a float32) {
	if x = x[:len(out)]; useAssembly {
		scaleAVX(ptr(out), ptr(x), len(out), a)
		return
	}
	scaleNarrow(out, x, a)
}

func mulScale(out, x, w []float32, a float32) {
	if x, w = x[:len(out)], w[:len(out)]; useAssembly {
		mulScaleAVX(ptr(out), ptr(x), ptr(w), len(out), a)
		return
	}
	mulScaleNarrow(out, x, w, a)
}

func rotate(x, y, cos, sin []float32, sign float32) {
	if y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)]; useAssembly {
		rotateAVX(ptr(x), ptr(y), ptr(cos), ptr(sin), len(x), sign)
		return
	}
	rotateNarrow(x, y, cos, sin, sign)
}

func exp(out, x []float32) {
	if x = x[:len(out)]; useAssembly {
		expAVX(ptr(out), ptr(x), len(out))
		return
	}
	expNarrow(out, x)
}

func maxScaled(x []float32, bits []uint32, a float32) float32 {
	if useAssembly {
		b, step := mask(bits)
		return maxScaledAVX(ptr(x), b, step, len(x), a)
	}
	return maxScaledNarrow(x, bits, a)
}

func softmax(p, x []float32, a, m float32) float32 {
	if x = x[:len(p)]; useAssembly {
		return softmaxAVX(ptr(p), ptr(x), len(p), a, m)
	}
	return softmaxNarrow(p, x, a, m)
}

func sumExp(x []float32, bits []uint32, a, m float32) float32 {
	if useAssembly {
		b, step := mask(bits)
		return sumExpAVX(ptr(x), b, step, len(x), a, m)
	}
	return sumExpNarrow(x, bits, a, m)
}

func expScaled(out, x []float32, bits []uint32, a, m, c float32) {
	if x = x[:len(out)]; useAssembly {
		b, step := mask(bits)
		expScaledAVX(ptr(out), ptr(x), b, step, len(out), a, m, c)
		return
	}
	expScaledNarrow(out, x, bits, a, m, c)
}

func swiglu(out, gate, up []float32) {
	if gate, up = gate[:len(out)], up[:len(out)]; useAssembly {
		swigluAVX(ptr(out), ptr(gate), ptr(up), len(out))
		return
	}
	swigluNarrow(out, gate, up)
}

func swigluGrad(dgate, dup, dy, gate, up []float32) {
	n := len(dgate)
	if dup, dy, gate, up = dup[:n], dy[:n], gate[:n], up[:n]; useAssembly {
		swigluGradAVX(ptr(dgate), ptr(dup), ptr(dy), ptr(gate), ptr(up), n)
		return
	}
	swigluGradNarrow(dgate, dup, dy, gate, up)
}

func dot(x, y []float32) float32 {
	if y = y[:len(x)]; useAssembly {
		return dotAVX(ptr(x), ptr(y), len(x))
	}
	return dotNarrow(x, y)
}

func dot3(x, y, z []float32) float32 {
	if y, z = y[:len(x)], z[:len(x)]; useAssembly {
		return dot3AVX(ptr(x), ptr(y), ptr(z), len(x))
	}
	return dot3Narrow(x, y, z)
}

func normGrad(dx, dy, x, w []float32, r, k float32) {
	n := len(dx)
	if dy, x, w = dy[:n], x[:n], w[:n]; useAssembly {
		normGradAVX(ptr(dx), ptr(dy), ptr(x), ptr(w), n, r, k)
		return
	}
	normGradNarrow(dx, dy, x, w, r, k)
}

func normWeightGrad(dw, dy, x []float32, r float32) {
	if dy, x = dy[:len(dw)], x[:len(dw)]; useAssembly {
		normWeightGradAVX(ptr(dw), ptr(dy), ptr(x), len(dw), r)
		return
	}
	normWeightGradNarrow(dw, dy, x, r)
}

func adamStep(w, m, v, g []float32, c *adam) {
	if m, v, g = m[:len(w)], v[:len(w)], g[:len(w)]; useAssembly {
		adamAVX(ptr(w), ptr(m), ptr(v), ptr(g), len(w), c)
		return
	}
	adamStepNarrow(w, m, v, g, c)
}

func scoreGrad(ds, p []float32, dot, scale float32) {
	if p = p[:len(ds)]; useAssembly {
		scoreGradAVX(ptr(ds), ptr(p), len(ds), dot, scale)
		return
	}
	scoreGradNarrow(ds, p, dot, scale)
}
