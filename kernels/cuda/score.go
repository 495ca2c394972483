package cuda

import k "github.com/r2-reasoner/r2/kernels"

// scoreIDs is how many ids' logits are in memory at a time, of up to mostPacked rows; a multiple of idBlock. It is a
// constant: ScoreGrad's sum over the ids is cut there.
const scoreIDs = 4096

// partBytes is what score.cu keeps of a row's block of ids.
const partBytes = 16

func (d *Device) Score(lp, lse, h, x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist) {
	need(heads(x, w, ids, dist, lp, lse) && (h.Zero() || column(h, k.F32, x.Rows)), "Score", lp, lse, h, x, ofWeight(w), ids, dist.Temperature, dist.Mask)
	for i := 0; i < x.Rows && d.err == nil; i += mostPacked {
		n := min(mostPacked, x.Rows-i)
		d.score(lp.Slice(i, n), lse.Slice(i, n), some(h, i, n), x.Slice(i, n), w, ids.Slice(i, n), someOf(dist, i, n))
	}
}

// score does so for rows that are packed together.
func (d *Device) score(lp, lse, h, x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist) {
	rows, vocab := x.Rows, w.Rows
	blocks := ceil(vocab, idBlock)
	size := partBytes * rows * blocks
	bytes := size + 4*rows
	if !d.heads90(w) {
		bytes += 4 * rows * min(scoreIDs, vocab)
	}
	parts := d.grow(&d.scores, bytes)
	got := parts + uint64(size)
	if d.heads90(w) {
		d.score90(parts, got, x, w, ids, dist)
	} else {
		for first := 0; first < vocab && d.err == nil; first += scoreIDs {
			logits := d.logits(x, w, first, size/4+rows)
			d.op(opScore, "score_parts").address(parts).address(got).in(logits).in(ids).in(dist.Temperature).in(dist.Mask).
				ints(logits.Cols, first, vocab).run(plane(ceil(logits.Cols, 8*idBlock), rows), 256)
		}
	}
	d.op(opScore, "score_join").out(lp).out(lse).out(h).address(parts).address(got).in(ids).in(dist.Temperature).in(dist.Mask).ints(vocab).
		shared(16*blocks).run(line(rows), 128)
}

func (d *Device) ScoreGrad(dx, x k.Tensor, w k.Weight, lse, ids, coef k.Tensor, dist k.Dist) {
	need(heads(x, w, ids, dist, lse, coef) && like(x, dx), "ScoreGrad", dx, x, ofWeight(w), lse, ids, coef, dist.Temperature, dist.Mask)
	for i := 0; i < x.Rows; i += mostPacked {
		n := min(mostPacked, x.Rows-i)
		d.grow(&d.scores, 4*n*min(scoreIDs, w.Rows))
		for first := 0; first < w.Rows && d.err == nil; first += scoreIDs {
			grad := d.gradPart(x.Slice(i, n), w, first, lse.Slice(i, n), ids.Slice(i, n), coef.Slice(i, n), someOf(dist, i, n))
			d.LinearGrad(dx.Slice(i, n), grad, d.rowsFrom(w, first, grad.Cols))
		}
	}
}

// gradPart is the gradient by the logits of up to scoreIDs ids from first on, in d.scores.
func (d *Device) gradPart(x k.Tensor, w k.Weight, first int, lse, ids, coef k.Tensor, dist k.Dist) k.Tensor {
	if d.heads90(w) {
		return d.grad90(x, w, first, lse, ids, coef, dist)
	}
	logits := d.logits(x, w, first, 0)
	d.op(opScoreGrad, "logprob_grad").out(logits).in(logits).in(lse).in(ids).in(coef).in(dist.Temperature).in(dist.Mask).
		ints(x.Rows, logits.Cols, first, w.Rows).run(rowsAndColumns(x.Rows, logits.Cols), 256)
	return logits
}

// logits are those of up to scoreIDs ids from first on, in d.scores from its element `at` on.
func (d *Device) logits(x k.Tensor, w k.Weight, first, at int) k.Tensor {
	n := min(scoreIDs, w.Rows-first)
	t := k.Tensor{Buf: &d.scores, Off: at, Rows: x.Rows, Cols: n, Stride: n, Type: k.F32}
	d.Linear(t, x, d.rowsFrom(w, first, n), k.Tensor{})
	return t
}

// rowsFrom is n rows of a weight from first on, a multiple of 32. It holds until the next call.
func (d *Device) rowsFrom(w k.Weight, first, n int) k.Weight {
	before := 4 * first * w.Cols
	switch {
	case w.Type == k.BF16:
		before = first / tileRows * ceil(w.Cols, tileCols) * tileBytes
	case w.Type.Blocks():
		before = first / tileRows * ceil(w.Cols, tileCols) * quantBytes
	}
	if d.err == nil {
		m := d.memoryOf("Score", ofWeight(w))
		d.part = memory{m.at + uint64(before), m.bytes - before}
	}
	w.Buf, w.Rows = &d.part, n
	return w
}

// heads reports whether x goes through w to ids of dist.
func heads(x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist, columns ...k.Tensor) bool {
	logits := k.Tensor{Buf: x.Buf, Rows: x.Rows, Cols: w.Rows, Type: k.F32}
	return x.Type == k.F32 && x.Cols == w.Cols && column(ids, k.I32, x.Rows) && scores(logits, dist, columns...)
}

// some is n rows of t from i on, or none of a tensor that is absent.
func some(t k.Tensor, i, n int) k.Tensor {
	if t.Zero() {
		return t
	}
	return t.Slice(i, n)
}

func someOf(d k.Dist, i, n int) k.Dist {
	return k.Dist{Temperature: some(d.Temperature, i, n), Mask: some(d.Mask, i, n)}
}
