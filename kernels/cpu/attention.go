package cpu

import (
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
)

// attention is the task of Attention. A query row of one head depends on its q and on the keys it sees
// and nothing else:
//
//	score[j] = Σ q[d]·k[j][d], d ascending; m = max(score·Scale)
//	p[j]     = exp(score[j]·Scale - m); s = Σ p[j] by lanes
//	out[d]   = (Σ p[j]·v[j][d], j ascending)·(1/s); lse = m + log(s)
//
// with one rounding a term of every sum. Where k and v are of bf16, q and p are rounded to it, but for s, and sums take their terms
// in pairs: of elements, and of key 2i and the next. The query heads of one key head are computed together for a run of
// a sequence's tokens, or for the next tokens of sequences that begin with the same pages: so a block of
// keys, transposed once, serves many rows.
type attention struct {
	kernels.Attn
	d               *Device
	q, k, v         view
	out, lse        view // lse.s is nil when it is not wanted
	starts, lengths column
	pages           view32
	pairs           bool // k and v are of bf16
	dim             int  // of the four bytes that k and v have for a head
	group           int  // query heads of one key head
	tokens          int  // of one sequence, computed together
	sequences       int
	batches         []batch
}

// A batch is what is computed together: tokens of sequence seq from token on, or, if there are more members,
// the only tokens of sequences seq … seq+members-1, whose first shared keys are in the same pages.
type batch struct {
	seq, token      int
	members, shared int
	kv, heads       int // the first of its key heads, and how many
}

// A view32 is an I32 tensor's elements.
type view32 struct {
	s      []int32
	stride int
}

const (
	pieceRows   = 4 * tileRows // query rows of one sequence that share a transposition of the keys
	pieceBytes  = 512 << 10    // of their scores, at most, where there is more than one token
	leastRows   = 8            // of a batch of sequences that is cut off for another worker's sake
	batchBytes  = 4 << 20      // of the scores of a batch of sequences, at most, where there are more than one
	valueRun    = 64           // keys whose values serve all tiles of a piece before the next ones do
	attendAlone = 1 << 14      // products of q and k that the caller does alone
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
		t.plan(longest)
		d.reserve(t.space(t.most(), scoreStride(longest)))
		n, grain := len(t.batches), 1
		if q.Rows*longest*q.Cols <= attendAlone {
			grain = n
		}
		d.share(n, grain, t)
	}
	*t = attention{batches: t.batches[:0]}
}

// attends reports whether q, k and v fit a.
func attends(q, k, v kernels.Tensor, a kernels.Attn) bool {
	n := a.Lengths.Rows
	return a.HeadDim > 0 && a.KVHeads > 0 && a.Heads%a.KVHeads == 0 &&
		like(q) && holdsKeys(k, v, a.HeadDim) && q.Cols == a.Heads*a.HeadDim && k.Cols == a.KVHeads*a.HeadDim &&
		oneColumn(a.Lengths, kernels.I32, n) && oneColumn(a.Starts, kernels.I32, n+1) &&
		(a.Pages.Zero() && k.Rows == q.Rows ||
			!a.Pages.Zero() && a.Pages.Type == kernels.I32 && a.Pages.Rows == n && a.PageSize > 0)
}

// begin takes the operands that Attention and its gradient have in common.
func (t *attention) begin(op string, d *Device, q, k, v kernels.Tensor, a kernels.Attn) {
	t.Attn, t.d = a, d
	t.q, t.k, t.v = viewOf(op, q), keysOf(op, k), keysOf(op, v)
	if t.pairs, t.dim = k.Type == kernels.BF16, a.HeadDim; t.pairs {
		t.dim /= 2
	}
	t.starts, t.lengths = columnOf(op, a.Starts), columnOf(op, a.Lengths)
	if !a.Pages.Zero() {
		t.pages = view32{ints(op, a.Pages), a.Pages.Stride}
	}
	t.group, t.sequences = a.Heads/a.KVHeads, a.Lengths.Rows
}

// check keeps a failure unless the sequences lie within the tensors; longest is the most keys of one.
func (t *attention) check(op string, queries, keys int) (longest int, ok bool) {
	leads := 0 // keys of the last sequence that shares none
	for s := range t.sequences {
		lo, hi, n := t.starts.at(s), t.starts.at(s+1), t.lengths.at(s)
		if t.shared(s) == 0 {
			leads = n
		}
		bad := ""
		switch {
		case lo < 0 || hi < lo || hi > queries || n < hi-lo || t.shared(s) > leads:
			bad = fmt.Sprintf("has query rows %d … %d of %d and sees %d keys", lo, hi-1, queries, n)
		case lo == hi:
			continue
		case hi-lo > t.MaxQueries:
			bad = fmt.Sprintf("has %d query rows, more than the MaxQueries of %d", hi-lo, t.MaxQueries)
		case !t.Pages.Zero():
			bad = t.outside(s, n, keys)
		}
		if bad != "" {
			t.d.fail(fmt.Errorf("cpu: %s: row %d: sequence %d %s", op, lo, s, bad))
			return 0, false
		}
		longest = max(longest, n)
	}
	return longest, true
}

// outside says which of the n keys of sequence s is not in so many rows of keys, if any.
func (t *attention) outside(s, n, rows int) string {
	if n > t.Pages.Cols*t.PageSize {
		return fmt.Sprintf("sees %d keys, more than its %d pages of %d rows hold", n, t.Pages.Cols, t.PageSize)
	}
	for j := 0; j < n; j += t.PageSize {
		p := int(t.pages.s[s*t.pages.stride+j/t.PageSize])
		if p < 0 || p*t.PageSize+min(t.PageSize, n-j) > rows {
			return fmt.Sprintf("has key %d in page %d, which the %d rows of keys do not hold", j, p, rows)
		}
	}
	return ""
}

// shared is how many keys of sequence s are rows of its leader.
func (t *attention) shared(s int) int {
	if !t.Pages.Zero() {
		return 0
	}
	return t.lengths.at(s) - (t.starts.at(s+1) - t.starts.at(s))
}

// leader is the tensor row of the first key of sequence s, which has no pages.
func (t *attention) leader(s int) int {
	for t.shared(s) > 0 {
		s--
	}
	return t.starts.at(s)
}

// cut chooses how many tokens of a sequence are computed together.
func (t *attention) cut(longest int) {
	rows := pieceRows
	if t.pairs {
		rows *= 2 // products take half the time, and what is done once a piece does not
	}
	rows = min(rows, pieceBytes/4/max(longest, 1))
	t.tokens = max(1, min(rows/t.group, t.MaxQueries))
}

// plan makes the batches, of sequences of at most so many keys.
func (t *attention) plan(longest int) {
	for s := range t.sequences {
		queries := t.starts.at(s+1) - t.starts.at(s)
		if queries == 1 && t.join(s) {
			continue
		}
		b := batch{seq: s, members: 1, shared: t.lengths.at(s), heads: 1}
		if t.single(b) {
			b.heads = t.KVHeads
		}
		for ; b.token < queries; b.token += t.tokens {
			for b.kv = 0; b.kv < t.KVHeads; b.kv += b.heads {
				t.batches = append(t.batches, b)
			}
		}
	}
	t.split(longest)
}

// join makes sequence s, which has one token, a member of the last batch, if that is worth it: together they
// must have no fewer shared keys to walk for free.
func (t *attention) join(s int) bool {
	if len(t.batches) == 0 {
		return false
	}
	b := &t.batches[len(t.batches)-1]
	if b.seq+b.members != s || !t.single(*b) {
		return false
	}
	shared := min(b.shared, t.common(b.seq, s))
	if t.pairs {
		shared &^= 1
	}
	if shared*(b.members+1) < b.shared*b.members {
		return false
	}
	b.members, b.shared = b.members+1, shared
	return true
}

// single reports whether b is of sequences of one token that have pages.
func (t *attention) single(b batch) bool {
	return !t.Pages.Zero() && t.starts.at(b.seq+1)-t.starts.at(b.seq) == 1
}

// split cuts batches of many members into equal ones, as many for every worker, and when there are few batches
// those of single tokens by key heads.
func (t *attention) split(longest int) {
	workers := t.d.team.size
	for i, b := range t.batches {
		rows := b.members * t.group
		n := min(ceilDiv(ceilDiv(rows, pieceRows), workers)*workers, ceilDiv(rows, leastRows))
		n = min(max(n, ceilDiv(4*rows*b.heads*longest, batchBytes)), b.members)
		t.batches[i].members = b.members / n
		for j := 1; j < n; j++ {
			part := b
			part.seq, part.members = b.seq+b.members*j/n, b.members*(j+1)/n-b.members*j/n
			t.batches = append(t.batches, part)
		}
	}
	if n := len(t.batches); n%workers == 0 || n > 4*workers {
		return
	}
	for i, b := range t.batches {
		if t.single(b) {
			t.batches[i].heads = 1
			for part := b; part.kv+1 < b.kv+b.heads; {
				part.kv, part.heads = part.kv+1, 1
				t.batches = append(t.batches, part)
			}
		}
	}
}

// common is how many keys sequences a and b begin with that are in the same pages.
func (t *attention) common(a, b int) (keys int) {
	p, q := t.pages.s[a*t.pages.stride:], t.pages.s[b*t.pages.stride:]
	least := min(t.lengths.at(a), t.lengths.at(b))
	for i := 0; keys < least && p[i] == q[i]; i++ {
		keys += t.PageSize
	}
	return min(keys, least)
}

// most is the rows of the largest batch.
func (t *attention) most() (rows int) {
	for _, b := range t.batches {
		n := min(t.tokens, t.starts.at(b.seq+1)-t.starts.at(b.seq))
		rows = max(rows, max(b.members, n)*t.group*b.heads)
	}
	return rows
}

// span does batches, the last ones first: later tokens of a sequence see more keys.
func (t *attention) span(lo, hi, worker int) {
	for i := lo; i < hi; i++ {
		if b := t.batches[len(t.batches)-1-i]; t.single(b) {
			t.next(b, worker)
		} else {
			t.attend(b, worker)
		}
	}
}

// attend computes a batch of tokens of one sequence.
func (t *attention) attend(b batch, worker int) {
	hd, p := t.HeadDim, t.piece(b.seq, b.kv, b.token)
	space := t.d.workspace(worker, t.space(p.rows, p.ss))
	q, space := space[:p.rows*hd], space[p.rows*hd:]
	o, space := space[:p.rows*hd], space[p.rows*hd:]
	s, space := space[:p.rows*p.ss], space[p.rows*p.ss:]
	p.gather(q, t.q)
	if t.pairs {
		narrow(q)
	}
	p.dots(s, q, t.k, space)
	for r := range p.rows {
		q[r] = t.softmax(s[r*p.ss:][:p.keys(r)], p.first+r/t.group, b.kv*t.group+r%t.group) // q has done its part
	}
	clear(o)
	if t.pairs {
		p.blendPairs(o, s, t.v, space)
	} else {
		p.blend(o, s, t.v)
	}
	p.put(o, q)
}

// softmax turns scores into exponentials, narrowed if v is of bf16, keeps the log-sum-exp of the tensor row and head, and gives what
// the exponentials are to be multiplied by.
func (t *attention) softmax(s []float32, row, head int) float32 {
	m := maxScaled(s, nil, t.Scale)
	sum := softmax(s, s, t.Scale, m)
	if t.lse.s != nil {
		t.lse.row(row)[head] = float32(float64(m) + math.Log(float64(sum)))
	}
	if t.pairs {
		narrow(s)
	}
	return 1 / sum
}

// space is the scratch of so many rows: q, sums of values, scores, and what dots needs.
func (t *attention) space(rows, ss int) int {
	return rows*(ss+2*t.HeadDim) + panelLines(t.HeadDim)*lanes + 16*t.HeadDim
}
