package cuda

import (
	"fmt"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

// A lane's bytes as numbers: what the low seven bits stand on, and what is taken off.
const widened = `or\.b32(\s+%r\d+, %r\d+, )-1023360256;`

var quantMutations = []mutation{
	{"the sign is one bit further down", "quant90_8_3", `and\.b32(\s+%r\d+, %r\d+, )8388736;`, 0, "and.b32${1}4194368;", playQuant, otherAnswer},
	{"numbers are one too large", "quant90_8_3", widened, 3, "or.b32${1}-1023425792;", playQuant, otherAnswer},
	{"the bytes between are left out", "quant90_8_3", `shr\.u32(\s+%r\d+, %r\d+, )8;`, 1, "shr.u32${1}0;", playQuant, otherAnswer},
	{"the second eight outputs have the first ones' scales", "quant90_8_3", `ld\.shared\.u16(\s+%rs\d+, \[%rd\d+)\+544\];`, 0, "ld.shared.u16${1}];", playQuant, otherAnswer},
	{"the second block has the first one's scales", "quant90_8_3", `ld\.shared\.u16(\s+%rs\d+, \[%rd\d+)\+272\];`, 0, "ld.shared.u16${1}];", playQuant, otherAnswer},
	{"a block's sum begins with what was there", "quant90_8_3", `(wgmma\.mma_async[^;]*), 0, 1, 1, 0;`, 1, "${1}, 1, 1, 1, 0;", playQuant, otherAnswer},
	{"a block's second terms are the first ones'", "quant90_8_3", `(add\.s64\s+%rd\d+, %rd\d+, )8736;`, 0, "${1}8704;", playQuant, otherAnswer},
	{"pieces are added in another order", "quant90_8_3", `add\.rn\.f32(\s+%f\d+), (%f\d+), (%f\d+);(\s+)add\.rn\.f32(\s+%f\d+), (%f\d+), (%f\d+);`, 0,
		"add.rn.f32${1}, ${2}, ${7};${4}add.rn.f32${5}, ${6}, ${3};", playQuant, otherAnswer},
	{"no fence of registers", "quant90_8_3", `wgmma\.fence\.sync\.aligned;`, 0, "", playQuant, "wgmma.fence is missing"},
	{"products are not waited for", "quant90_32_3", waitAll, 0, "wgmma.wait_group.sync.aligned 1;", playQuant32, otherAnswer},
	{"lanes have not read when a stage is given back", "quant90_8_3", `bar\.warp\.sync\s+-1;`, 0, "", playQuant, race},
	{"stages are not given back", "quant90_8_3", arrive, 0, "", playQuant, stuck},
	{"no wait for an empty stage", "quant90_8_3", done, 1, noWait, playQuant, onItsWay},
	{"no wait for a full stage", "quant90_8_3", done, 2, noWait, playQuant, onItsWay},
	{"one box of tokens is not expected", "quant90_8_3", `mov\.u32(\s+%r\d+, )11776;`, 0, "mov.u32${1}10240;", playQuant, onItsWay},
	{"the tokens' second box is the first", "quant90_8_3", `add\.s32(\s+%r\d+, %r\d+, )3;`, 0, "add.s32${1}0;", playQuant, otherAnswer},
	{"no barrier before a part is counted", "quant90_8_3", barrierOf, 0, "", playQuantParts, race},
	{"a segment's sums are not left", "quant90_8_3", `st\.global\.v4\.f32[^;]*;`, 0, "", playQuantParts, otherAnswer},
	{"tokens of the second block have the first one's scales", "quant90_8_int", `(ld\.shared\.v2\.f32[^;]*\+)9760\];`, 0, "${1}9728];", playInts, otherAnswer},
	{"tokens' scales are not expected", "quant90_8_int", `mov\.u32(\s+%r\d+, )9792;`, 0, "mov.u32${1}9728;", playInts, onItsWay},
	{"tokens' scales are another step's", "quant90_8_int", `(cp\.async\.bulk\.tensor\.3d[^{]*\{(%r\d+), )%r\d+,`, 2, "${1}${2},", playInts, otherAnswer},
	{"one token's scale is the other's", "quant90_8_int", `(mul\.rn\.f32\s+%f\d+, %f\d+, )(%f\d+);(\s+[^;]*;\s+mul\.rn\.f32\s+%f\d+, %f\d+, )%f\d+;`, 0, "${1}${2};${3}${2};", playInts, otherAnswer},
	{"half a block's largest", "pack_ints", `mov\.u32(\s+%r\d+, )4;`, 0, "mov.u32${1}2;", playInts, otherAnswer},
	{"integers are cut off", "pack_ints", `cvt\.rni\.f32\.f32`, 0, "cvt.rzi.f32.f32", playInts, otherAnswer},
	{"a scale is a 128th", "pack_ints", `0f42FE0000`, 0, "0f43000000", playInts, otherAnswer},
	{"no barrier before tiles are overwritten", "quant90_v1", barrier, 5, "", playQuant, race},
}

// Each bug planted in the product with a weight in blocks is caught.
func TestQuantMutations(t *testing.T) { plantAll(t, 90, quantMutations) }

// The kernels of sm_80 have their part for integers first, then that for one piece, then that for three.
var quant80Mutations = []mutation{
	{"the second eight outputs have the first ones' scales", "quant_few8", `cvt\.f32\.f16 (%f\d+), %rs4;`, 0, "cvt.f32.f16 ${1}, %rs3;", playQuant80, otherAnswer},
	{"no barrier before segments are added", "quant_few8", barrier, 4, "", playQuant80, race},
	{"no barrier before the next segments", "quant_few8", barrier, 5, "", playQuant80, race},
	{"two registers of a fragment exchanged", "quant_few8", `(mma\.sync\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+),`, 8, "${1}{${3},${2},", playQuant80, otherAnswer},
	{"an output too many", "quant_few8", `setp\.ge\.s32`, 11, "setp.gt.s32", playQuant80, race},
	{"a piece of other tokens", "quant_few8", `ld\.global\.v4\.u32(\s+\{[^}]*\}, \[%rd\d+)\+512\];`, 1, "ld.global.v4.u32${1}];", playQuant80, otherAnswer},
	{"a block further on", "quant_v1", `mul\.wide\.s32(\s+%rd\d+, %r\d+, )272;`, 4, "mul.wide.s32${1}256;", playQuant80, otherAnswer},
	{"the scale is the first two integers", "pack_quant", `ld\.global\.u16(\s+%rs1, \[%rd\d+)\];`, 0, "ld.global.u16${1}+2];", playTable, otherAnswer},
	{"a term in another place", "pack_quant", `st\.global\.u8(\s+\[%rd\d+)\+4\]`, 0, "st.global.u8${1}+5]", playTable, otherAnswer},
	{"an id at the table's end is taken", "embed_quant", `setp\.ge\.s32(\s+%p6)`, 0, "setp.gt.s32${1}", playTable, otherAnswer},
	{"integers without their sign", "embed_quant", `ld\.global\.s8`, 0, "ld.global.u8", playTable, otherAnswer},
	{"a piece is not taken off", "unpack_quant", `sub\.rn\.f32(\s+%f\d+), (%f\d+), %f\d+;`, 4, "mov.f32${1}, ${2};", playTable, otherAnswer},
	{"chunks are not exchanged", "unpack_quant", `xor\.b32(\s+%r\d+), (%r\d+), %r\d+;`, 0, "mov.b32${1}, ${2};", playTable, race},
}

// Those planted in the kernels of sm_80, too.
func TestQuant80Mutations(t *testing.T) { plantAll(t, 80, quant80Mutations) }

func playQuant(t *testing.T, d *Device) ([]byte, error) {
	return raggedBlocks(d, q8, 5, 1120, plan90{8, 3, 1, 0})
}
func playQuant32(t *testing.T, d *Device) ([]byte, error) {
	return raggedBlocks(d, q8, 20, 96, plan90{32, 1, 1, 0})
}
func playQuantParts(t *testing.T, d *Device) ([]byte, error) {
	return raggedBlocks(d, q8, 13, 1120, plan90{8, 2, 3, 2 * 3 * 128 * 8 * 4})
}

func playInts(t *testing.T, d *Device) ([]byte, error) {
	return raggedBlocks(d, q8i, 5, 1120, plan90{8, 3, 1, 0})
}

// raggedBlocks is ragged with a weight in blocks.
func raggedBlocks(d *Device, f k.Format, rows, in int, p plan90) ([]byte, error) {
	const n = 70
	g := source()
	w, x, bias := d.Load(f, n, in, blocks(g, n, in)), random(d, g, rows, in), random(d, g, 1, n)
	return twice(d, d.New(k.F32, rows, n), func(out k.Tensor, naive bool) {
		if naive {
			d.Linear(out, x, w, bias)
		} else {
			d.quant90By(p, out, x, w, bias, k.Ending{})
		}
	})
}

// twice plays by the first version and then by the shipped one, twice.
func twice(d *Device, out k.Tensor, play func(out k.Tensor, naive bool)) (all []byte, err error) {
	for i := range 3 {
		d.Fill(out, 0)
		d.naive = i == 0
		play(out, d.naive)
		one, err := answer(d, out)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// playQuant80 multiplies, by the first version and by the shipped one: of nine segments, so that a warp has two.
func playQuant80(t *testing.T, d *Device) ([]byte, error) {
	const rows, n, in = 3, 20, 4640
	g := source()
	w, x := d.Load(q8, n, in, blocks(g, n, in)), random(d, g, rows, in)
	return twice(d, d.New(k.F32, rows, n), func(out k.Tensor, naive bool) { d.Linear(out, x, w, k.Tensor{}) })
}

// playTable goes through a weight the other way, and looks rows up, one of which there is not.
func playTable(t *testing.T, d *Device) ([]byte, error) {
	const rows, n, in = 3, 37, 64
	g := source()
	w, out, dx := d.Load(q8, n, in, blocks(g, n, in)), random(d, g, rows, n), d.New(k.F32, rows, in)
	d.LinearGrad(dx, out, w)
	looked := d.New(k.F32, n, in)
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	d.Embed(looked, w, column32(d, ids...))
	all, err := answer(d, dx, looked)
	if err != nil {
		return nil, err
	}
	d.Embed(looked.Slice(0, 2), w, column32(d, 0, n))
	_, err = answer(d, looked)
	return fmt.Append(all, err), nil
}
