package cuda

import (
	"math"
	"slices"

	k "github.com/r2-reasoner/r2/kernels"
)

var _ k.Fuser = (*Device)(nil)

// What ending.h has room for.
const (
	mostExpands = 8
	expandWords = 6  // of eight bytes
	fewTokens   = 64 // of a tile whose ending adds what adapters do
)

// Fused is for bf16 weights and those in blocks on compute capability 9.0.
func (d *Device) Fused(out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) bool {
	cols := w.Rows
	if e.Gated {
		cols /= 2
	}
	need(out.Type == k.F32 && x.Type == k.F32 && out.Rows == x.Rows && out.Cols == cols && x.Cols == w.Cols &&
		rowOrNone(bias, w.Rows) && (e.Plus.Zero() || like(out, e.Plus)), "Fused", out, x, ofWeight(w), bias, e.Plus)
	for _, a := range e.Expands {
		need(like(a.Low) && like(a.B) && a.Low.Cols == a.B.Cols && a.Row >= 0 && a.Row+a.Low.Rows <= x.Rows &&
			a.Col >= 0 && a.Col+a.B.Rows <= w.Rows, "Fused", out, a.Low, a.B)
	}
	if !d.hopper || d.naive || w.Type != k.BF16 && !w.Type.Blocks() || x.Cols == 0 || x.Rows > d.mostRows() || len(e.Expands) > mostExpands ||
		e.Gated && w.Rows%(2*tileRows) != 0 {
		return false
	}
	if w.Type.Blocks() {
		return d.quantFused(out, x, w, bias, e)
	}
	tokens := tokens90[:]
	if len(e.Expands) > 0 {
		if x.Rows > fewTokens {
			return false
		}
		tokens = tokens[:slices.Index(tokens, fewTokens)+1]
	}
	d.linear90By(d.plan90(x.Rows, w.Rows, ceil(w.Cols, tileCols), tokens), out, x, w, bias, e)
	return true
}

// expands puts ending.h's Expands, and how many they are.
func (c *call) expands(all []k.Expand) *call {
	c.kinds = append(c.kinds, 'X')
	var words [mostExpands * expandWords]uint64
	for i, a := range all {
		if c.skip {
			break
		}
		w := words[expandWords*i:]
		w[0], w[1] = c.d.at(c.op.String(), a.Low), c.d.at(c.op.String(), a.B)
		for j, v := range [...]int{a.Low.Stride, a.B.Stride, a.B.Cols, a.Row, a.Low.Rows, a.Col, a.B.Rows} {
			if v < 0 || v > math.MaxInt32 {
				panic("cuda: Fused: a size of more than kernels count")
			}
			w[2+j/2] |= uint64(v) << (32 * (j % 2))
		}
	}
	c.args.Starts, c.args.Words = append(c.args.Starts, len(c.args.Words)), append(c.args.Words, words[:]...)
	return c.ints(len(all))
}
