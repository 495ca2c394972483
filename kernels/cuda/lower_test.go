package cuda

import (
	"math"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

var lowerMutations = []mutation{
	{"no barrier after a stage is stored", "lower_32", barrier, 0, "", playLower, race},
	{"no barrier after a stage is stored across", "lower_across_32", barrier, 0, "", playLower, race},
	{"two registers of a fragment exchanged", "lower_32", `(mma\.sync\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+),`, 5, "${1}{${3},${2},", playLower, otherAnswer},
	{"the fragment of another piece", "lower_32", `(mma\.sync\S+ \{[^}]*\}, \{[^}]*\}, )\{(%r\d+),(%r\d+)\}`, 0, "${1}{${3},${2}}", playLower, otherAnswer},
	{"what is left of a number is all of it", "lower_32", `sub\.rn\.f32(\s+%f\d+, %f\d+), %f\d+;`, 0, "sub.rn.f32${1}, 0f00000000;", playLower, otherAnswer},
	{"segments begin apart from each other", "lower_32", `shl\.b32(\s+%r\d+, %r\d+, )9;`, 0, "shl.b32${1}8;", playLower, otherAnswer},
	{"a row after the last", "lower_32", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 5, "setp.gt.s32${1}", playLower, bounds},
	{"a column after the last", "lower_across_32", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 30, "setp.gt.s32${1}", playLower, bounds},
	{"a term after the last", "lower_across_32", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 82, "setp.gt.s32${1}", playLower, bounds},
	{"chunks are read where they were not put", "lower_across_32", `xor\.b32(\s+%r\d+, %r\d+, )32;`, 0, "xor.b32${1}0;", playLower, otherAnswer},
	{"the last segment is not joined", "lower_join", `setp\.lt\.s32(\s+%p\d+, %r\d+, )1;`, 0, "setp.lt.s32${1}4;", playLower, otherAnswer},
}

// Each bug planted in lower is caught, by what the table says.
func TestLowerMutations(t *testing.T) { plantAll(t, 80, lowerMutations) }

// playLower goes both ways through b, with the segments one after the other and cut.
func playLower(_ *testing.T, d *Device) (all []byte, err error) {
	for _, transB := range []bool{true, false} {
		for _, p := range []lowering{{32, false}, {32, true}} {
			one, err := lowered(d, p, 19, 21, 1101, transB)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
	}
	return all, nil
}

// lowered is a product by a plan, or by the first version where its width is 0.
func lowered(d *Device, p lowering, m, n, length int, transB bool) ([]byte, error) {
	g := source()
	a, c, gemm := random(d, g, m, length), d.New(k.F32, m, n), k.Gemm{Alpha: 0.5, TransB: transB, Bias: random(d, g, 1, n)}
	b := random(d, g, length, n)
	if transB {
		b = random(d, g, n, length)
	}
	if d.naive = p.wide == 0; d.naive {
		d.MatMul(c, a, b, gemm)
	} else {
		d.lowerBy(p, c, a, b, gemm)
	}
	return answer(d, c)
}

// Every plan gives the bits of the first version, for rows that are whole fours and others, of few segments and of many.
func TestLowerPlans(t *testing.T) {
	d := simulated(t)
	for _, shape := range [][3]int{{1, 3, 1030}, {70, 70, 1100}, {17, 33, 513}, {5, 8, 90}, {2, 2, 1}} {
		for _, transB := range []bool{true, false} {
			want, err := lowered(d, lowering{}, shape[0], shape[1], shape[2], transB)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []lowering{{32, false}, {32, true}, {64, false}, {64, true}} {
				if got, err := lowered(d, p, shape[0], shape[1], shape[2], transB); err != nil || !slices.Equal(got, want) {
					t.Errorf("%v, transposed %v, by %v and by the first version: other bits (%v)", shape, transB, p, err)
				}
			}
		}
	}
}

// Products of long rows are as near the exact ones as a sum of f32 products is: the pieces lose nothing that counts.
func TestLowerIsExact(t *testing.T) {
	const m, n, length = 4, 5, 6000
	d, g := simulated(t), source()
	x, y := make([]float32, m*length), make([]float32, n*length)
	for _, v := range [][]float32{x, y} {
		for i := range v {
			v[i] = float32(g.NormFloat64())
		}
	}
	a, b, c := d.New(k.F32, m, length), d.New(k.F32, n, length), d.New(k.F32, m, n)
	d.Write(a, floatBytes(x))
	d.Write(b, floatBytes(y))
	d.MatMul(c, a, b, k.Gemm{Alpha: 1, TransB: true})
	got := bits(t, d, c)
	var diff, norm float64
	for i := range m {
		for j := range n {
			exact := 0.0
			for l := range length {
				exact += float64(x[i*length+l]) * float64(y[j*length+l])
			}
			e := float64(float32At(got, i*n+j)) - exact
			diff, norm = diff+e*e, norm+exact*exact
		}
	}
	worst := math.Sqrt(diff / norm)
	t.Logf("off by %.2g of the answer", worst)
	if !(worst < 0x1p-22) {
		t.Errorf("off by %.2g of the answer, more than f32's", worst)
	}
}
