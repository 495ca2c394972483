package kerneltest

import k "github.com/r2-reasoner/r2/kernels"

// A sequence is the queries, keys and values of all its positions, and with gradients that of its output.
type sequence struct{ q, k, v, dout matrix }

func (g source) sequence(h heads, n int) sequence {
	return sequence{g.floats(n, h.heads*h.dim, 1), g.floats(n, h.kv*h.dim, 1), g.floats(n, h.kv*h.dim, 1), g.floats(n, h.heads*h.dim, 1)}
}

func (g source) sequences(h heads, n, longest int) (all []sequence) {
	for range n {
		all = append(all, g.sequence(h, g.size(1, longest)))
	}
	return all
}

// A piece is the positions from … to-1 of a sequence: its queries in one call.
type piece struct{ seq, from, to int }

// wholes is each sequence whole, in an order.
func wholes(seqs []sequence, order []int) (all []piece) {
	for _, s := range order {
		all = append(all, piece{s, 0, seqs[s].q.rows})
	}
	return all
}

// stack puts matrices of one width on top of each other.
func stack(cols int, parts ...matrix) matrix {
	m := matrix{typ: k.F32, cols: cols}
	for _, p := range parts {
		m.rows, m.bits = m.rows+p.rows, append(m.bits, p.bits...)
		if p.exact != nil {
			m.exact = append(m.exact, p.exact...)
		}
	}
	return m
}

// groups is sequences that begin with keys of their group's first one, and the pieces that share them, beside
// sequences alone. A group may share keys of different numbers.
func (g source) groups(h heads, longest int) (seqs []sequence, pieces []piece) {
	add := func(s sequence, from int) {
		pieces = append(pieces, piece{len(seqs), from, s.q.rows})
		seqs = append(seqs, s)
	}
	add(g.sequence(h, g.size(1, longest)), 0)
	for range 2 {
		first := g.sequence(h, g.size(1, longest))
		add(first, 0)
		for range g.IntN(5) {
			n := 1 + g.IntN(first.q.rows)
			if g.IntN(2) == 0 {
				n = first.q.rows
			}
			s := g.sequence(h, n+g.size(1, longest))
			copy(s.k.bits[:n*s.k.cols], first.k.bits)
			copy(s.v.bits[:n*s.v.cols], first.v.bits)
			add(s, n)
		}
	}
	return seqs, pieces
}

// paged lays the keys and values that the pieces may see into shuffled pages; all else is poison, keys
// of later positions too. Full pages that hold the same are one page, as of samples of one prompt.
func paged(g source, h heads, seqs []sequence, pieces []piece, size int) (keys, values, table matrix) {
	need, widest, total := make([]int, len(seqs)), 0, g.IntN(4)
	for _, c := range pieces {
		need[c.seq] = max(need[c.seq], c.to)
	}
	for _, n := range need {
		widest, total = max(widest, (n+size-1)/size), total+(n+size-1)/size
	}
	keys = filled(k.F32, total*size, h.kv*h.dim, poison)
	values, table = filled(k.F32, keys.rows, keys.cols, poison), filled(k.I32, len(pieces), widest+g.IntN(3), poison)
	free, held := g.Perm(total), map[string]int{}
	for s, n := range need {
		for j := range (n + size - 1) / size {
			lo, rows := j*size, min(size, n-j*size)
			ks, vs := seqs[s].k.slice(byRow, lo, rows), seqs[s].v.slice(byRow, lo, rows)
			content := string(ks.bytes()) + string(vs.bytes())
			page, shared := held[content]
			if !shared || rows < size {
				page, free = free[0], free[1:]
				held[content] = page
				copy(keys.bits[page*size*keys.cols:], ks.bits)
				copy(values.bits[page*size*keys.cols:], vs.bits)
			}
			for i, c := range pieces {
				if c.seq == s && lo < c.to {
					table.row(i)[j] = uint32(page)
				}
			}
		}
	}
	return keys, values, table
}
