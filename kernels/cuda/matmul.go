package cuda

import k "github.com/r2-reasoner/r2/kernels"

// A chain is a kernel of matmul.cu: a block's rows and columns, and a thread's.
type chain struct {
	name       string
	rows, cols int
	down, wide int
}

var chains = [...]chain{
	{"matmul_64_128", 64, 128, 8, 8}, {"matmul_32_128", 32, 128, 8, 4}, {"matmul_128_32", 128, 32, 4, 8},
	{"matmul_64_64", 64, 64, 4, 4}, {"matmul_32_32", 32, 32, 4, 4}, {"matmul_16_16", 16, 16, 2, 2},
}

// chainOf chooses the kernel whose time, as predicted, is the least. Of each term of the common length a multiprocessor reads
// a thread's numbers from shared memory, a warp's at a time, and has four warps' instructions in the same time; and it
// brings 23 bytes of a block's factors from the L2 cache. (Rates of an H100's datasheet; no GPU was at hand. 132 multiprocessors.)
func chainOf(rows, cols int) (best chain) {
	least := 0.0
	for _, c := range chains {
		blocks := ceil(rows, c.rows) * ceil(cols, c.cols)
		warps := c.rows * c.cols / (c.down * c.wide * 32)
		numbers := float64(c.down + c.wide)
		issued := (float64(c.down*c.wide) + numbers/4 + 2) / float64(min(4, warps*ceil(blocks, 132)))
		time := max(1, float64(blocks)/132) * max(float64(warps)*max(numbers, issued), float64(4*(c.rows+c.cols))/23)
		if least == 0 || time < least {
			best, least = c, time
		}
	}
	return best
}

// product multiplies f32 operands, each element a chain in the order of the common length.
func (d *Device) product(op opcode, c, a, b k.Tensor, g k.Gemm) {
	if d.naive {
		d.chain(op, chain{"matmul_v1", 16, 16, 1, 1}, c, a, b, g)
		return
	}
	d.chain(op, chainOf(c.Rows, c.Cols), c, a, b, g)
}

func (d *Device) chain(op opcode, by chain, c, a, b k.Tensor, g k.Gemm) {
	am, ak, bk, bn, length := a.Stride, 1, b.Stride, 1, a.Cols
	if g.TransA {
		am, ak, length = 1, a.Stride, a.Rows
	}
	if g.TransB {
		bk, bn = 1, b.Stride
	}
	accumulate := 0
	if g.Accumulate {
		accumulate = 1
	}
	d.op(op, by.name).out(c).start(a).ints(am, ak).start(b).ints(bk, bn, c.Rows, c.Cols, length).float(g.Alpha).row(g.Bias).
		ints(accumulate).run(plane(ceil(c.Cols, by.cols), ceil(c.Rows, by.rows)), by.rows*by.cols/(by.down*by.wide))
}
