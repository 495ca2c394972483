package cuda

import (
	"strconv"

	k "github.com/r2-reasoner/r2/kernels"
)

// What attentiongrad90.cu has: what a stage says of its rows in shared memory, beside two operands of blockKeys90 rows.
const noteBytes90 = 16 + 2*4*8 + blockKeys90*16 + 16

// A gradKernel90 is the kernels for heads of so many columns and activations of so many pieces: their names, and the rows of a block of
// threads and its stages.
type gradKernel90 struct {
	byQ, byKV    string
	rows, stages int
}

var gradKernels90 = func() map[[2]int]gradKernel90 {
	all := map[[2]int]gradKernel90{}
	for _, dim := range []int{64, mostHeadDim90} {
		for _, pieces := range []int{1, 3} {
			name := strconv.Itoa(dim) + "_" + strconv.Itoa(pieces)
			of := gradKernel90{"attention_grad90_q_" + name, "attention_grad90_kv_" + name, 128, 4}
			if pieces == 3 {
				of.rows = 64
			}
			if dim*pieces == 3*mostHeadDim90 {
				of.stages = 2
			}
			all[[2]int{dim, pieces}] = of
		}
	}
	return all
}()

// attentionGrad90 is what follows delta in AttentionGrad, by the matrix units of compute capability 9.0. Scratch memory holds delta, then the parts of dk
// and dv that query heads have.
func (d *Device) attentionGrad90(dq, dk, dv, dout, lse, q, key, v k.Tensor, a k.Attn, delta, parts uint64) {
	dim := columns90(a.HeadDim)
	of := gradKernels90[[2]int{dim, d.pieces}]
	group, sequences := a.Heads/a.KVHeads, a.Lengths.Rows
	space := 2*dim*d.pieces*2*(of.rows+blockKeys90*of.stages) + of.stages*noteBytes90
	d.op(opAttentionGrad, of.byQ).out(dq).address(delta).in(dout).in(lse).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
		shared(space).run(cube(ceil(a.MaxQueries*group, of.rows), a.KVHeads, sequences), 384)
	d.op(opAttentionGrad, of.byKV).address(parts).address(delta).in(dout).in(lse).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
		shared(space).run(cube(ceil(a.MaxQueries, of.rows)*group, a.KVHeads, sequences), 384)
	d.op(opAttentionGrad, "attention_grad90_join").out(dk).out(dv).address(parts).ints(dim).attn(a, q.Rows, key.Rows).
		run(plane(a.MaxQueries*a.KVHeads, sequences), 128)
}

// columns90 is the columns of the kernels for heads of so many.
func columns90(dim int) int {
	if dim > 64 {
		return mostHeadDim90
	}
	return 64
}

// partBytes90 is what attentionGrad90's parts take.
func partBytes90(rows int, a k.Attn) int { return 4 * rows * a.Heads * 2 * columns90(a.HeadDim) }
