package cuda

import k "github.com/r2-reasoner/r2/kernels"

// What head90.cu has besides linear90's boxes: the stages' room, and a board of what is known of each token.
const (
	headRing   = 192 << 10
	boardBytes = 4 * (3*8 + 5) // of a token
	headThread = 384
)

// heads90 reports whether log-probabilities through w are head90's work.
func (d *Device) heads90(w k.Weight) bool {
	return d.hopper && !d.naive && w.Type == k.BF16 && w.Cols > 0
}

// headNames are the names of both kernels, by pieces, for up to 8 tokens a tile and for 128.
var headNames = map[int][2][2]string{
	1: {{"head90_8_1", "head90_grad_8_1"}, {"head90_128_1", "head90_grad_128_1"}},
	3: {{"head90_8_3", "head90_grad_8_3"}, {"head90_128_3", "head90_grad_128_3"}},
}

// A head90 is what both of its kernels take: the tokens of a tile, and the tilings of the weight and of the packed tokens.
type head90 struct {
	names        [2]string
	tokens, wide int
	w, x         tiling
	shared       int
}

// headOf packs x and says how it meets w, for an operation.
func (d *Device) headOf(op opcode, x k.Tensor, w k.Weight) head90 {
	h := head90{tokens: 8, wide: ceil(w.Cols, tileCols), names: headNames[d.pieces][0]}
	if x.Rows > 8 {
		h.tokens, h.names = 128, headNames[d.pieces][1]
	}
	packed := d.pack(op, x, 2)
	var at uint64
	if d.err == nil {
		at = d.memoryOf(op.String(), ofWeight(w)).at
	}
	stage := stepTiles * tileBytes * (boxOutputs + h.tokens*d.pieces) / tileRows
	h.w = tiling{at: at, bytes: tileBytes, wide: h.wide, high: ceil(w.Rows, 32) * 4, boxWide: stepTiles, boxHigh: boxOutputs / tileRows}
	h.x = tiling{at: packed, bytes: tileBytes, wide: h.wide * d.pieces, high: ceil(x.Rows, tileRows), boxWide: stepTiles * d.pieces, boxHigh: h.tokens / tileRows}
	h.shared = min(headRing/stage, mostStages)*(stage+stageSigns) + boardBytes*h.tokens
	return h
}

// rows puts the distributions of x's rows over the ids of w.
func (c *call) rows(x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist) *call {
	return c.in(ids).in(dist.Temperature).in(dist.Mask).ints(x.Rows, w.Rows)
}

// score90 sets parts and got as score_parts does.
func (d *Device) score90(parts, got uint64, x k.Tensor, w k.Weight, ids k.Tensor, dist k.Dist) {
	h := d.headOf(opScore, x, w)
	d.op(opScore, h.names[0]).address(parts).address(got).rows(x, w, ids, dist).tiles(h.w).tiles(h.x).ints(h.wide).
		shared(h.shared).run(plane(ceil(x.Rows, h.tokens), ceil(w.Rows, idBlock)), headThread)
}

// grad90 gives the gradient by the logits of up to scoreIDs ids from first on.
func (d *Device) grad90(x k.Tensor, w k.Weight, first int, lse, ids, coef k.Tensor, dist k.Dist) k.Tensor {
	n := min(scoreIDs, w.Rows-first)
	if first == 0 {
		d.op(opScoreGrad, "head90_check").rows(x, w, ids, dist).run(line(ceil(x.Rows, 128)), 128)
	}
	h := d.headOf(opScoreGrad, x, w)
	out := k.Tensor{Buf: &d.scores, Rows: x.Rows, Cols: n, Stride: n, Type: k.F32}
	d.op(opScoreGrad, h.names[1]).out(out).in(lse).in(coef).rows(x, w, ids, dist).tiles(h.w).tiles(h.x).
		ints(h.wide, first, n).shared(h.shared).run(plane(ceil(x.Rows, h.tokens), ceil(n, idBlock)), headThread)
	return out
}
