package kerneltest

import (
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// stored: what a Storer does in one operation has the bits of RoPE and two Scatters.
func stored(t *testing.T, be k.Backend, g source) {
	s, ok := be.(k.Storer)
	if !ok {
		return
	}
	for _, rows := range []int{1, 3, 17, 70} {
		for range 4 {
			dim, heads, kv, positions := 2*g.size(1, 40), 1+g.IntN(4), 1+g.IntN(3), g.size(1, 300)
			n, wide := rows+g.IntN(9), kv*dim
			p := &problem{rows: rows}
			qk, v := p.up(byRow, g.floats(rows, (heads+kv)*dim, 1), 0), p.in(byRow, g.floats(rows, wide, 1))
			pos, table := p.in(byRow, g.ints(rows, 0, positions)), p.in(shared, angles(positions, dim))
			kc, vc := p.up(shared, g.floats(n, wide, 1), 0), p.up(shared, g.floats(n, wide, 1), 0)
			at := p.in(byRow, g.places(n, rows))
			plain := p.play(t, be, g, func(t []k.Tensor, _ []k.Weight) {
				be.RoPE(t[qk], t[pos], k.Rotary{HeadDim: dim, Table: t[table]})
				be.Scatter(t[kc], t[qk].Columns(heads*dim, wide), t[at])
				be.Scatter(t[vc], t[v], t[at])
			})
			one := p.play(t, be, g, func(t []k.Tensor, _ []k.Weight) {
				s.RoPEStore(t[qk], t[v], t[pos], k.Rotary{HeadDim: dim, Table: t[table]}, t[kc], t[vc], t[at])
			})
			for what, i := range map[string]int{"queries and keys": qk, "stored keys": kc, "stored values": vc} {
				equalBits(t, one[i], plain[i], "%s of %d rows, %d and %d heads of %d: in one operation and in three", what, rows, heads, kv, dim)
			}
		}
	}
}
