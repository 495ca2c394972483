package kerneltest

import (
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// fusedChecks are of devices that do in one operation what others do in several.
var fusedChecks = []check{{"Fused", fused}, {"RoPEStore", stored}}

// fused: a product with its ending has the bits of the operations one after another.
func fused(t *testing.T, be k.Backend, g source) {
	f, ok := be.(k.Fuser)
	if !ok {
		return
	}
	done := 0
	for _, rows := range []int{1, 2, 5, 8, 9, 17, 31, 40, 70} {
		for range 3 {
			p, e := ending(g, rows)
			plain := p.play(t, be, g, func(t []k.Tensor, w []k.Weight) { e.plain(be, t, w[0]) })
			joined := p.play(t, be, g, func(t []k.Tensor, w []k.Weight) {
				if !f.Fused(t[e.out], t[e.x], w[0], maybe(t, e.bias), e.of(t)) {
					e.plain(be, t, w[0])
					return
				}
				done++
			})
			equalBits(t, joined[e.out], plain[e.out], "%d rows, a weight of %d×%d, gated %v, %d of adapters: fused and one after another",
				rows, p.weights[0].rows, p.weights[0].cols, e.gated, len(e.expands))
		}
	}
	t.Logf("%d products were fused", done)
}

// play runs p with another call.
func (p *problem) play(t *testing.T, be k.Backend, g source, call func(t []k.Tensor, w []k.Weight)) []matrix {
	t.Helper()
	q := *p
	q.call = func(_ k.Backend, t []k.Tensor, w []k.Weight) { call(t, w) }
	return q.run(t, be, g)
}

// An end is a product's ending, its tensors by their numbers in a problem.
type end struct {
	out, product, x, bias, plus int
	gated                       bool
	expands                     []expansion
}

type expansion struct{ row, col, low, b int }

// ending makes a product of so many rows with an ending. What adapters add may overlap.
func ending(g source, rows int) (*problem, end) {
	n, in := 16*(1+g.IntN(12)), g.inputs(1, 600)
	e := end{gated: g.IntN(2) == 0, bias: -1, plus: -1}
	cols := n
	if e.gated {
		cols /= 2
	} else {
		n = g.size(1, 200)
		cols = n
	}
	p := &problem{rows: rows, weights: []weight{g.fusedWeight(n, in)}}
	e.out, e.product, e.x = p.out(byRow, rows, cols, 0), p.out(byRow, rows, n, 0), p.in(byRow, g.floats(rows, in, 1))
	if g.IntN(2) == 0 {
		e.bias = p.in(shared, g.floats(1, n, 3))
	}
	if g.IntN(2) == 0 {
		e.plus = p.in(byRow, g.floats(rows, cols, 1))
	}
	for range g.IntN(4) {
		rank, row, col := 1+g.IntN(20), g.IntN(rows), g.IntN(n)
		low := p.in(shared, g.floats(1+g.IntN(rows-row), rank, 1))
		e.expands = append(e.expands, expansion{row, col, low, p.in(shared, g.floats(1+g.IntN(n-col), rank, 1))})
	}
	return p, e
}

// fusedWeight is one of the format that is asked for, bf16 where several are.
func (g source) fusedWeight(n, in int) weight {
	if len(g.formats) > 1 {
		g.formats = []k.Format{{Type: k.BF16}}
	}
	return g.weight(n, in)
}

// of is the ending of tensors.
func (e end) of(t []k.Tensor) k.Ending {
	all := k.Ending{Gated: e.gated, Plus: maybe(t, e.plus)}
	for _, x := range e.expands {
		all.Expands = append(all.Expands, k.Expand{Row: x.row, Col: x.col, Low: t[x.low], B: t[x.b]})
	}
	return all
}

// plain plays the operations that e stands for.
func (e end) plain(be k.Backend, t []k.Tensor, w k.Weight) {
	out, h := t[e.out], t[e.product]
	be.Linear(h, t[e.x], w, maybe(t, e.bias))
	for _, x := range e.expands {
		low, b := t[x.low], t[x.b]
		be.MatMul(h.Slice(x.row, low.Rows).Columns(x.col, b.Rows), low, b, k.Gemm{TransB: true, Alpha: 1, Accumulate: true})
	}
	if e.gated {
		n := h.Cols / 2
		be.SwiGLU(out, h.Columns(0, n), h.Columns(n, n))
	} else {
		be.Copy(out, h)
	}
	if e.plus >= 0 {
		be.Add(out, t[e.plus], out)
	}
}
