package cpu

import "unsafe"

// A piece is query rows of one key head and a run of the keys they see: row r is head r mod group of token
// r / group.
type piece struct {
	*attention
	seq, kv    int
	start      int // tensor row of the sequence's first query
	first      int // tensor row of the first token
	shared     int // keys that come before the sequence's own
	leader     int // tensor row of the first of these
	rows       int
	per        int   // rows that see equally many keys
	keys0      int   // keys that the first rows see; the next ones see one more
	from, last int   // the keys of the run are from … last-1, and the last rows see them all
	ss         int   // from one row of scores to the next
	feed       *feed // what the tiles ask for, if anything
}

// piece is the tokens of sequence s from a token on, with all their keys; it has no rows when the sequence
// ends before.
func (t *attention) piece(s, kv, token int) piece {
	lo, hi, n := t.starts.at(s), t.starts.at(s+1), t.lengths.at(s)
	tokens := max(0, min(t.tokens, hi-lo-token))
	p := piece{attention: t, seq: s, kv: kv, start: lo, first: lo + token, rows: tokens * t.group, per: t.group}
	if p.shared = t.shared(s); p.shared > 0 {
		p.leader = t.leader(s)
	}
	p.keys0 = n - (hi - lo) + 1 + token
	p.last = p.keys0 + tokens - 1
	p.ss = scoreStride(p.last)
	return p
}

// together is all members of b with the keys they share.
func (t *attention) together(b batch, kv int) piece {
	p := piece{attention: t, seq: b.seq, kv: kv, first: t.starts.at(b.seq), rows: b.members * t.group}
	p.per, p.keys0, p.last = p.rows, b.shared, b.shared
	longest := 0
	for i := range b.members {
		longest = max(longest, t.lengths.at(b.seq+i))
	}
	p.ss = scoreStride(longest)
	return p
}

// apart is member i of b with the keys it does not share.
func (t *attention) apart(b batch, i, kv, ss int) piece {
	n := t.lengths.at(b.seq + i)
	return piece{attention: t, seq: b.seq + i, kv: kv, rows: t.group, per: t.group, keys0: n, from: b.shared, last: n, ss: ss}
}

// scoreStride is from one row of n scores to the next: whole vectors, and one more to keep the rows apart in
// the cache's sets.
func scoreStride(n int) int { return ceilDiv(n, 16)*16 + 16 }

// keys is how many keys row r sees.
func (p *piece) keys(r int) int { return p.keys0 + r/p.per }

// queries is the part of v, a view like q, that belongs to a token: its heads end to end.
func (p *piece) queries(v view, token int) []float32 {
	n := p.group * p.HeadDim
	return v.from(p.first+token, p.kv*n)[:n]
}

// gather copies the rows of v, a view like q, end to end.
func (p *piece) gather(to []float32, v view) {
	for token, n := 0, p.group*p.HeadDim; token*n < len(to); token++ {
		copy(to[token*n:], p.queries(v, token))
	}
}

// prefetch asks for the parts of m, a view like k, of n keys from key j on.
func (p *piece) prefetch(m view, j, n int) {
	for end := min(j+n, p.last); j < end; {
		row, have := p.run(j)
		have = min(have, end-j)
		prefetch(m.from(row, p.kv*p.dim), m.stride, p.dim, have)
		j += have
	}
}

// run is the tensor row of key j and how many keys lie end to end from there.
func (p *piece) run(j int) (row, n int) {
	switch {
	case j < p.shared:
		return p.leader + j, min(p.shared, p.last) - j
	case p.Pages.Zero():
		return p.start + j - p.shared, p.last - j
	}
	pages := p.pages.s[p.seq*p.pages.stride:]
	b := j / p.PageSize
	row, n = int(pages[b])*p.PageSize+j%p.PageSize, p.PageSize-j%p.PageSize
	for ; j+n < p.last && pages[b+1] == pages[b]+1; b++ {
		n += p.PageSize
	}
	return row, min(n, p.last-j)
}

// tile is the end of the tile that begins at row r: tiles are as equal as can be.
func (p *piece) tile(r int) int {
	return min(p.rows, r+ceilDiv(p.rows, ceilDiv(p.rows, tileRows)))
}

// dots sets s[r][j] to the dot product of row r of x and key row j of m, for all keys j of the run that row
// r sees, and maybe for some that it does not. space holds a panel and 16 rows.
func (p *piece) dots(s, x []float32, m view, space []float32) {
	p.prefetch(m, p.from, lanes)
	for j := p.from; j < p.last; j += lanes {
		p.prefetch(m, j+lanes, lanes)
		p.score(s, x, m, j, space)
	}
}

// score is dots of keys j … j+31.
func (p *piece) score(s, x []float32, m view, j int, space []float32) {
	hd, n := p.dim, min(lanes, p.last-j)
	panel, rows := space[:panelLines(hd)*lanes], space[panelLines(hd)*lanes:]
	for l := 0; l < n; l += 16 {
		p.transpose(panel[l:], m, j+l, min(16, n-l), rows)
	}
	_, _ = s[(p.rows-1)*p.ss+j+n-1], x[p.rows*hd-1]
	t := tile{panel: unsafe.Pointer(&panel[0]), k: hd, line: lineF32, row: 4 * hd, step: 4, outRow: 4 * p.ss, mask: maskOf(n), alpha: 1}
	for r := 0; r < p.rows; r = p.tile(r) {
		if end := p.tile(r); p.keys(end-1) > j {
			t.x, t.out = unsafe.Pointer(&x[r*hd]), unsafe.Pointer(&s[r*p.ss+j])
			p.feed.take(&t, hd)
			p.multiply(&t, end-r)
		}
	}
}

// transpose makes key rows j … j+n-1 of m, at most 16, the lanes of a panel. Where they do not lie end to
// end they are put into rows first.
func (p *piece) transpose(panel []float32, m view, j, n int, rows []float32) {
	hd, col := p.dim, p.kv*p.dim
	row, have := p.run(j)
	src, stride := m.from(row, col), m.stride
	if have < n {
		for l := 0; l < n; l += have {
			row, have = p.run(j + l)
			for i := range min(have, n-l) {
				copy(rows[(l+i)*hd:], m.from(row+i, col)[:hd])
			}
		}
		src, stride = rows, hd
	}
	_ = src[(n-1)*stride+hd-1]
	for c := 0; c < hd; c += 16 {
		(&move{dst: unsafe.Pointer(&panel[c*lanes]), src: unsafe.Pointer(&src[c]), n: n,
			srcRow: 4 * stride, dstRow: lineF32, mask: maskOf(min(16, hd-c))}).transpose()
	}
}

// blend adds to row r of o the rows of m for the keys of the run that row r sees, times s[r],
// keys ascending.
func (p *piece) blend(o, s []float32, m view) {
	hd := p.HeadDim
	p.prefetch(m, p.from, lanes)
	for j := p.from; j < p.last; {
		row, n := p.run(j)
		n = min(n, valueRun)
		p.prefetch(m, j+lanes, n)
		w := m.from(row, p.kv*hd)
		for r := 0; r < p.rows; r = p.tile(r) {
			end := p.tile(r)
			whole := max(0, min(n, p.keys(r)-j)) // keys that every row of the tile sees
			p.weigh(o, s[j:], w, m.stride, r, end, whole)
			for i := whole; i < n; i++ { // the others: only the rows that see key j+i
				f := max(r, (j+i+1-p.keys0)*p.per)
				if f >= end {
					break
				}
				p.weigh(o, s[j+i:], w[i*m.stride:], m.stride, f, end, 1)
			}
		}
		j += n
	}
}

// weigh adds to rows lo … hi-1 of o the n rows of w, stride elements apart, times the first n of those rows of s.
func (p *piece) weigh(o, s, w []float32, stride, lo, hi, n int) {
	hd := p.HeadDim
	if n <= 0 {
		return
	}
	_, _, _ = o[hi*hd-1], s[(hi-1)*p.ss+n-1], w[(n-1)*stride+hd-1]
	t := tile{k: n, line: 4 * stride, row: 4 * p.ss, step: 4, outRow: 4 * hd, start: 1, alpha: 1}
	for l := 0; l < hd; l += lanes {
		t.panel, t.mask = unsafe.Pointer(&w[l]), maskOf(hd-l)
		for r := lo; r < hi; {
			end := min(p.tile(r), hi)
			t.x, t.out = unsafe.Pointer(&s[r*p.ss]), unsafe.Pointer(&o[r*hd+l])
			p.feed.take(&t, n)
			t.f32(end - r)
			r = end
		}
	}
}

// put sets the rows of the output to those of o, each times its scale.
func (p *piece) put(o, by []float32) {
	for r := 0; r < p.rows; {
		for out := p.queries(p.out, r/p.group); len(out) > 0; out = out[p.HeadDim:] {
			scale(out[:p.HeadDim], o[r*p.HeadDim:][:p.HeadDim], by[r])
			r++
		}
	}
}
