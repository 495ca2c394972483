package kerneltest

import (
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// An operation makes random problems of a number of rows.
type operation struct {
	name string
	make func(g source, rows int) *problem
}

var operations = []operation{
	{"Copy", copies},
	{"Fill", fills},
	{"Embed", embed},
	{"RMSNorm", rmsNorm},
	{"RMSNorm in place", rmsNormInPlace},
	{"Linear", linear},
	{"MatMul", matMul},
	{"MatMul TransB", matMulTransB},
	{"MatMul TransA", matMulTransA},
	{"MatMul TransA TransB", matMulTransAB},
	{"MatMul Accumulate", matMulAccumulate},
	{"MatMul TransA Accumulate", matMulSum},
	{"RoPE", rope},
	{"SwiGLU", swiGLU},
	{"SwiGLU in place of gate", swiGLUGate},
	{"SwiGLU in place of up", swiGLUUp},
	{"Add", add},
	{"Gather", gather},
	{"Scatter", scatter},
	{"LogProb", logProb},
	{"Entropy", entropy},
	{"Sample", sample},
	{"RMSNormGrad", rmsNormGrad},
	{"LinearGrad", linearGrad},
	{"SwiGLUGrad", swiGLUGrad},
	{"LogProbGrad", logProbGrad},
	{"LogProbGrad in place", logProbGradInPlace},
	{"SumRows", sumRows},
	{"ScatterAdd", scatterAdd},
	{"SumSquares", sumSquares},
	{"AdamW", adamW},
}

const eps = 1e-6

func copies(g source, rows int) *problem {
	p, cols := &problem{rows: rows}, g.size(1, 100)
	out, x := p.out(byRow, rows, cols, 0), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Copy(t[out], t[x]) }
	return p
}

func fills(g source, rows int) *problem {
	p, v := &problem{rows: rows}, float32(g.NormFloat64())
	out := p.out(byRow, rows, g.size(1, 100), 0)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Fill(t[out], v) }
	return p
}

func embed(g source, rows int) *problem {
	p, n, cols := &problem{rows: rows}, g.size(1, 70), g.inputs(1, 100)
	p.weights = []weight{g.weight(n, cols)}
	out, ids := p.out(byRow, rows, cols, 0), p.in(byRow, g.ints(rows, 0, n))
	p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.Embed(t[out], w[0], t[ids]) }
	return p
}

func rmsNorm(g source, rows int) *problem {
	n, runs := g.size(1, 300), 1+g.IntN(3)
	p := &problem{rows: rows, length: n}
	out, x := p.out(byRow, rows, n*runs, 0), p.in(byRow, g.floats(rows, n*runs, 2))
	w := p.in(shared, g.floats(1, n, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.RMSNorm(t[out], t[x], t[w], eps) }
	return p
}

func rmsNormInPlace(g source, rows int) *problem {
	n, runs := g.size(1, 300), 1+g.IntN(3)
	p := &problem{rows: rows, length: n}
	x, w := p.up(byRow, g.floats(rows, n*runs, 2), 0), p.in(shared, g.floats(1, n, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.RMSNorm(t[x], t[x], t[w], eps) }
	return p
}

func linear(g source, rows int) *problem {
	n, in := g.size(1, 130), g.inputs(1, 300)
	p := &problem{rows: rows, length: in, weights: []weight{g.weight(n, in)}}
	out, x, bias := p.out(byRow, rows, n, math.Sqrt(float64(in))), p.in(byRow, g.floats(rows, in, 1)), -1
	if g.IntN(2) == 0 {
		bias = p.in(shared, g.floats(1, n, 3))
	}
	p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.Linear(t[out], t[x], w[0], maybe(t, bias)) }
	return p
}

// maybe is operand i, or none.
func maybe(t []k.Tensor, i int) k.Tensor {
	if i < 0 {
		return k.Tensor{}
	}
	return t[i]
}

// scaled is MatMul without Accumulate; rows is that of c, n its columns and in the common length.
func scaled(g source, rows int, gemm k.Gemm) *problem {
	n, in := g.size(1, 100), g.size(1, 200)
	p := &problem{rows: rows, length: in}
	gemm.Alpha = 1
	if g.IntN(2) == 0 {
		gemm.Alpha = float32(g.NormFloat64())
	}
	c, a, b, bias := p.out(byRow, rows, n, float64(gemm.Alpha)*math.Sqrt(float64(in))), left(g, p, rows, in, gemm), right(g, p, in, n, gemm), -1
	p.operands[c].scale = math.Abs(p.operands[c].scale)
	if g.IntN(2) == 0 {
		bias = p.in(shared, g.floats(1, n, 3))
	}
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		gemm := gemm
		gemm.Bias = maybe(t, bias)
		be.MatMul(t[c], t[a], t[b], gemm)
	}
	return p
}

// left is the first factor: rows of c along its rows, or its columns when it is transposed.
func left(g source, p *problem, rows, in int, gemm k.Gemm) int {
	if gemm.TransA {
		return p.in(byCol, g.floats(in, rows, 1))
	}
	return p.in(byRow, g.floats(rows, in, 1))
}

func right(g source, p *problem, in, n int, gemm k.Gemm) int {
	if gemm.TransB {
		return p.in(shared, g.floats(n, in, 1))
	}
	return p.in(shared, g.floats(in, n, 1))
}

func matMul(g source, rows int) *problem       { return scaled(g, rows, k.Gemm{}) }
func matMulTransB(g source, rows int) *problem { return scaled(g, rows, k.Gemm{TransB: true}) }
func matMulTransA(g source, rows int) *problem { return scaled(g, rows, k.Gemm{TransA: true}) }
func matMulTransAB(g source, rows int) *problem {
	return scaled(g, rows, k.Gemm{TransA: true, TransB: true})
}

func matMulAccumulate(g source, rows int) *problem {
	n, in := g.size(1, 100), g.size(1, 200)
	p, gemm := &problem{rows: rows, length: in}, k.Gemm{Alpha: 1, Accumulate: true, TransA: g.IntN(2) == 0, TransB: g.IntN(2) == 0}
	c, a, b := p.up(byRow, g.floats(rows, n, 1), math.Sqrt(float64(in))), left(g, p, rows, in, gemm), right(g, p, in, n, gemm)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.MatMul(t[c], t[a], t[b], gemm) }
	return p
}

// matMulSum is the gradient of a weight: the sum goes over the rows of the batch.
func matMulSum(g source, rows int) *problem {
	m, n := g.size(1, 100), g.size(1, 100)
	p := &problem{rows: rows, length: rows}
	c := p.up(shared, g.floats(m, n, 1), math.Sqrt(float64(rows)))
	a, b := p.in(byRow, g.floats(rows, m, 1)), p.in(byRow, g.floats(rows, n, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.MatMul(t[c], t[a], t[b], k.Gemm{TransA: true, Alpha: 1, Accumulate: true})
	}
	return p
}

// angles is a Rotary's table.
func angles(positions, headDim int) matrix {
	m := filled(k.F32, positions, headDim, 0)
	for p := range positions {
		for j := range headDim / 2 {
			sin, cos := math.Sincos(float64(p) * math.Pow(10000, -2*float64(j)/float64(headDim)))
			m.row(p)[j] = math.Float32bits(float32(cos))
			m.row(p)[headDim/2+j] = math.Float32bits(float32(sin))
		}
	}
	return m
}

func rope(g source, rows int) *problem {
	dim, heads, positions := 2*g.size(1, 70), 1+g.IntN(4), g.size(1, 300)
	p, inverse := &problem{rows: rows, length: 2}, g.IntN(2) == 0
	x, pos := p.up(byRow, g.floats(rows, heads*dim, 1), 0), p.in(byRow, g.ints(rows, 0, positions))
	table := p.in(shared, angles(positions, dim))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.RoPE(t[x], t[pos], k.Rotary{HeadDim: dim, Table: t[table], Inverse: inverse})
	}
	return p
}

func swiGLU(g source, rows int) *problem {
	p, cols := &problem{rows: rows}, g.size(1, 200)
	out, gate, up := p.out(byRow, rows, cols, 0), p.in(byRow, g.floats(rows, cols, 4)), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SwiGLU(t[out], t[gate], t[up]) }
	return p
}

func swiGLUGate(g source, rows int) *problem {
	p, cols := &problem{rows: rows}, g.size(1, 200)
	gate, up := p.up(byRow, g.floats(rows, cols, 4), 0), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SwiGLU(t[gate], t[gate], t[up]) }
	return p
}

func swiGLUUp(g source, rows int) *problem {
	p, cols := &problem{rows: rows}, g.size(1, 200)
	gate, up := p.in(byRow, g.floats(rows, cols, 4)), p.up(byRow, g.floats(rows, cols, 1), 0)
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.SwiGLU(t[up], t[gate], t[up]) }
	return p
}

func add(g source, rows int) *problem {
	p, cols := &problem{rows: rows}, g.size(1, 200)
	out, a, b := p.out(byRow, rows, cols, 0), p.in(byRow, g.floats(rows, cols, 1)), p.in(byRow, g.floats(rows, cols, 1))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Add(t[out], t[a], t[b]) }
	return p
}

func gather(g source, rows int) *problem {
	p, n, cols := &problem{rows: rows}, g.size(1, 70), g.size(1, 100)
	out, x := p.out(byRow, rows, cols, 0), p.in(shared, g.floats(n, cols, 1))
	at := p.in(byRow, g.ints(rows, 0, n))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Gather(t[out], t[x], t[at]) }
	return p
}

// scatter writes each row to a place of its own, and skips some.
// places are rows below n for so many rows, each another or none.
func (g source) places(n, rows int) matrix {
	places := g.Perm(n)[:rows]
	for i := range places {
		if g.IntN(5) == 0 {
			places[i] = -1 - g.IntN(2)
		}
	}
	return intsOf(places...)
}

func scatter(g source, rows int) *problem {
	p, n, cols := &problem{rows: rows}, rows+g.IntN(9), g.size(1, 100)
	out, x := p.up(shared, g.floats(n, cols, 1), 0), p.in(byRow, g.floats(rows, cols, 1))
	at := p.in(byRow, g.places(n, rows))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) { be.Scatter(t[out], t[x], t[at]) }
	return p
}
