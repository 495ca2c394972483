package cuda

import k "github.com/r2-reasoner/r2/kernels"

// rowsAndColumns is the launch of a kernel whose threads have a column each and walk down the rows.
func rowsAndColumns(rows, cols int) grid {
	return plane(ceil(cols, 256), min(rows, mostBlocks))
}

// flat makes one long row of operands that lie end to end, so that short rows waste no threads.
func flat(ts ...*k.Tensor) (rows, cols int) {
	rows, cols = ts[0].Rows, ts[0].Cols
	for _, t := range ts {
		if t.Stride != t.Cols || rows*cols > mostFlat {
			return rows, cols
		}
	}
	for _, t := range ts {
		t.Rows, t.Cols, t.Stride = 1, rows*cols, rows*cols
	}
	return 1, rows * cols
}

func (d *Device) Embed(out k.Tensor, table k.Weight, ids k.Tensor) {
	need(out.Type == k.F32 && out.Cols == table.Cols && column(ids, k.I32, out.Rows), "Embed", out, ofWeight(table), ids)
	kernel := "embed_f32"
	switch {
	case table.Type == k.BF16:
		kernel = "embed_bf16"
	case table.Type.Blocks():
		kernel = "embed_quant"
	}
	d.op(opEmbed, kernel).out(out).weight(table).ints(table.Rows).in(ids).ints(out.Rows, out.Cols).
		run(rowsAndColumns(out.Rows, out.Cols), 256)
}

func (d *Device) Gather(out, x, rows k.Tensor) {
	need(out.Type == x.Type && out.Cols == x.Cols && column(rows, k.I32, out.Rows), "Gather", out, x, rows)
	d.op(opGather, "gather").out(out).in(x).ints(x.Rows).in(rows).ints(out.Rows, out.Cols).
		run(rowsAndColumns(out.Rows, out.Cols), 256)
}

func (d *Device) Scatter(out, x, rows k.Tensor) {
	need(out.Type == x.Type && out.Cols == x.Cols && column(rows, k.I32, x.Rows), "Scatter", out, x, rows)
	d.op(opScatter, "scatter").out(out).ints(out.Rows).in(x).in(rows).ints(x.Rows, x.Cols).
		run(rowsAndColumns(x.Rows, x.Cols), 256)
}

// longRun is the columns from which a run is a block's work and not a warp's.
const longRun = 1024

func (d *Device) RMSNorm(out, x, w k.Tensor, eps float32) {
	need(like(out, x) && norms(x, w), "RMSNorm", out, x, w)
	runs := x.Cols / w.Cols
	kernel, g := "rmsnorm_v1", line(ceil(x.Rows*runs, 8))
	if w.Cols >= longRun {
		kernel, g = "rmsnorm", line(x.Rows*runs)
	}
	d.op(opRMSNorm, kernel).out(out).in(x).row(w).ints(x.Rows, runs, w.Cols).float(eps).run(g, 256)
}

func (d *Device) RoPE(x, pos k.Tensor, r k.Rotary) {
	need(like(x) && column(pos, k.I32, x.Rows) && r.HeadDim > 0 && r.HeadDim%2 == 0 && x.Cols%r.HeadDim == 0 &&
		r.Table.Type == k.F32 && r.Table.Cols == r.HeadDim, "RoPE", x, pos, r.Table)
	sign := float32(1)
	if r.Inverse {
		sign = -1
	}
	d.op(opRoPE, "rope").out(x).in(pos).in(r.Table).ints(r.Table.Rows, x.Rows, x.Cols/r.HeadDim, r.HeadDim/2).float(sign).
		run(rowsAndColumns(x.Rows, x.Cols/2), 256)
}

func (d *Device) SwiGLU(out, gate, up k.Tensor) {
	need(like(out, gate, up), "SwiGLU", out, gate, up)
	rows, cols := flat(&out, &gate, &up)
	d.op(opSwiGLU, "swiglu").out(out).in(gate).in(up).ints(rows, cols).run(rowsAndColumns(rows, cols), 256)
}

func (d *Device) Add(out, a, b k.Tensor) {
	need(like(out, a, b), "Add", out, a, b)
	rows, cols := flat(&out, &a, &b)
	d.op(opAdd, "add").out(out).in(a).in(b).ints(rows, cols).run(rowsAndColumns(rows, cols), 256)
}

// idBlock is how many ids are summed before the sums are added: IDS of logits.cu.
const idBlock = 1024

// warps is how many share a row of logits: the sums do not depend on it.
func warps(vocab int) int { return min(16, ceil(vocab, idBlock)) }

func (d *Device) LogProb(lp, lse, logits, ids k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lp, lse) && column(ids, k.I32, logits.Rows),
		"LogProb", lp, lse, logits, ids, dist.Temperature, dist.Mask)
	d.op(opLogProb, "logprob").out(lp).out(lse).in(logits).in(ids).in(dist.Temperature).in(dist.Mask).ints(logits.Cols).
		shared(16*ceil(logits.Cols, idBlock)).run(line(logits.Rows), 32*warps(logits.Cols))
}

func (d *Device) Entropy(h, logits, lse k.Tensor, dist k.Dist) {
	need(scores(logits, dist, h, lse), "Entropy", h, logits, lse, dist.Temperature, dist.Mask)
	d.op(opEntropy, "entropy").out(h).in(logits).in(lse).in(dist.Temperature).in(dist.Mask).ints(logits.Cols).
		run(line(logits.Rows), 256)
}

func (d *Device) Sample(ids, lp, logits, uniform k.Tensor, dist k.Dist) {
	need(scores(logits, dist, lp, uniform) && column(ids, k.I32, logits.Rows),
		"Sample", ids, lp, logits, uniform, dist.Temperature, dist.Mask)
	d.op(opSample, "sample").out(ids).out(lp).in(logits).in(uniform).in(dist.Temperature).in(dist.Mask).ints(logits.Cols).
		shared(16*ceil(logits.Cols, idBlock)).run(line(logits.Rows), 32*warps(logits.Cols))
}
