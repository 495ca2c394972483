package kerneltest

import (
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

var matrixChecks = []check{
	{"LinearGrad/adjoint", adjoint},
	{"MatMul/columns alone", columnsAlone},
	{"MatMul/continued", continued},
	{"MatMul/many shapes", manyShapes},
}

// formatChecks are those of weights that hold in every format.
var formatChecks = []check{
	{"Load/parts", loadParts},
	{"Linear/outputs alone", linearAlone},
	{"Linear/many shapes", manyLinears},
}

// product plays Linear without bias.
func product(t *testing.T, be k.Backend, g source, x matrix, w weight) matrix {
	t.Helper()
	p := &problem{rows: x.rows, weights: []weight{w}}
	out, in := p.out(byRow, x.rows, w.rows, 0), p.in(byRow, x)
	p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.Linear(t[out], t[in], w[0], k.Tensor{}) }
	return p.run(t, be, g)[out]
}

// loadParts: parts are one weight, stacked by rows.
func loadParts(t *testing.T, be k.Backend, g source) {
	for range 9 {
		w := g.weight(g.size(2, 150), g.inputs(1, 100))
		var whole []byte
		for _, p := range w.parts {
			whole = append(whole, p...)
		}
		one, half := w, w.size(w.rows/2)
		one.parts, w.parts = [][]byte{whole}, [][]byte{whole[:half], whole[half:]}
		x := g.floats(5, w.cols, 1)
		equalBits(t, product(t, be, g, x, w), product(t, be, g, x, one), "%d×%d %v loaded in parts and whole", w.rows, w.cols, w.Format)
	}
}

// linearAlone: an output is the same whatever outputs are packed beside it.
func linearAlone(t *testing.T, be k.Backend, g source) {
	for range 9 {
		w := g.weight(g.size(2, 150), g.inputs(1, 100))
		var raw []byte
		for _, p := range w.parts {
			raw = append(raw, p...)
		}
		lo := g.IntN(w.rows)
		n := 1 + g.IntN(w.rows-lo)
		few := weight{w.Format, n, w.cols, [][]byte{raw[w.size(lo):w.size(lo+n)]}}
		x, cols := g.floats(9, w.cols, 1), make([]int, n)
		for i := range cols {
			cols[i] = lo + i
		}
		equalBits(t, product(t, be, g, x, few), product(t, be, g, x, w).pick(byCol, cols), "%d of %d outputs alone and with the others", n, w.rows)
	}
}

// adjoint: ⟨x·wᵀ, y⟩ = ⟨x, y·w⟩.
func adjoint(t *testing.T, be k.Backend, g source) {
	for range 9 {
		rows, w := g.size(1, 40), g.weight(g.size(1, 200), g.size(1, 200))
		x, y := g.floats(rows, w.cols, 1), g.floats(rows, w.rows, 1)
		p := &problem{rows: rows, weights: []weight{w}}
		dx, dy := p.up(byRow, filled(k.F32, rows, w.cols, 0), 0), p.in(byRow, y)
		p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.LinearGrad(t[dx], t[dy], w[0]) }
		a, b := inner(product(t, be, g, x, w), y), inner(x, p.run(t, be, g)[dx])
		size := math.Sqrt(float64(rows * w.rows * w.cols))
		if d := math.Abs(a-b) / size; !(d <= tolerance(k.F32, w.rows+w.cols)) {
			t.Fatalf("%d×%d %v with %d rows: ⟨x·wᵀ, y⟩ = %v, ⟨x, y·w⟩ = %v", w.rows, w.cols, w.Format, rows, a, b)
		}
	}
}

func inner(a, b matrix) (s float64) {
	for i := range a.bits {
		s += a.value(i) * b.value(i)
	}
	return s
}

// multiply plays MatMul on c, which is overwritten unless gemm accumulates.
func multiply(t *testing.T, be k.Backend, g source, c, a, b matrix, gemm k.Gemm) matrix {
	t.Helper()
	p := &problem{rows: c.rows}
	into, x, y := p.up(shared, c, 0), p.in(shared, a), p.in(shared, b)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.MatMul(t[into], t[x], t[y], gemm) }
	return p.run(t, be, g)[into]
}

// slice is n rows or columns of m from lo on.
func (m matrix) slice(a axis, lo, n int) matrix {
	at := make([]int, n)
	for i := range at {
		at[i] = lo + i
	}
	return m.pick(a, at)
}

// factors are a and b of an m×n product over a common length, as gemm wants them.
func factors(g source, m, n, length int, gemm k.Gemm) (a, b matrix) {
	a, b = g.floats(m, length, 1), g.floats(length, n, 1)
	if gemm.TransA {
		a = g.floats(length, m, 1)
	}
	if gemm.TransB {
		b = g.floats(n, length, 1)
	}
	return a, b
}

// along is the axis of the common length in the first factor, and of the columns of c in the second.
func along(trans bool) axis {
	if trans {
		return byRow
	}
	return byCol
}

var transposes = []k.Gemm{{Alpha: 1}, {Alpha: 1, TransA: true}, {Alpha: 1, TransB: true}, {Alpha: 1, TransA: true, TransB: true}}

// columnsAlone: an element is one sum, whatever elements are beside it.
func columnsAlone(t *testing.T, be k.Backend, g source) {
	for _, gemm := range transposes {
		for range 3 {
			m, n, length := g.size(1, 40), g.size(1, 100), g.size(1, 150)
			a, b := factors(g, m, n, length, gemm)
			lo := g.IntN(n)
			few := 1 + g.IntN(n-lo)
			whole := multiply(t, be, g, filled(k.F32, m, n, poison), a, b, gemm)
			part := multiply(t, be, g, filled(k.F32, m, few, poison), a, b.slice(along(gemm.TransB), lo, few), gemm)
			equalBits(t, part, whole.slice(byCol, lo, few), "%d of %d columns alone and with the others (%+v)", few, n, gemm)
		}
	}
}

// continued: a sum over rows that is cut and continued with Accumulate is the sum.
func continued(t *testing.T, be k.Backend, g source) {
	for _, gemm := range transposes {
		if !gemm.TransA {
			continue
		}
		for range 4 {
			m, n, length := g.size(1, 40), g.size(1, 70), g.size(2, 150)
			a, b := factors(g, m, n, length, gemm)
			ka, kb := along(gemm.TransA), along(!gemm.TransB)
			first := 1 + g.IntN(length-1)
			whole := multiply(t, be, g, filled(k.F32, m, n, poison), a, b, gemm)
			c := multiply(t, be, g, filled(k.F32, m, n, poison), a.slice(ka, 0, first), b.slice(kb, 0, first), gemm)
			gemm := gemm
			gemm.Accumulate = true
			c = multiply(t, be, g, c, a.slice(ka, first, length-first), b.slice(kb, first, length-first), gemm)
			equalBits(t, c, whole, "a sum of %d cut after %d and whole (%+v)", length, first, gemm)
			c = multiply(t, be, g, filled(k.F32, m, n, 0), a, b, gemm)
			equalBits(t, c, whole, "a product added to zeros and the product (%+v)", gemm)
		}
	}
}

// manyShapes meets the edges of tiles: all small numbers of rows, columns and terms.
func manyShapes(t *testing.T, be k.Backend, g source) {
	for m := 1; m <= 20; m++ {
		for _, n := range []int{1, 3, 15, 16, 17, 32, 33, 65} {
			length, gemm := g.size(1, 70), transposes[g.IntN(4)]
			a, b := factors(g, m, n, length, gemm)
			c := filled(k.F32, m, n, poison)
			near(t, multiply(t, be, g, c, a, b, gemm), multiply(t, oracle(), g, c, a, b, gemm),
				math.Sqrt(float64(length)), length, "%d×%d over %d, %+v", m, n, length, gemm)
		}
	}
}

func manyLinears(t *testing.T, be k.Backend, g source) {
	for m := 1; m <= 20; m++ {
		for _, n := range []int{1, 3, 15, 16, 17, 32, 33, 65, 97} {
			w := g.weight(n, g.inputs(1, 70))
			x := g.floats(m, w.cols, 1)
			near(t, product(t, be, g, x, w), product(t, oracle(), g, x, w),
				math.Sqrt(float64(w.cols)), w.cols, "%d rows by %d×%d %v", m, n, w.cols, w.Format)
		}
	}
}
