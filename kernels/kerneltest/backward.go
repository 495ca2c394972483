package kerneltest

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

func rmsNormGrad(g source, rows int) *problem {
	n, runs := g.size(8, 300), 1+g.IntN(3)
	p := &problem{rows: rows, length: n + rows*runs}
	dx := p.up(byRow, g.floats(rows, n*runs, 1), 1)
	dy, x := p.in(byRow, g.floats(rows, n*runs, 1)), p.in(byRow, g.floats(rows, n*runs, 1))
	w, dw := p.in(shared, g.floats(1, n, 1)), -1
	if g.IntN(3) > 0 {
		dw = p.up(shared, g.floats(1, n, 1), math.Sqrt(float64(rows)))
	}
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.RMSNormGrad(t[dx], maybe(t, dw), t[dy], t[x], t[w], eps)
	}
	return p
}

func linearGrad(g source, rows int) *problem {
	n, in := g.size(1, 300), g.inputs(1, 130)
	p := &problem{rows: rows, length: n, weights: []weight{g.weight(n, in)}}
	dx, dout := p.up(byRow, g.floats(rows, in, 1), math.Sqrt(float64(n))), p.in(byRow, g.floats(rows, n, 1))
	p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.LinearGrad(t[dx], t[dout], w[0]) }
	return p
}

func swiGLUGrad(g source, rows int) *problem {
	p, cols := &problem{rows: rows, length: 4}, g.size(1, 200)
	random := func(scale float64) matrix { return g.floats(rows, cols, scale) }
	dgate, dup := p.up(byRow, random(1), 1), p.up(byRow, random(1), 1)
	dy, gate, up := p.in(byRow, random(1)), p.in(byRow, random(4)), p.in(byRow, random(1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.SwiGLUGrad(t[dgate], t[dup], t[dy], t[gate], t[up])
	}
	return p
}

func sumRows(g source, rows int) *problem {
	p, cols := &problem{rows: rows, length: rows}, g.size(1, 200)
	out, x := p.up(shared, g.floats(1, cols, 1), math.Sqrt(float64(rows))), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SumRows(t[out], t[x]) }
	return p
}

// scatterAdd sends many rows to few places, so that the order of each sum counts.
func scatterAdd(g source, rows int) *problem {
	p, n, cols := &problem{rows: rows, length: rows}, g.size(1, 12), g.size(1, 100)
	out, x := p.up(shared, g.floats(n, cols, 1), math.Sqrt(float64(rows)/float64(n))), p.in(byRow, g.floats(rows, cols, 1))
	at := p.in(byRow, g.ints(rows, 0, n))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.ScatterAdd(t[out], t[x], t[at]) }
	return p
}

func sumSquares(g source, rows int) *problem {
	cols := g.size(1, 200)
	p := &problem{rows: rows, length: rows * cols}
	out, x := p.out(shared, 1, 1, 0), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SumSquares(t[out], t[x]) }
	return p
}

func adamW(g source, rows int) *problem {
	p, cols, step := &problem{rows: rows, length: 4}, g.size(1, 100), 1+g.IntN(50)
	w, m := p.up(byRow, g.floats(rows, cols, 1), 0), p.up(byRow, g.floats(rows, cols, 0.1), 0.1)
	squares := g.floats(rows, cols, 0.1)
	for i := range squares.bits {
		squares.bits[i] &= 1<<31 - 1 // v is never negative
	}
	v, grad := p.up(byRow, squares, 0), p.in(byRow, g.floats(rows, cols, 1))
	o := k.Adam{LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.1, Scale: float32(g.Float64()), Step: step}
	if g.IntN(3) == 0 {
		o.Decay, o.Scale = 0, 1
	}
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.AdamW(t[w], t[m], t[v], t[grad], o) }
	return p
}
