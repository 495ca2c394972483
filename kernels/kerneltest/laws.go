package kerneltest

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// laws checks what holds of every operation whose operands have the rows of a batch.
func laws(t *testing.T, be kernels.Backend, g source, problemOf func(rows int) *problem) {
	p := problemOf(256)
	oneRow(t, be, g, p)
	alone(t, be, g, p)
	cut(t, be, g, problemOf(44))
}

// oneRow checks that each row's answer has the same bits in batches of other sizes, in another order and
// at other places.
func oneRow(t *testing.T, be kernels.Backend, g source, p *problem) {
	full := p.run(t, be, g)
	same := func(rows []int) {
		t.Helper()
		part := p.take(rows)
		got := part.run(t, be, g)
		for i, o := range p.operands {
			if o.role != input && o.axis != shared {
				equalBits(t, got[i], full[i].pick(o.axis, rows), "operand %d in a batch of %d rows and of %d", i, len(rows), p.rows)
			}
		}
	}
	for range 8 {
		same([]int{g.IntN(p.rows)})
	}
	for _, n := range []int{2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 31, 44, 65, 130} {
		lo := g.IntN(p.rows - n + 1)
		rows := make([]int, n)
		for i := range rows {
			rows[i] = lo + i
		}
		same(rows)
	}
	same(g.Perm(p.rows)[:44])
	same(g.Perm(p.rows))
}

// alone checks that a row of NaN changes no other row.
func alone(t *testing.T, be kernels.Backend, g source, p *problem) {
	if p.strict {
		return
	}
	bad := g.IntN(p.rows)
	var others []int
	for i := range p.rows {
		if i != bad {
			others = append(others, i)
		}
	}
	full, sick := p.run(t, be, g), *p
	sick.operands = nil
	for _, o := range p.operands {
		if o.role != output && o.axis != shared && o.typ == kernels.F32 {
			o.matrix = spoil(o.matrix, o.axis, bad)
		}
		sick.add(o)
	}
	got := sick.run(t, be, g)
	for i, o := range p.operands {
		if o.role != input && o.axis != shared {
			equalBits(t, got[i].pick(o.axis, others), full[i].pick(o.axis, others), "operand %d with and without a NaN in another row", i)
		}
	}
}

// spoil returns m with one row or column of NaN.
func spoil(m matrix, a axis, at int) matrix {
	m.bits = append([]uint32(nil), m.bits...)
	for i := range m.rows {
		for j := range m.cols {
			if a == byRow && i == at || a == byCol && j == at {
				m.bits[i*m.cols+j] = poison
			}
		}
	}
	return m
}

// cut checks that a sum over the rows of a batch has the same bits in one call and in several.
func cut(t *testing.T, be kernels.Backend, g source, p *problem) {
	sums := false
	for _, o := range p.operands {
		sums = sums || o.role == update && o.axis == shared
	}
	if !sums {
		return
	}
	full := p.run(t, be, g)
	for _, most := range []int{1, 5, p.rows - 1, p.rows - 1, p.rows - 1} {
		var so []matrix
		for lo := 0; lo < p.rows; {
			n := min(1+g.IntN(most), p.rows-lo)
			rows := make([]int, n)
			for i := range rows {
				rows[i] = lo + i
			}
			piece := p.take(rows)
			for i, o := range piece.operands {
				if so != nil && o.role == update && o.axis == shared {
					piece.operands[i].matrix = so[i]
				}
			}
			so = piece.run(t, be, g)
			lo += n
		}
		for i, o := range p.operands {
			if o.role == update && o.axis == shared {
				equalBits(t, so[i], full[i], "operand %d, a sum over %d rows in pieces of at most %d and whole", i, p.rows, most)
			}
		}
	}
}
