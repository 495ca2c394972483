package cuda

import k "github.com/r2-reasoner/r2/kernels"

// Weights in blocks of 32 integers: see ptx/quant.h.
const (
	quantBytes   = 272 // of a tile of 8 outputs × 32 terms
	quantSegment = 16  // tiles
)

// quantSize is the bytes of a weight in blocks.
func quantSize(rows, cols int) int {
	return ceil(rows, 2*tileRows) * 2 * (cols / tileCols) * quantBytes
}

// quantProduct is Linear with a weight in blocks, of rows that are packed together.
func (d *Device) quantProduct(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	if d.hopper {
		d.quant90(out, x, w, bias)
		return
	}
	wide := w.Cols / tileCols
	packed, scales, pieces := d.packFor(x, w, 1)
	kernel, tokens, threads := "quant_few32", 32, 256
	switch {
	case d.naive:
		kernel, tokens, threads = "quant_v1", tileRows, 32
	case x.Rows <= 8:
		kernel, tokens = "quant_few8", 8
	case x.Rows <= 16:
		kernel, tokens = "quant_few16", 16
	}
	d.op(opLinear, kernel).out(out).weight(w).address(packed).address(scales).row(bias).ints(x.Rows, w.Rows, wide, pieces).
		run(plane(ceil(w.Rows, 16), ceil(x.Rows, tokens)), threads)
}

// tokenBytes are what packFor takes for the scales of a tile of tokens that are integers.
const tokenBytes = 4 * tileRows

// packedSize is the bytes of what packFor makes.
func (d *Device) packedSize(rows int, w k.Weight) int {
	tiles := ceil(rows, tileRows) * (w.Cols / tileCols)
	if w.Acts == k.I8 {
		return tiles * (tileBytes + tokenBytes)
	}
	return tiles * d.pieces * tileBytes
}

// packFor brings x into tiles of bf16 numbers, in scratch memory, as w takes it: in pieces, or as integers with their scales, which
// are at 0 otherwise.
func (d *Device) packFor(x k.Tensor, w k.Weight, order int) (packed, scales uint64, pieces int) {
	if w.Acts != k.I8 {
		return d.pack(opLinear, x, order), 0, d.pieces
	}
	wide, high := w.Cols/tileCols, ceil(x.Rows, tileRows)
	packed = d.space(d.packedSize(x.Rows, w))
	scales = packed + uint64(high*wide*tileBytes)
	d.op(opLinear, "pack_ints").address(packed).address(scales).in(x).ints(x.Rows, wide, order).
		run(plane(ceil(8*wide, 256), high*tileRows), 256)
	return packed, scales, 1
}

// unpackRows is how many outputs of a weight in blocks are bf16 numbers at a time, in scratch memory; a multiple of 32. It is
// a constant: LinearGrad's sum over the outputs is cut there.
const unpackRows = 4096

// quantPieces are the bf16 numbers that add up to an integer of eight bits times a scale of eleven.
const quantPieces = 3

// quantGrad is LinearGrad with a weight in blocks: with bf16 weights that add up to it, one after another.
func (d *Device) quantGrad(dx, dout k.Tensor, w k.Weight) {
	wide := w.Cols / tileCols
	for first := 0; first < w.Rows; first += unpackRows {
		n := min(unpackRows, w.Rows-first)
		part := k.Weight{Buf: &d.unpacked, Rows: n, Cols: w.Cols, Format: k.Format{Type: k.BF16}}
		for piece := range quantPieces {
			at := d.grow(&d.unpacked, ceil(n, 32)*32*wide*tileCols*2)
			d.op(opLinearGrad, "unpack_quant").address(at).weight(w).ints(first, ceil(n, 32)*32, w.Rows, w.Cols, piece).
				run(plane(ceil(w.Cols, 256), ceil(n, 32)*32), 256)
			d.LinearGrad(dx, dout.Columns(first, n), part)
		}
	}
}
