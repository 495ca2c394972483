package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// attention is the task of Attention. A query row of one head depends on its q and on the keys it sees
// and nothing else:
//
//	score[j] = Σ q[d]·k[j][d], d ascending; m = max(score·Scale)
//	p[j]     = exp(score[j]·Scale - m); s = Σ p[j] by lanes
//	out[d]   = (Σ p[j]·v[j][d], j ascending)·(1/s); lse = m + log(s)
//
// with one rounding a term of every sum. A piece of work is a run of a sequence's tokens with the query
// heads of one key head, so that a block of keys, transposed once, serves them all.
type attention struct {
	kernels.Attn
	d               *Device
	q, k, v         view
	out, lse        view // lse.s is nil when it is not wanted
	starts, lengths column
	pages           view32
	group           int // query heads of one key head
	tokens          int // of a piece
	sequences       int
	parts           int // pieces of the longest sequence
}

// A view32 is an I32 tensor's elements.
type view32 struct {
	s      []int32
	stride int
}

const (
	pieceRows   = 4 * tileRows // query rows that share one transposition of the keys
	pieceBytes  = 512 << 10    // of a piece's scores, at most, where there is more than one token
	valueRun    = 64           // keys whose values are reused by all tiles of a piece before the next
	attendAlone = 1 << 18      // products of q and k that the caller does alone
)

// Attention sets out to causal softmax attention and lse to the log-sum-exp of each row's scaled scores.
func (d *Device) Attention(out, lse, q, k, v kernels.Tensor, a kernels.Attn) {
	need(attends(q, k, v, a) && like(out, q) && (lse.Zero() || like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads),
		"Attention", out, lse, q, k, v, a.Starts, a.Lengths, a.Pages)
	if d.err != nil || q.Rows == 0 {
		return
	}
	t := &d.attn
	t.begin("Attention", d, q, k, v, a)
	t.out = viewOf("Attention", out)
	if !lse.Zero() {
		t.lse = viewOf("Attention", lse)
	}
	if longest, ok := t.check("Attention", q.Rows, k.Rows); ok {
		t.cut(longest)
		d.reserve(t.space(t.tokens*t.group, scoreStride(longest)))
		n := t.sequences * t.KVHeads * t.parts
		grain := 1
		if q.Rows*longest*q.Cols <= attendAlone {
			grain = n
		}
		d.share(n, grain, t)
	}
	*t = attention{}
}

// attends reports whether q, k and v fit a.
func attends(q, k, v kernels.Tensor, a kernels.Attn) bool {
	n := a.Lengths.Rows
	return a.HeadDim > 0 && a.KVHeads > 0 && a.Heads%a.KVHeads == 0 &&
		like(q) && like(k, v) && q.Cols == a.Heads*a.HeadDim && k.Cols == a.KVHeads*a.HeadDim &&
		oneColumn(a.Lengths, kernels.I32, n) && oneColumn(a.Starts, kernels.I32, n+1) &&
		(a.Pages.Zero() && k.Rows == q.Rows ||
			!a.Pages.Zero() && a.Pages.Type == kernels.I32 && a.Pages.Rows == n && a.PageSize > 0)
}

func (t *attention) begin(op string, d *Device, q, k, v kernels.Tensor, a kernels.Attn) {
	t.Attn, t.d = a, d
	t.q, t.k, t.v = viewOf(op, q), viewOf(op, k), viewOf(op, v)
	t.starts, t.lengths = columnOf(op, a.Starts), columnOf(op, a.Lengths)
	if !a.Pages.Zero() {
		t.pages = view32{ints(op, a.Pages), a.Pages.Stride}
	}
	t.group, t.sequences = a.Heads/a.KVHeads, a.Lengths.Rows
}

// check keeps a failure unless the sequences lie within the tensors; longest is the most keys of one.
func (t *attention) check(op string, queries, keys int) (longest int, ok bool) {
	for s := range t.sequences {
		lo, hi, n := t.starts.at(s), t.starts.at(s+1), t.lengths.at(s)
		if lo < 0 || hi < lo || hi > queries || n < hi-lo || t.Pages.Zero() && n != hi-lo {
			t.d.fail(fmt.Errorf("cpu: %s: row %d: sequence %d has query rows %d … %d of %d and sees %d keys",
				op, lo, s, lo, hi-1, queries, n))
			return 0, false
		}
		if hi == lo {
			continue
		}
		if hi-lo > t.MaxQueries {
			t.d.fail(fmt.Errorf("cpu: %s: row %d: sequence %d has %d query rows, more than the MaxQueries of %d",
				op, lo, s, hi-lo, t.MaxQueries))
			return 0, false
		}
		if !t.Pages.Zero() {
			if p, at := t.badPage(s, n, keys); at >= 0 {
				t.d.fail(fmt.Errorf("cpu: %s: row %d: key %d of sequence %d is in page %d, outside the %d rows of keys",
					op, lo, at, s, p, keys))
				return 0, false
			}
		}
		longest = max(longest, n)
	}
	return longest, true
}

// badPage is a page of sequence s that is not within so many rows of keys and the first key in it, or -1.
func (t *attention) badPage(s, n, rows int) (page, key int) {
	for j := 0; j < n; j += t.PageSize {
		if j/t.PageSize >= t.Pages.Cols {
			return -1, j
		}
		p := int(t.pages.s[s*t.pages.stride+j/t.PageSize])
		if p < 0 || p*t.PageSize+min(t.PageSize, n-j) > rows {
			return p, j
		}
	}
	return 0, -1
}

// cut chooses the tokens of a piece.
func (t *attention) cut(longest int) {
	rows := min(pieceRows, pieceBytes/4/max(longest, 1))
	t.tokens = max(1, min(rows/t.group, t.MaxQueries))
	t.parts = ceilDiv(min(t.MaxQueries, longest), t.tokens)
}

// span does pieces: the later tokens of all sequences first, since they see the most keys.
func (t *attention) span(lo, hi, worker int) {
	for i := lo; i < hi; i++ {
		part := t.parts - 1 - i/(t.sequences*t.KVHeads)
		s, kv := i/t.KVHeads%t.sequences, i%t.KVHeads
		p := t.piece(s, kv, part*t.tokens)
		if p.rows > 0 {
			t.attend(&p, worker)
		}
	}
}

// A piece is the query rows of one key head for a run of a sequence's tokens: row r is head r mod group
// of token r / group.
type piece struct {
	*attention
	seq, kv int
	first   int // tensor row of the first token
	rows    int
	keys0   int // keys that the first token sees
	last    int // keys that the last one sees
	start   int // tensor row of the sequence's first query
	ss      int // from one row of scores to the next
}

// piece is the one from a token of sequence s on; it has no rows when the sequence ends before.
func (t *attention) piece(s, kv, token int) piece {
	lo, hi, n := t.starts.at(s), t.starts.at(s+1), t.lengths.at(s)
	tokens := max(0, min(t.tokens, hi-lo-token))
	p := piece{attention: t, seq: s, kv: kv, first: lo + token, start: lo, rows: tokens * t.group}
	p.keys0 = n - (hi - lo) + 1 + token
	p.last = p.keys0 + tokens - 1
	p.ss = scoreStride(p.last)
	return p
}

// scoreStride is from one row of n scores to the next: whole vectors, and one more to keep the rows apart in
// the cache's sets.
func scoreStride(n int) int { return ceilDiv(n, 16)*16 + 16 }

// space is the scratch of a piece: q, sums of values, scores, and what dots needs.
func (t *attention) space(rows, ss int) int {
	return rows*(ss+2*t.HeadDim) + panelLines(t.HeadDim)*lanes + 16*t.HeadDim
}

// keys is how many keys row r sees.
func (p *piece) keys(r int) int { return p.keys0 + r/p.group }

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
		prefetch(m.from(row, p.kv*p.HeadDim), m.stride, p.HeadDim, have)
		j += have
	}
}

// run is the tensor row of key j and how many keys lie end to end from there.
func (p *piece) run(j int) (row, n int) {
	if p.Pages.Zero() {
		return p.start + j, p.last - j
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

func (t *attention) attend(p *piece, worker int) {
	hd := t.HeadDim
	space := t.d.workspace(worker, t.space(p.rows, p.ss))
	q, space := space[:p.rows*hd], space[p.rows*hd:]
	o, space := space[:p.rows*hd], space[p.rows*hd:]
	s, space := space[:p.rows*p.ss], space[p.rows*p.ss:]
	p.gather(q, t.q)
	p.dots(s, q, t.k, space)
	clear(o)
	for r := range p.rows {
		row := s[r*p.ss:][:p.keys(r)]
		m := maxScaled(row, nil, t.Scale)
		sum := softmax(row, row, t.Scale, m)
		if t.lse.s != nil {
			t.lse.row(p.first + r/t.group)[p.kv*t.group+r%t.group] = float32(float64(m) + math.Log(float64(sum)))
		}
		q[r] = 1 / sum // q has done its part
	}
	p.blend(o, s, t.v)
	for r := 0; r < p.rows; {
		for out := p.queries(t.out, r/t.group); len(out) > 0; out = out[hd:] {
			scale(out[:hd], o[r*hd:][:hd], q[r])
			r++
		}
	}
}

// dots sets s[r][j] to the dot product of row r of x and key row j of m, for all keys j that row r sees,
// and maybe for some that it does not. space holds a panel and 16 rows.
func (p *piece) dots(s, x []float32, m view, space []float32) {
	hd := p.HeadDim
	panel, rows := space[:panelLines(hd)*lanes], space[panelLines(hd)*lanes:]
	p.prefetch(m, 0, lanes)
	for j := 0; j < p.last; j += lanes {
		n := min(lanes, p.last-j)
		p.prefetch(m, j+lanes, lanes)
		for l := 0; l < n; l += 16 {
			p.transpose(panel[l:], m, j+l, min(16, n-l), rows)
		}
		for r := 0; r < p.rows; r = p.tile(r) {
			if end := p.tile(r); p.keys(end-1) > j {
				(&lines{c: s[r*p.ss+j:], cs: p.ss, x: x[r*hd:], xs: hd, xk: 1, w: panel, ws: lanes}).run(end-r, n, hd)
			}
		}
	}
}

// transpose makes key rows j … j+n-1 of m, at most 16, the lanes of a panel. Where they do not lie end to
// end they are put into rows first.
func (p *piece) transpose(panel []float32, m view, j, n int, rows []float32) {
	hd, col := p.HeadDim, p.kv*p.HeadDim
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

// blend adds to row r of o the rows of m for the keys that row r sees, times s[r], keys ascending.
func (p *piece) blend(o, s []float32, m view) {
	hd := p.HeadDim
	p.prefetch(m, 0, lanes)
	for j := 0; j < p.last; {
		row, n := p.run(j)
		n = min(n, valueRun)
		p.prefetch(m, j+lanes, n)
		w := m.from(row, p.kv*hd)
		for r := 0; r < p.rows; r = p.tile(r) {
			end := p.tile(r)
			whole := max(0, min(n, p.keys(r)-j)) // keys that every row of the tile sees
			t := lines{c: o[r*hd:], cs: hd, x: s[r*p.ss+j:], xs: p.ss, xk: 1, w: w, ws: m.stride, add: true}
			t.run(end-r, hd, whole)
			for i := whole; i < n; i++ { // the others: only the rows that see key j+i
				f := max(r, (j+i+1-p.keys0)*p.group)
				if f >= end {
					break
				}
				t = lines{c: o[f*hd:], cs: hd, x: s[f*p.ss+j+i:], xs: p.ss, xk: 1, w: w[i*m.stride:], ws: m.stride, add: true}
				t.run(end-f, hd, 1)
			}
		}
		j += n
	}
}
