package cpu

import "github.com/r2-reasoner/r2/kernels"

// attentionGrad is the task of AttentionGrad: a piece of work is one key head of a sequence and of those
// that share its keys. Their query rows are taken in runs of tokens, in order; with p = exp(score·Scale - lse)
// as Attention computes it,
//
//	ds[j]    = (p[j]·(dout·v[j] - dout·out))·Scale
//	dq[d]   += Σ ds[j]·k[j][d], j ascending
//	dv[j][d] += Σ p[j]·dout[d] and dk[j][d] += Σ ds[j]·q[d] over query rows, sequences and their tokens
//	           ascending and the heads of a token ascending
//
// each sum starting from what is there.
type attentionGrad struct {
	attention
	dq, dk, dv, dout view
}

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
		n, grain := len(t.batches)*t.KVHeads, 1
		if q.Rows*longest*q.Cols <= attendAlone {
			grain = n
		}
		d.share(n, grain, t)
	}
	*t = attentionGrad{attention: attention{batches: t.batches[:0]}}
}

// plan makes a batch of each sequence and those that share its keys.
func (t *attentionGrad) plan() {
	for s := range t.sequences {
		if t.shared(s) == 0 {
			t.batches = append(t.batches, batch{seq: s})
		}
		t.batches[len(t.batches)-1].members++
	}
}

func (t *attentionGrad) span(lo, hi, worker int) {
	for i := lo; i < hi; i++ {
		b := t.batches[i/t.KVHeads]
		for s := range b.members {
			for token := 0; ; token += t.tokens {
				p := t.piece(b.seq+s, i%t.KVHeads, token)
				if p.rows == 0 {
					break
				}
				t.add(&p, worker)
			}
		}
	}
}

// space is the scratch of a run of tokens: q, dout, dq, p, ds, and what dots needs.
func (t *attentionGrad) space(rows, ss int) int {
	return rows*(2*ss+3*t.HeadDim) + panelLines(t.HeadDim)*lanes + 16*t.HeadDim
}

// add adds the gradients that come through the rows of p.
func (t *attentionGrad) add(p *piece, worker int) {
	hd, n := t.HeadDim, p.rows*t.HeadDim
	space := t.d.workspace(worker, t.space(p.rows, p.ss))
	q, space := space[:n], space[n:]
	dout, space := space[:n], space[n:]
	dq, space := space[:n], space[n:]
	prob, space := space[:p.rows*p.ss], space[p.rows*p.ss:]
	ds, space := space[:p.rows*p.ss], space[p.rows*p.ss:]
	p.gather(q, t.q)
	p.gather(dout, t.dout)
	p.gather(dq, t.dq)
	p.dots(prob, q, t.k, space)
	p.dots(ds, dout, t.v, space)
	for r := 0; r < p.rows; {
		token := r / t.group
		lse := t.lse.from(p.first+token, p.kv*t.group)
		for out := p.queries(t.out, token); len(out) > 0; out = out[hd:] {
			row := prob[r*p.ss:][:p.keys0+token]
			expScaled(row, row, nil, t.Scale, lse[r%t.group], 1)
			scoreGrad(ds[r*p.ss:][:len(row)], row, dot(dout[r*hd:][:hd], out[:hd]), t.Scale)
			r++
		}
	}
	p.blend(dq, ds, t.k)
	for r := 0; r < p.rows; r += t.group {
		copy(p.queries(t.dq, r/t.group), dq[r*hd:])
	}
	p.spread(t.dv, prob, dout)
	p.spread(t.dk, ds, q)
}

// spread adds to key row j of m row r of x times s[r][j], for the rows that see key j, in order.
func (p *piece) spread(m view, s, x []float32) {
	hd, g := p.HeadDim, p.group
	for j, n := 0, 0; j < p.last; j += n {
		row, have := p.run(j)
		n = min(tileRows, have)
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
