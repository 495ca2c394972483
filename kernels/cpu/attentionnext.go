package cpu

import "unsafe"

// next computes batch b of single tokens. The key heads of some keys come one after the other, so that memory is
// read in the order in which it lies, and is asked for while what came before it is multiplied.
func (t *attention) next(b batch, worker int) {
	hd, p := t.HeadDim, t.together(b, 0)
	rows := p.rows * b.heads
	space := t.d.workspace(worker, t.space(rows, p.ss))
	q, space := space[:rows*hd], space[rows*hd:]
	o, space := space[:rows*hd], space[rows*hd:]
	s, space := space[:rows*p.ss], space[rows*p.ss:]
	f := feed{t: t, b: b}
	f.begin()
	for h := range b.heads {
		p.kv = b.kv + h
		p.gather(q[h*p.rows*hd:][:p.rows*hd], t.q)
	}
	if t.pairs {
		narrow(q)
	}
	for part := range b.parts() {
		m, at := t.part(b, part)
		m.feed = &f
		for j := m.from; j < m.last; j += lanes {
			for h := range b.heads {
				r := h*p.rows + at
				m.kv = b.kv + h
				m.score(s[r*p.ss:], q[r*t.dim:], t.k, j, space)
			}
		}
	}
	for r := range rows {
		token := r % p.rows / t.group
		keys := s[r*p.ss:][:t.lengths.at(b.seq+token)]
		q[r] = t.softmax(keys, p.first+token, (b.kv+r/p.rows)*t.group+r%t.group) // q has done its part
	}
	clear(o)
	for part := range b.parts() {
		m, at := t.part(b, part)
		m.feed = &f
		if t.pairs {
			t.nextPairs(o, s, m, at, p.rows, b, space)
			continue
		}
		for j := m.from; j < m.last; {
			row, n := m.run(j)
			n = min(n, valueRun)
			for h := range b.heads {
				r := h*p.rows + at
				m.kv = b.kv + h
				m.weigh(o[r*hd:], s[r*p.ss+j:], t.v.from(row, m.kv*hd), t.v.stride, 0, m.rows, n)
			}
			j += n
		}
	}
	for h := range b.heads {
		p.kv = b.kv + h
		p.put(o[h*p.rows*hd:], q[h*p.rows:])
	}
}

// nextPairs adds, for each key head of b, a part's values of bf16 to its rows of o: from row at of each head's on.
func (t *attention) nextPairs(o, s []float32, m piece, at, rows int, b batch, space []float32) {
	width := panelLines(t.HeadDim)
	lines, two := space[:valueRun/2*width], space[valueRun/2*width:]
	for j := m.from; j < m.last; j += valueRun {
		n := min(valueRun, m.last-j)
		for h := range b.heads {
			r := h*rows + at
			m.kv = b.kv + h
			m.pairValues(lines, two, t.v, j, n)
			m.weighPairs(o[r*t.HeadDim:], s[r*m.ss+j/2:], lines, 0, m.rows, ceilDiv(n, 2))
		}
	}
}

// parts is how many parts the keys of b have: those that all members share, and each member's own.
func (b *batch) parts() int { return 1 + b.members }

// part is a part of b's keys, with the first of the rows that see it.
func (t *attention) part(b batch, i int) (p piece, row int) {
	p = t.together(b, 0)
	if i == 0 {
		return p, 0
	}
	return t.apart(b, i-1, 0, p.ss), (i - 1) * t.group
}

// A feed says which memory to ask for while something else is computed: of a batch of single tokens the rows of
// its keys, and then of its values, in the order in which they are used.
type feed struct {
	t    *attention
	b    batch
	next int // part, of the keys and then of the values
	m    view
	p    piece // the present part
	j    int   // the first of its keys that rest does not hold
	rest []float32
}

// feedAhead is how many elements are asked for before anything is computed.
const feedAhead = 16 << 10

// begin asks for the first of the memory.
func (f *feed) begin() {
	for n := feedAhead; n > 0 && f.more(); {
		size := min(n, len(f.rest))
		prefetch(f.rest, size, size, 1)
		f.rest = f.rest[size:]
		n -= size
	}
}

// take gives a tile of k lines the memory that it asks for: two cache lines for each of its own.
func (f *feed) take(t *tile, k int) {
	if f == nil || !f.more() {
		t.ahead, t.aheadStep = uintptr(t.panel), 0
		return
	}
	t.ahead, t.aheadStep = uintptr(unsafe.Pointer(&f.rest[0])), cacheLine
	f.rest = f.rest[min(len(f.rest), 2*cacheLine/4*k):]
}

// more finds memory that has not been asked for, if there is any.
func (f *feed) more() bool {
	for parts := f.b.parts(); len(f.rest) == 0; {
		if f.j < f.p.last {
			row, n := f.p.run(f.j)
			f.j += n
			f.rest = f.m.from(row, 0)[:(n-1)*f.m.stride+f.m.cols]
			continue
		}
		if f.next == 2*parts {
			return false
		}
		if f.m = f.t.k; f.next >= parts {
			f.m = f.t.v
		}
		f.p, _ = f.t.part(f.b, f.next%parts)
		f.j = f.p.from
		f.next++
	}
	return true
}
