package cuda

import k "github.com/r2-reasoner/r2/kernels"

// What lower.cu has: terms of a segment and rows of a block.
const (
	lowerSegment = 512
	lowerRows    = 64
	manyBlocks   = 264 // which fill a device without the segments of each beside each other
)

// A lowering says how a product is shared out: it changes no bit of it.
type lowering struct {
	wide int  // columns of a block: 32 or 64
	cut  bool // a block has a segment, and the segments' sums meet in scratch memory
}

// planLower: wide blocks bring the first factor fewer times, where there are enough of them.
func planLower(rows, cols, length int) lowering {
	p := lowering{wide: 32}
	if cols > 32 && rows > 8*lowerRows {
		p.wide = 64
	}
	p.cut = length > lowerSegment && ceil(rows, lowerRows)*ceil(cols, p.wide) < manyBlocks &&
		4*ceil(length, lowerSegment)*rows*ceil(cols, p.wide)*p.wide <= mostParts
	return p
}

// lower multiplies f32 operands of which the first has its rows along the common length, in segments of it.
func (d *Device) lower(c, a, b k.Tensor, g k.Gemm) {
	if d.naive {
		d.lowering("lower_v1", c, a, b, g).run(plane(ceil(c.Rows, 16), ceil(c.Cols, 8)), 32)
		return
	}
	d.lowerBy(planLower(c.Rows, c.Cols, a.Cols), c, a, b, g)
}

func (d *Device) lowerBy(p lowering, c, a, b k.Tensor, g k.Gemm) {
	names := [...]string{"lower_32", "lower_64"}
	if !g.TransB {
		names = [...]string{"lower_across_32", "lower_across_64"}
	}
	high, across := ceil(c.Rows, lowerRows), ceil(c.Cols, p.wide)
	if !p.cut {
		d.lowering(names[p.wide/64], c, a, b, g).address(0).run(plane(high, across), 128)
		return
	}
	segments := ceil(a.Cols, lowerSegment)
	parts := d.space(4 * segments * c.Rows * across * p.wide)
	d.lowering(names[p.wide/64], c, a, b, g).address(parts).run(cube(high, across, segments), 128)
	d.op(opMatMul, "lower_join").out(c).ints(c.Rows, c.Cols).address(parts).ints(across*p.wide, segments).float(g.Alpha).row(g.Bias).
		run(line(ceil(c.Rows*c.Cols, 256)), 256)
}

// lowering puts what all versions take.
func (d *Device) lowering(name string, c, a, b k.Tensor, g k.Gemm) *call {
	bk, bn := b.Stride, 1
	if g.TransB {
		bk, bn = 1, b.Stride
	}
	return d.op(opMatMul, name).out(c).in(a).start(b).ints(bk, bn, c.Rows, c.Cols, a.Cols).float(g.Alpha).row(g.Bias)
}
