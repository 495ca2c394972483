//go:build (!amd64 && !arm64) || purego

package cpu

// prefetch would ask for rows to be brought into the cache.
func prefetch(x []float32, stride, cols, n int) {}

func add(out, a, b []float32)                              { addGo(out, a, b) }
func scale(out, x []float32, a float32)                    { scaleGo(out, x, a) }
func mulScale(out, x, w []float32, a float32)              { mulScaleGo(out, x, w, a) }
func rotate(x, y, cos, sin []float32, sign float32)        { rotateGo(x, y, cos, sin, sign) }
func exp(out, x []float32)                                 { expGo(out, x) }
func dot(x, y []float32) float32                           { return dotGo(x, y) }
func dot3(x, y, z []float32) float32                       { return dot3Go(x, y, z) }
func swiglu(out, gate, up []float32)                       { swigluGo(out, gate, up) }
func swigluGrad(dgate, dup, dy, gate, up []float32)        { swigluGradGo(dgate, dup, dy, gate, up) }
func softmax(p, x []float32, a, m float32) float32         { return softmaxGo(p, x, a, m) }
func normGrad(dx, dy, x, w []float32, r, k float32)        { normGradGo(dx, dy, x, w, r, k) }
func normWeightGrad(dw, dy, x []float32, r float32)        { normWeightGradGo(dw, dy, x, r) }
func adamStep(w, m, v, g []float32, c *adam)               { adamGo(w, m, v, g, c) }
func scoreGrad(ds, p []float32, dot, scale float32)        { scoreGradGo(ds, p, dot, scale) }
func maxScaled(x []float32, b []uint32, a float32) float32 { return maxScaledGo(x, b, a) }
func sumExp(x []float32, b []uint32, a, m float32) float32 { return sumExpGo(x, b, a, m) }
func expScaled(out, x []float32, b []uint32, a, m, c float32) {
	expScaledGo(out, x, b, a, m, c)
}
