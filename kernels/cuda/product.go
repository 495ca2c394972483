package cuda

import k "github.com/r2-reasoner/r2/kernels"

// Tiles of bf16 weights and of tokens: see linear.cu.
const (
	tileBytes  = 512 // 8 rows × 32 columns
	tileCols   = 32
	tileRows   = 8
	manyStages = 3
	mostPacked = 2048 // tokens that are packed at a time where each is three pieces; a multiple of 128
)

// stageBytes is the shared memory of a 128 × 128 tile.
func stageBytes(pieces int) int { return manyStages * 16 * (1 + pieces) * tileBytes }

func (d *Device) Linear(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	need(out.Type == k.F32 && x.Type == k.F32 && out.Rows == x.Rows && out.Cols == w.Rows && x.Cols == w.Cols &&
		rowOrNone(bias, w.Rows), "Linear", out, x, ofWeight(w), bias)
	if w.Type != k.BF16 && !w.Type.Blocks() {
		d.product(opLinear, out, x, d.rowsOf(w), k.Gemm{TransB: true, Alpha: 1, Bias: bias})
		return
	}
	for i, most := 0, d.rowsPacked(x.Rows); i < x.Rows; i += most {
		n := min(most, x.Rows-i)
		switch {
		case w.Type.Blocks():
			d.quantProduct(out.Slice(i, n), x.Slice(i, n), w, bias)
		case d.hopper:
			d.linear90(out.Slice(i, n), x.Slice(i, n), w, bias)
		default:
			d.linear(out.Slice(i, n), x.Slice(i, n), w, bias)
		}
	}
}

// mostRows is how many rows are packed at a time: as many bytes, whatever the pieces.
func (d *Device) mostRows() int { return mostPacked * 3 / d.pieces }

// rowsPacked is how many of a product's rows are packed at a time, about as many each time: whole tiles of 128.
func (d *Device) rowsPacked(rows int) int {
	times := max(ceil(rows, d.mostRows()), 1)
	return ceil(ceil(rows, times), 128) * 128
}

func (d *Device) linear(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	packed := d.pack(opLinear, x, 0)
	kernel, g, threads, shared := "linear_v1", plane(ceil(w.Rows, 16), ceil(x.Rows, tileRows)), 32, 0
	switch {
	case d.naive:
	case x.Rows <= 8:
		kernel, g.Y, threads = "linear_few8", 1, 256
	case x.Rows <= 16:
		kernel, g.Y, threads = "linear_few16", 1, 256
	case x.Rows <= 32:
		kernel, g.Y, threads = "linear_few32", 1, 256
	default:
		kernel, g, threads, shared = "linear_many", plane(ceil(w.Rows, 128), ceil(x.Rows, 128)), 256, stageBytes(d.pieces)
	}
	d.op(opLinear, kernel).out(out).weight(w).address(packed).row(bias).ints(x.Rows, w.Rows, ceil(w.Cols, tileCols), d.pieces).
		shared(shared).run(g, threads)
}

// pack brings x into tiles of bf16, in scratch memory.
func (d *Device) pack(op opcode, x k.Tensor, order int) uint64 {
	wide, high := ceil(x.Cols, tileCols), ceil(x.Rows, tileRows)
	packed := d.space(high * wide * d.pieces * tileBytes)
	d.op(op, "pack_tokens").address(packed).in(x).ints(x.Rows, x.Cols, d.pieces, order).
		run(plane(ceil(8*wide, 256), high*tileRows), 256)
	return packed
}

func (d *Device) LinearGrad(dx, dout k.Tensor, w k.Weight) {
	need(like(dx) && like(dout) && dx.Rows == dout.Rows && dout.Cols == w.Rows && dx.Cols == w.Cols,
		"LinearGrad", dx, dout, ofWeight(w))
	if w.Type.Blocks() {
		d.quantGrad(dx, dout, w)
		return
	}
	if w.Type != k.BF16 {
		d.product(opLinearGrad, dx, dout, d.rowsOf(w), k.Gemm{Accumulate: true, Alpha: 1})
		return
	}
	for i := 0; i < dx.Rows; i += mostPacked {
		n := min(mostPacked, dx.Rows-i)
		dx, dout := dx.Slice(i, n), dout.Slice(i, n)
		if d.hopper {
			d.gradient90(dx, dout, w)
			continue
		}
		packed := d.pack(opLinearGrad, dout, 1)
		kernel, g, threads, shared := "linear_grad", plane(ceil(w.Cols, 128), ceil(n, 128)), 256, stageBytes(d.pieces)
		if d.naive {
			kernel, g, threads, shared = "linear_grad_v1", plane(ceil(w.Cols, tileCols), ceil(n, tileRows)), 32, 0
		}
		d.op(opLinearGrad, kernel).out(dx).weight(w).address(packed).ints(n, w.Cols, w.Rows, d.pieces).
			shared(shared).run(g, threads)
	}
}

func (d *Device) MatMul(c, a, b k.Tensor, g k.Gemm) {
	m, n := a.Rows, a.Cols
	if g.TransA {
		m, n = n, m
	}
	p, q := b.Rows, b.Cols
	if g.TransB {
		p, q = q, p
	}
	need(like(c) && like(a) && like(b) && c.Rows == m && c.Cols == q && n == p && rowOrNone(g.Bias, q),
		"MatMul", c, a, b, g.Bias)
	if g.Accumulate && (g.Alpha != 1 || !g.Bias.Zero()) {
		panic("cuda: MatMul: Accumulate needs an Alpha of 1 and no Bias")
	}
	if !g.TransA && !g.Accumulate {
		d.lower(c, a, b, g)
		return
	}
	d.product(opMatMul, c, a, b, g)
}
