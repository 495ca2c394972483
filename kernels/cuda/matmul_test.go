package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

const (
	waitNone = `cp\.async\.wait_group 0;`
)

var matmulMutations = []mutation{
	{"no barrier before a stage is filled again", "matmul_64_128", barrier, 0, "", playAdded, race},
	{"a stage is read before it is there", "matmul_64_128", waitNone, 0, waitOneOf, playAdded, unfinished},
	{"a column's sum does not begin with what is there", "matmul_64_128", `ld\.global\.f32(\s+%f\d+), \[%rd\d+\];`, 0, "mov.f32${1}, 0f00000000;", playAdded, otherAnswer},
	{"no barrier before a wide stage is filled again", "matmul_32_128", barrier, 0, "", playPairs, race},
	{"a wide stage is read before it is there", "matmul_32_128", waitOne, 0, late, playPairs, unfinished},
	{"no barrier before a tall stage is filled again", "matmul_128_32", barrier, 0, "", playPairs, race},
	{"a tall stage is read before it is there", "matmul_128_32", waitOne, 0, late, playPairs, unfinished},
	{"fours from the next row", "matmul_128_32", `(ld\.shared\.v4\.f32\s+\{[^}]*\}, \[%rd\d+)\+64\]`, 0, "${1}+80]", playPairs, unwritten},
	{"a stage of 32 terms is read before it is there", "matmul_32_32", waitOne, 0, late, playPairs, unfinished},
	{"no barrier before a small stage is filled again", "matmul_16_16", barrier, 0, "", playPairs, race},
}

const waitOneOf = "cp.async.wait_group 1;"

// Each bug planted in matmul is caught, by what the table says.
func TestMatMulMutations(t *testing.T) { plantAll(t, 80, matmulMutations) }

// playAdded is what an adapter adds.
func playAdded(_ *testing.T, d *Device) ([]byte, error) {
	return multiplied(d, chains[0], 70, 133, 40, k.Gemm{Alpha: 1, TransB: true, Accumulate: true})
}

// playPairs are the gradients of its pairs, by each kernel.
func playPairs(_ *testing.T, d *Device) (all []byte, err error) {
	for _, c := range chains {
		one, err := multiplied(d, c, 36, 40, 150, k.Gemm{Alpha: 1, TransA: true, Accumulate: true})
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// multiplied is a product by one of the kernels, or by the first version where it has no name.
func multiplied(d *Device, by chain, m, n, length int, gemm k.Gemm) ([]byte, error) {
	g := source()
	a, b, c := random(d, g, m, length), random(d, g, length, n), random(d, g, m, n)
	if gemm.TransA {
		a = random(d, g, length, m)
	}
	if gemm.TransB {
		b = random(d, g, n, length)
	}
	if d.naive = by.name == ""; d.naive {
		d.product(opMatMul, c, a, b, gemm)
	} else {
		d.chain(opMatMul, by, c, a, b, gemm)
	}
	return answer(d, c)
}

// Every kernel gives the bits of the first version, for factors whose rows are whole fours and others, from c and from zero.
func TestMatMulKernels(t *testing.T) {
	d := simulated(t)
	for _, shape := range [][3]int{{1, 1, 1}, {33, 129, 35}, {132, 36, 50}, {68, 140, 31}} {
		for how := range 8 {
			gemm := k.Gemm{Alpha: 1, TransA: how&1 != 0, TransB: how&2 != 0, Accumulate: how&4 != 0}
			want, err := multiplied(d, chain{}, shape[0], shape[1], shape[2], gemm)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chains {
				if got, err := multiplied(d, c, shape[0], shape[1], shape[2], gemm); err != nil || !slices.Equal(got, want) {
					t.Errorf("%v, %+v, by %s and by the first version: other bits (%v)", shape, gemm, c.name, err)
				}
			}
		}
	}
}

// An adapter's gradients are not left to a few multiprocessors, and few elements take small blocks.
func TestChainOf(t *testing.T) {
	for _, c := range []struct {
		rows, cols int
		want       string
	}{{6142, 18944, "matmul_64_128"}, {32, 18944, "matmul_32_128"}, {18944, 32, "matmul_128_32"}, {32, 512, "matmul_16_16"}} {
		if got := chainOf(c.rows, c.cols).name; got != c.want {
			t.Errorf("%d × %d by %s, want %s", c.rows, c.cols, got, c.want)
		}
	}
}
