package kerneltest

import (
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// A grading is a call of AttentionGrad and the places of what it adds to.
type grading struct {
	*problem
	dq, dk, dv int
}

// grade makes the problem of pieces without pages; dq, dk and dv hold from when it begins.
func grade(t *testing.T, g source, h heads, seqs []sequence, pieces []piece, from float64) grading {
	f := attend(g, h, seqs, pieces, 0)
	ran := f.run(t, oracle(), g)
	p := &problem{rows: f.rows, length: f.length}
	var q, key, v, dout []matrix
	starts, lengths, most := []int{0}, []int{}, 0
	for _, c := range pieces {
		s, n := seqs[c.seq], c.to-c.from
		q, key = append(q, s.q.slice(byRow, c.from, n)), append(key, s.k.slice(byRow, c.from, n))
		v, dout = append(v, s.v.slice(byRow, c.from, n)), append(dout, s.dout.slice(byRow, c.from, n))
		starts, lengths, most = append(starts, starts[len(starts)-1]+n), append(lengths, c.to), max(most, n)
	}
	wide, narrow := h.heads*h.dim, h.kv*h.dim
	held := func(cols int) matrix { return filled(k.F32, f.rows, cols, math.Float32bits(float32(from))) }
	d := grading{p, p.up(byRow, held(wide), 1), p.up(byRow, held(narrow), 1), p.up(byRow, held(narrow), 1)}
	do, o, l := p.in(shared, stack(wide, dout...)), p.in(shared, ran[f.out].rounded()), p.in(shared, ran[f.lse].rounded())
	qi, ki, vi := p.in(shared, stack(wide, q...)), p.in(shared, stack(narrow, key...)), p.in(shared, stack(narrow, v...))
	si, li := p.in(shared, intsOf(starts...)), p.in(shared, intsOf(lengths...))
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		be.AttentionGrad(t[d.dq], t[d.dk], t[d.dv], t[do], t[o], t[l], t[qi], t[ki], t[vi],
			k.Attn{Heads: h.heads, KVHeads: h.kv, HeadDim: h.dim, Scale: h.scale, Starts: t[si], Lengths: t[li], MaxQueries: most})
	}
	return d
}

// rounded is m without what the oracle knows beyond float32.
func (m matrix) rounded() matrix { m.exact = nil; return m }

func attentionGradValues(t *testing.T, be k.Backend, g source) {
	for _, longest := range []int{1, 2, 9, 40, 130, 200} {
		h := g.heads()
		seqs := g.sequences(h, 1+g.IntN(4), longest)
		values(t, be, g, grade(t, g, h, seqs, wholes(seqs, g.Perm(len(seqs))), g.NormFloat64()).problem)
	}
}

// attentionGradLaw: a sequence's gradients have the same bits alone and packed with others.
func attentionGradLaw(t *testing.T, be k.Backend, g source) {
	for range 4 {
		h := g.heads()
		seqs := append(g.sequences(h, 3, 60), g.sequence(h, 1), g.sequence(h, 120))
		order := g.Perm(len(seqs))
		all := grade(t, g, h, seqs, wholes(seqs, order), 0.5)
		packed, lo := all.run(t, be, g), 0
		for _, s := range order {
			one, n := grade(t, g, h, seqs, wholes(seqs, []int{s}), 0.5), seqs[s].q.rows
			alone := one.run(t, be, g)
			for _, i := range []int{all.dq, all.dk, all.dv} {
				equalBits(t, alone[i], packed[i].slice(byRow, lo, n), "gradient %d of a sequence of %d alone and packed", i, n)
			}
			lo += n
		}
	}
}

// attentionGradShared: groups that share keys have each the bits they have alone, and a sequence's queries
// those it has without sharing.
func attentionGradShared(t *testing.T, be k.Backend, g source) {
	for _, longest := range []int{1, 2, 9, 40, 100} {
		h := g.heads()
		seqs, pieces := g.groups(h, longest)
		all := grade(t, g, h, seqs, pieces, 0.5)
		values(t, be, g, all.problem)
		got, lo := all.run(t, be, g), 0
		for i := 0; i < len(pieces); {
			end, rows := i+1, pieces[i].to
			for ; end < len(pieces) && pieces[end].from > 0; end++ {
				rows += pieces[end].to - pieces[end].from
			}
			group := grade(t, g, h, seqs, pieces[i:end], 0.5)
			alone := group.run(t, be, g)
			for _, o := range []int{all.dq, all.dk, all.dv} {
				equalBits(t, alone[o], got[o].slice(byRow, lo, rows), "gradient %d of a group of %d alone and packed", o, end-i)
			}
			for ; i < end; i++ {
				c := pieces[i]
				whole := grade(t, g, h, seqs, []piece{{c.seq, 0, c.to}}, 0.5)
				q := whole.run(t, be, g)[whole.dq].slice(byRow, c.from, c.to-c.from)
				equalBits(t, got[all.dq].slice(byRow, lo, c.to-c.from), q, "dq of a sequence of %d that shares %d keys and alone", c.to, c.from)
				lo += c.to - c.from
			}
		}
	}
}
