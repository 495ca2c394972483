package cpu

import "github.com/r2-reasoner/r2/kernels"

// attentionGrad is the task of AttentionGrad: a piece of work is one key head of one sequence. Its query
// rows are taken in runs of tokens, in order; with p = exp(score·Scale - lse) as Attention computes it,
//
//	ds[j]    = (p[j]·(dout·v[j] - dout·out))·Scale
//	dq[d]   += Σ ds[j]·k[j][d], j ascending
//	dv[j][d] += Σ p[j]·dout[d] and dk[j][d] += Σ ds[j]·q[d] over query rows, sequences and their tokens
//	           ascending and the heads of a token ascending
//
// each sum starting from what is there. What other sequences add to the dk and dv of keys they share is left for
// a second walk, when all have added to their own: a piece of work is then a tile of such keys and one key head.
type attentionGrad struct {
	attention
	dq, dk, dv, dout view
	most             int // keys that any sequence shares
	second           bool
}

const sharedTile = 32 // keys of a piece of the second walk: a panel of dots

// AttentionGrad adds to dq, dk and dv, given Attention's out and lse.
func (d *Device) AttentionGrad(dq, dk, dv, dout, out, lse, q, k, v kernels.Tensor, a kernels.Attn) {
	need(a.Pages.Zero() && attends(q, k, v, a) && like(q, dq, dout, out) && like(k, dk, dv) &&
		like(lse) && lse.Rows == q.Rows && lse.Cols == a.Heads,
		"AttentionGrad", dq, dk, dv, dout, out, lse, q, k, v, a.Starts, a.Lengths, a.Pages)
	if d.err != nil || q.Rows == 0 {
		return
	}
	const op = "AttentionGrad"
	t := &d.attnGrad
	t.begin(op, d, q, k, v, a)
	t.out, t.lse = viewOf(op, out), viewOf(op, lse)
	t.dq, t.dk, t.dv, t.dout = viewOf(op, dq), viewOf(op, dk), viewOf(op, dv), viewOf(op, dout)
	if longest, ok := t.check(op, q.Rows, k.Rows); ok {
		t.cut(longest)
		d.reserve(t.space(t.tokens*t.group, scoreStride(longest)))
		t.plan()
		alone := q.Rows*longest*q.Cols <= attendAlone
		walk := func(n int) {
			grain := 1
			if alone {
				grain = n
			}
			d.share(n, grain, t)
		}
		walk(t.sequences * t.KVHeads)
		if t.most > 0 {
			t.second = true
			walk(len(t.batches) * t.KVHeads * ceilDiv(t.most, sharedTile))
		}
	}
	*t = attentionGrad{attention: attention{batches: t.batches[:0]}}
}

// plan makes a batch of each sequence and those that share its keys.
func (t *attentionGrad) plan() {
	for s := range t.sequences {
		n := t.shared(s)
		if n == 0 {
			t.batches = append(t.batches, batch{seq: s})
		}
		t.batches[len(t.batches)-1].members++
		t.most = max(t.most, n)
	}
}

func (t *attentionGrad) span(lo, hi, worker int) {
	for i := lo; i < hi; i++ {
		if t.second {
			tiles := ceilDiv(t.most, sharedTile)
			t.others(t.batches[i/tiles/t.KVHeads], i/tiles%t.KVHeads, i%tiles*sharedTile, worker)
			continue
		}
		for token := 0; ; token += t.tokens {
			p := t.piece(i/t.KVHeads, i%t.KVHeads, token)
			if p.rows == 0 {
				break
			}
			t.add(&p, worker)
		}
	}
}

// others adds to dk and dv of the tile of keys from one on what the members of b that share them add.
func (t *attentionGrad) others(b batch, kv, from, worker int) {
	for s := b.seq + 1; s < b.seq+b.members; s++ {
		for token := 0; from < t.shared(s); token += t.tokens {
			p := t.piece(s, kv, token)
			if p.rows == 0 {
				break
			}
			p.from, p.last = from, min(from+sharedTile, p.shared)
			p.keys0, p.per = p.last, p.rows
			g := t.grads(&p, worker)
			p.spread(t.dv, g.prob, g.dout, from)
			p.spread(t.dk, g.ds, g.q, from)
		}
	}
}

// space is the scratch of a run of tokens: q, dout, dq, p, ds, and what dots needs.
func (t *attentionGrad) space(rows, ss int) int {
	return rows*(2*ss+3*t.HeadDim) + panelLines(t.HeadDim)*lanes + 16*t.HeadDim
}

// A gradPiece is the rows of a piece, gathered, and what belongs to each and a key it sees.
type gradPiece struct{ q, dout, dq, prob, ds []float32 }

// grads computes prob and ds for the keys of the run. dq is room.
func (t *attentionGrad) grads(p *piece, worker int) (g gradPiece) {
	hd, n := t.HeadDim, p.rows*t.HeadDim
	space := t.d.workspace(worker, t.space(p.rows, p.ss))
	g.q, space = space[:n], space[n:]
	g.dout, space = space[:n], space[n:]
	g.dq, space = space[:n], space[n:]
	g.prob, space = space[:p.rows*p.ss], space[p.rows*p.ss:]
	g.ds, space = space[:p.rows*p.ss], space[p.rows*p.ss:]
	p.gather(g.q, t.q)
	p.gather(g.dout, t.dout)
	p.dots(g.prob, g.q, t.k, space)
	p.dots(g.ds, g.dout, t.v, space)
	for r := 0; r < p.rows; {
		token := r / t.group
		lse := t.lse.from(p.first+token, p.kv*t.group)
		for out := p.queries(t.out, token); len(out) > 0; out = out[hd:] {
			row := g.prob[r*p.ss+p.from : r*p.ss+p.keys(r)]
			expScaled(row, row, nil, t.Scale, lse[r%t.group], 1)
			scoreGrad(g.ds[r*p.ss+p.from:][:len(row)], row, dot(g.dout[r*hd:][:hd], out[:hd]), t.Scale)
			r++
		}
	}
	return g
}

// add adds the gradients that come through the rows of p, but for those of keys they share.
func (t *attentionGrad) add(p *piece, worker int) {
	g := t.grads(p, worker)
	p.gather(g.dq, t.dq)
	p.blend(g.dq, g.ds, t.k)
	for r := 0; r < p.rows; r += t.group {
		copy(p.queries(t.dq, r/t.group), g.dq[r*t.HeadDim:])
	}
	p.spread(t.dv, g.prob, g.dout, p.shared)
	p.spread(t.dk, g.ds, g.q, p.shared)
}

// spread adds to key row j of m, from one on, row r of x times s[r][j], for the rows that see key j, in order.
func (p *piece) spread(m view, s, x []float32, from int) {
	hd, g := p.HeadDim, p.group
	for j, n := from, 0; j < p.last; j += n {
		row, have := p.run(j)
		n = ceilDiv(have, ceilDiv(have, tileRows))
		part := func(token int) lines {
			return lines{c: m.from(row, p.kv*hd), cs: m.stride, x: s[token*g*p.ss+j:], xs: 1, xk: p.ss,
				w: x[token*g*hd:], ws: hd, add: true}
		}
		token := max(0, j+1-p.keys0) // the first that sees key j
		for ; token*g < p.rows && p.keys0+token < j+n; token++ {
			t := part(token) // which sees only some of the n keys
			t.run(p.keys0+token-j, hd, g)
		}
		if token*g < p.rows {
			t := part(token)
			t.run(n, hd, p.rows-token*g)
		}
	}
}
