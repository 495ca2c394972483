//go:build !purego

package cpu

// prefetch would ask for rows to be brought into the cache.
func prefetch(x []float32, stride, cols, n int) {}

func add(out, a, b []float32)                              { addNarrow(out, a, b) }
func scale(out, x []float32, a float32)                    { scaleNarrow(out, x, a) }
func mulScale(out, x, w []float32, a float32)              { mulScaleNarrow(out, x, w, a) }
func rotate(x, y, cos, sin []float32, sign float32)        { rotateNarrow(x, y, cos, sin, sign) }
func exp(out, x []float32)                                 { expNarrow(out, x) }
func dot(x, y []float32) float32                           { return dotNarrow(x, y) }
func dot3(x, y, z []float32) float32                       { return dot3Narrow(x, y, z) }
func swiglu(out, gate, up []float32)                       { swigluNarrow(out, gate, up) }
func swigluGrad(dgate, dup, dy, gate, up []float32)        { swigluGradNarrow(dgate, dup, dy, gate, up) }
func softmax(p, x []float32, a, m float32) float32         { return softmaxNarrow(p, x, a, m) }
func normGrad(dx, dy, x, w []float32, r, k float32)        { normGradNarrow(dx, dy, x, w, r, k) }
func normWeightGrad(dw, dy, x []float32, r float32)        { normWeightGradNarrow(dw, dy, x, r) }
func adamStep(w, m, v, g []float32, c *adam)               { adamStepNarrow(w, m, v, g, c) }
func scoreGrad(ds, p []float32, dot, scale float32)        { scoreGradNarrow(ds, p, dot, scale) }
func maxScaled(x []float32, b []uint32, a float32) float32 { return maxScaledNarrow(x, b, a) }
func sumExp(x []float32, b []uint32, a, m float32) float32 { return sumExpNarrow(x, b, a, m) }
func expScaled(out, x []float32, b []uint32, a, m, c float32) {
	expScaledNarrow(out, x, b, a, m, c)
}
