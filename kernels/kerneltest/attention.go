package kerneltest

import (
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

var attentionChecks = []check{
	{"Attention/values", attentionValues},
	{"Attention/one answer", attentionLaw},
	{"Attention/group", attentionGroup},
	{"Attention/shared keys", attentionShared},
	{"Attention/without lse", attentionWithoutLSE},
	{"Attention/sequence without queries", attentionEmpty},
	{"Attention/values, rounded keys", rounding(attentionValues)},
	{"Attention/one answer, rounded keys", rounding(attentionLaw)},
	{"Attention/group, rounded keys", rounding(attentionGroup)},
	{"Attention/shared keys, rounded", rounding(attentionShared)},
	{"AttentionGrad/values", attentionGradValues},
	{"AttentionGrad/one answer", attentionGradLaw},
	{"AttentionGrad/shared keys", attentionGradShared},
}

// rounding is a check with keys and values in BF16, of devices that take them so.
func rounding(check func(t *testing.T, be k.Backend, g source)) func(t *testing.T, be k.Backend, g source) {
	return func(t *testing.T, be k.Backend, g source) {
		if r, ok := be.(k.KeyRounder); ok && r.RoundsKeys() {
			g.rounds = true
			check(t, be, g)
		}
	}
}

// heads is the shape of an attention.
type heads struct {
	heads, kv, dim int
	scale          float32
	rounds         bool // keys and values to BF16
}

func (g source) heads() heads {
	kv, dim := 1+g.IntN(3), []int{2, 8, 16, 20, 32, 33, 64, 80, 128}[g.IntN(9)]
	if g.rounds {
		dim += dim % 2
	}
	return heads{kv * (1 + g.IntN(4)), kv, dim, float32(1 / math.Sqrt(float64(dim))), g.rounds}
}

// flips is the scale of an out whose exponentials were rounded to bf16: one at the middle between two may be rounded up here
// and down there.
const flips = 2000

// kept is t as attention takes it.
func (h heads) kept(be k.Backend, t k.Tensor) (kept k.Tensor, free func()) {
	if !h.rounds {
		return t, func() {}
	}
	kept = be.New(k.BF16, t.Rows, t.Cols)
	be.Copy(kept, t)
	return kept, func() { be.Free(kept) }
}

// An attending is a call of Attention and the places of its operands.
type attending struct {
	*problem
	out, lse int
}

// attend makes the problem of the pieces; size is that of a page, or 0 for keys in the pieces' own rows: a
// piece that does not begin its sequence then shares the keys before it with the last one that does.
func attend(g source, h heads, seqs []sequence, pieces []piece, size int) attending {
	p := &problem{}
	var qs, ks, vs []matrix
	starts, lengths, most := []int{0}, []int{}, 0
	for _, c := range pieces {
		n := c.to - c.from
		qs = append(qs, seqs[c.seq].q.slice(byRow, c.from, n))
		ks, vs = append(ks, seqs[c.seq].k.slice(byRow, c.from, n)), append(vs, seqs[c.seq].v.slice(byRow, c.from, n))
		p.rows, most, p.length = p.rows+n, max(most, n), max(p.length, c.to+h.dim)
		starts, lengths = append(starts, p.rows), append(lengths, c.to)
	}
	a := k.Attn{Heads: h.heads, KVHeads: h.kv, HeadDim: h.dim, Scale: h.scale, PageSize: size, MaxQueries: most}
	keys, values, pages := stack(h.kv*h.dim, ks...), stack(h.kv*h.dim, vs...), -1
	if size > 0 {
		var table matrix
		keys, values, table = paged(g, h, seqs, pieces, size)
		pages = p.in(shared, table)
	}
	q, key, v := p.in(shared, stack(h.heads*h.dim, qs...)), p.in(shared, keys), p.in(shared, values)
	s, l := p.in(shared, intsOf(starts...)), p.in(shared, intsOf(lengths...))
	scale := 1.0
	if h.rounds {
		scale = flips
	}
	at := attending{p, p.out(byRow, p.rows, h.heads*h.dim, scale), p.out(byRow, p.rows, h.heads, 1)}
	p.call = func(be k.Backend, t []k.Tensor, _ []k.Weight) {
		a := a
		a.Starts, a.Lengths, a.Pages = t[s], t[l], maybe(t, pages)
		key, freeKeys := h.kept(be, t[key])
		v, freeValues := h.kept(be, t[v])
		be.Attention(t[at.out], t[at.lse], t[q], key, v, a)
		freeKeys()
		freeValues()
	}
	return at
}

func attentionValues(t *testing.T, be k.Backend, g source) {
	for _, longest := range []int{1, 2, 9, 40, 130, 300} {
		h := g.heads()
		seqs := g.sequences(h, 1+g.IntN(4), longest)
		values(t, be, g, attend(g, h, seqs, wholes(seqs, g.Perm(len(seqs))), 0).problem)
		values(t, be, g, attend(g, h, seqs, wholes(seqs, g.Perm(len(seqs))), g.size(1, 64)).problem)
	}
}

// attentionLaw: a position's answer has the same bits alone and in company, from its own rows and through
// pages, in one prefill, in chunks and in single steps.
func attentionLaw(t *testing.T, be k.Backend, g source) {
	for range 4 {
		h := g.heads()
		seqs := append(g.sequences(h, 3, 100), g.sequence(h, 1), g.sequence(h, 200))
		var want []attended
		for s := range seqs {
			alone := play(t, be, g, h, seqs, wholes(seqs, []int{s}), 0)
			want = append(want, alone[0])
		}
		same := func(what string, pieces []piece, size int) {
			t.Helper()
			for i, got := range play(t, be, g, h, seqs, pieces, size) {
				c := pieces[i]
				equalBits(t, got.out, want[c.seq].out.slice(byRow, c.from, c.to-c.from), "positions %d … %d of a sequence %s and alone: out", c.from, c.to-1, what)
				equalBits(t, got.lse, want[c.seq].lse.slice(byRow, c.from, c.to-c.from), "positions %d … %d of a sequence %s and alone: lse", c.from, c.to-1, what)
			}
		}
		same("packed with others", wholes(seqs, g.Perm(len(seqs))), 0)
		for _, size := range []int{1, 7, 16, 64, 256} {
			same("in pages", wholes(seqs, g.Perm(len(seqs))), size)
			for lo, n := 0, 0; lo < 200; lo += n { // chunks of all sequences beside each other
				n = 1 + g.IntN(90)
				var chunk []piece
				for s, q := range seqs {
					if end := min(lo+n, q.q.rows); lo < end {
						chunk = append(chunk, piece{s, lo, end})
					}
				}
				same("in chunks", chunk, size)
			}
		}
		var steps []piece
		for pos := range 200 {
			for s, q := range seqs {
				if pos < q.q.rows && (pos < 3 || g.IntN(10) == 0) {
					steps = append(steps, piece{s, pos, pos + 1})
				}
			}
		}
		same("in single steps", steps, g.size(1, 64))
		for _, c := range steps[:4] {
			same("in a step alone", []piece{c}, g.size(1, 64))
		}
	}
}

// attentionGroup: samples of one prompt, which share its pages, have each the bits they have alone.
func attentionGroup(t *testing.T, be k.Backend, g source) {
	for _, size := range []int{1 + g.IntN(9), 16, 32} {
		h, prompt := g.heads(), 1+g.IntN(100)
		seqs := []sequence{g.sequence(h, 30), g.sequence(h, prompt+1+g.IntN(30))}
		for range 1 + g.IntN(6) {
			s := g.sequence(h, prompt+1+g.IntN(30))
			copy(s.k.bits[:prompt*s.k.cols], seqs[1].k.bits)
			copy(s.v.bits[:prompt*s.v.cols], seqs[1].v.bits)
			seqs = append(seqs, s)
		}
		var steps, tails []piece
		var alone []attended
		for s, q := range seqs {
			n := q.q.rows
			steps, tails = append(steps, piece{s, n - 1, n}), append(tails, piece{s, n - 1 - g.IntN(n), n})
			alone = append(alone, play(t, be, g, h, seqs, wholes(seqs, []int{s}), 0)...)
		}
		for _, pieces := range [][]piece{steps, tails} {
			g.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
			for i, got := range play(t, be, g, h, seqs, pieces, size) {
				c := pieces[i]
				what := "positions %d … %d of a sample in a group with pages of %d and alone: %s"
				equalBits(t, got.out, alone[c.seq].out.slice(byRow, c.from, c.to-c.from), what, c.from, c.to-1, size, "out")
				equalBits(t, got.lse, alone[c.seq].lse.slice(byRow, c.from, c.to-c.from), what, c.from, c.to-1, size, "lse")
			}
		}
	}
}

// attentionShared: a sequence that shares its first keys has the bits it has alone.
func attentionShared(t *testing.T, be k.Backend, g source) {
	for _, longest := range []int{1, 2, 9, 40, 130} {
		h := g.heads()
		seqs, pieces := g.groups(h, longest)
		values(t, be, g, attend(g, h, seqs, pieces, 0).problem)
		for i, got := range play(t, be, g, h, seqs, pieces, 0) {
			c := pieces[i]
			alone := play(t, be, g, h, seqs, wholes(seqs, []int{i}), 0)[0]
			what := "%s of a sequence of %d that shares %d keys and alone"
			equalBits(t, got.out, alone.out.slice(byRow, c.from, c.to-c.from), what, "out", c.to, c.from)
			equalBits(t, got.lse, alone.lse.slice(byRow, c.from, c.to-c.from), what, "lse", c.to, c.from)
		}
	}
}

// attentionWithoutLSE: out has the same bits when nobody asks for lse.
func attentionWithoutLSE(t *testing.T, be k.Backend, g source) {
	h := g.heads()
	seqs := g.sequences(h, 3, 90)
	for _, size := range []int{0, 16} {
		a := attend(g, h, seqs, wholes(seqs, []int{2, 0, 1}), size)
		with, call := a.run(t, be, g), a.call
		a.call = func(be k.Backend, t []k.Tensor, w []k.Weight) {
			t = append([]k.Tensor(nil), t...)
			t[a.lse] = k.Tensor{}
			call(be, t, w)
		}
		without := a.run(t, be, g)
		equalBits(t, without[a.out], with[a.out], "out without lse and with it")
		equalBits(t, without[a.lse], a.operands[a.lse].matrix, "lse that nobody asked for, after and before")
	}
}

// attentionEmpty: a sequence may have no queries in a call.
func attentionEmpty(t *testing.T, be k.Backend, g source) {
	h := g.heads()
	seqs := g.sequences(h, 3, 20)
	n := seqs[1].q.rows
	values(t, be, g, attend(g, h, seqs, []piece{{0, 0, 0}, {1, 0, n}, {2, 0, 0}, {2, 0, 0}}, 16).problem)
}

// An attended piece is Attention's answer for it.
type attended struct{ out, lse matrix }

// play plays the pieces in one call.
func play(t *testing.T, be k.Backend, g source, h heads, seqs []sequence, pieces []piece, size int) (parts []attended) {
	t.Helper()
	a := attend(g, h, seqs, pieces, size)
	got := a.run(t, be, g)
	lo := 0
	for _, c := range pieces {
		n := c.to - c.from
		parts = append(parts, attended{got[a.out].slice(byRow, lo, n), got[a.lse].slice(byRow, lo, n)})
		lo += n
	}
	return parts
}
