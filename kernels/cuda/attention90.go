package cuda

import k "github.com/r2-reasoner/r2/kernels"

// What attention90.cu has: rows of a block of threads, keys of a block, and stages of them in shared memory.
const (
	mostHeadDim90 = 128
	blockRows90   = 128
	blockKeys90   = 32
)

// names90attention are the kernels, by columns of a head and pieces.
var names90attention = map[[2]int]string{{64, 1}: "attention90_64_1", {64, 3}: "attention90_64_3",
	{128, 1}: "attention90_128_1", {128, 3}: "attention90_128_3"}

// space90 is the shared memory of a block with so many rows and stages: columns are padded, and a stage has
// 4 mbarriers and 4 words.
func space90(dim, pieces, rows, stages int) int {
	return 2*dim*pieces*(rows+2*blockKeys90*stages) + stages*(4+4)*8
}

// attention90 is Attention by the matrix units of compute capability 9.0. With parts it leaves segments there.
func (d *Device) attention90(out, lse, q, key, v k.Tensor, a k.Attn, parts uint64, segments int) {
	if d.naive {
		d.op(opAttention, "attention90_v1").out(out).out(lse).ints(d.pieces).in(q).in(key).in(v).attn(a, q.Rows, key.Rows).
			shared(space90(mostHeadDim90, d.pieces, blockRows90/2, 1)).
			run(cube(ceil(a.MaxQueries*a.Heads/a.KVHeads, blockRows90/2), a.KVHeads, a.Lengths.Rows), 128)
		return
	}
	dim, stages := 64, 4
	if a.HeadDim > dim {
		dim = mostHeadDim90
		if d.pieces == 3 {
			stages = 2
		}
	}
	d.op(opAttention, names90attention[[2]int{dim, d.pieces}]).out(out).out(lse).address(parts).ints(segments).
		in(q).in(key).in(v).attn(a, q.Rows, key.Rows).shared(space90(dim, d.pieces, blockRows90, stages)).
		run(cube(ceil(a.MaxQueries*a.Heads/a.KVHeads, blockRows90)*segments, a.KVHeads, a.Lengths.Rows), 384)
}
