package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// pieced is a simulated device of capability 9.0 that splits activations into so many bf16 numbers.
func pieced(t *testing.T, pieces int, naive bool) *Device {
	d := simulatedAs(t, ptxsim.Options{Capability: 90})
	d.pieces, d.naive = pieces, naive
	return d
}

// On compute capability 9.0 every version of attention gives the bits of the first, with three pieces and with one; and
// numbers near those of sm_80's kernels, which are other sums: as near as f32, or as bf16.
func TestAttention90Versions(t *testing.T) {
	for _, c := range []struct {
		dim, queries, keys int
		paged              bool
	}{
		{8, 1, 300, true}, {8, 3, 530, true}, {20, 45, 45, false}, {33, 30, 270, true}, {64, 2, 257, true}, {128, 1, 290, true}, {128, 24, 40, true},
	} {
		for _, pieces := range []int{1, 3} {
			t.Run(fmt.Sprintf("%d columns, %d of %d, pages %v, %d pieces", c.dim, c.queries, c.keys, c.paged, pieces), func(t *testing.T) {
				var all [3][]byte
				for i, d := range []*Device{pieced(t, pieces, true), pieced(t, pieces, false), simulatedAs(t, ptxsim.Options{Capability: 80})} {
					var err error
					if all[i], err = attend(d, c.dim, c.queries, c.keys, c.paged, false); err != nil {
						t.Fatal(err)
					}
				}
				if !slices.Equal(all[0], all[1]) {
					t.Error("the shipped version and the first differ")
				}
				if far, most := furthest(all[1], all[2]), map[int]float64{1: 0.02, 3: 3e-6}[pieces]; !(far <= most) {
					t.Errorf("%g from sm_80's, at most %g", far, most)
				}
			})
		}
	}
}

// furthest is the largest difference of two results.
func furthest(a, b []byte) (worst float64) {
	for i := 0; i < len(a); i += 4 {
		x, y := float32At(a, i/4), float32At(b, i/4)
		if d := math.Abs(float64(x - y)); !(d <= worst) {
			worst = d
		}
	}
	return worst
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}

// oneHead plays attention of one sequence of one head: out, then lse.
func oneHead(d *Device, dim int, scale float32, q, key, v []float32) ([]byte, error) {
	n := len(q) / dim
	var at [3]k.Tensor
	for i, x := range [][]float32{q, key, v} {
		at[i] = d.New(k.F32, n, dim)
		d.Write(at[i], floatBytes(x))
	}
	out, lse := d.New(k.F32, n, dim), d.New(k.F32, n, 1)
	d.Attention(out, lse, at[0], at[1], at[2], k.Attn{Heads: 1, KVHeads: 1, HeadDim: dim, Scale: scale, MaxQueries: n,
		Starts: column32(d, 0, int32(n)), Lengths: column32(d, int32(n))})
	return answer(d, out, lse)
}

func normals(n int) []float32 {
	g, all := source(), make([]float32, n)
	for i := range all {
		all[i] = float32(g.NormFloat64())
	}
	return all
}

// With one piece queries, keys and values are rounded to bf16, to nearest; with three they are not.
func TestAttentionRounds(t *testing.T) {
	const n, dim = 40, 24
	x := normals(3 * n * dim)
	rounded := make([]float32, len(x))
	for i, v := range x {
		big := math.Ldexp(1.5, 45+int(math.Floor(math.Log2(math.Abs(float64(v))))))
		rounded[i] = float32(float64(v) + big - big)
	}
	play := func(pieces int, x []float32) []byte {
		raw, err := oneHead(pieced(t, pieces, false), dim, 0.25, x[:n*dim], x[n*dim:2*n*dim], x[2*n*dim:])
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if !slices.Equal(play(1, x), play(1, rounded)) {
		t.Error("with one piece, what is rounded before gives another answer")
	}
	if slices.Equal(play(3, x), play(3, rounded)) {
		t.Error("with three pieces, the numbers are rounded")
	}
}

// growing is one head whose scores grow from a block of keys to the next, by about 6 times `by`.
func growing(n, dim int, by float32) (q, key, v []float32) {
	x := normals(3 * n * dim)
	q, key, v = x[:n*dim], x[n*dim:2*n*dim], x[2*n*dim:]
	u := normals(dim)
	for i := range q {
		q[i], key[i] = u[i%dim]+q[i]/10, u[i%dim]*by*float32(1+i/dim/32)+key[i]/10
	}
	return q, key, v
}

// What was before is rescaled where scores grow much, and not where they grow little; a scale below 0 is that of the opposite queries.
func TestAttention90Grows(t *testing.T) {
	const n, dim = 96, 24
	for _, by := range []float32{0.5, 1.5} {
		q, key, v := growing(n, dim, by)
		minus := make([]float32, len(q))
		for i := range q {
			minus[i] = -q[i]
		}
		want, err := oneHead(simulatedAs(t, ptxsim.Options{Capability: 80}), dim, 0.25, q, key, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, pieces := range []int{1, 3} {
			got, err := oneHead(pieced(t, pieces, false), dim, 0.25, q, key, v)
			if err != nil {
				t.Fatal(err)
			}
			if far, most := furthest(got, want), map[int]float64{1: 0.08, 3: 5e-6}[pieces]; !(far <= most) {
				t.Errorf("%g, %d pieces: %g from sm_80's, at most %g", by, pieces, far, most)
			}
			if got, err = oneHead(pieced(t, pieces, false), dim, -0.25, minus, key, v); err != nil || furthest(got, want) > 0.08 {
				t.Errorf("%g, %d pieces, a scale below 0: %g from sm_80's (%v)", by, pieces, furthest(got, want), err)
			}
		}
	}
}

// A key or a value that is not finite makes NaN of the rows that see it, and has no part in those before it, though one
// product has them all.
func TestAttentionNotFinite(t *testing.T) {
	const n, dim, at = 45, 24, 37
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, naive := range []bool{true, false} {
		d := pieced(t, 3, naive)
		x := normals(3 * n * dim)
		q, key, v := x[:n*dim], x[n*dim:2*n*dim], x[2*n*dim:]
		want, err := oneHead(d, dim, 0.25, q, key, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []struct {
			of    string
			where []float32
			v     float32
		}{{"key", key, nan}, {"key", key, inf}, {"value", v, nan}, {"value", v, -inf}, {"value", v, math.MaxFloat32}} {
			was := bad.where[at*dim+3]
			bad.where[at*dim+3] = bad.v
			got, err := oneHead(d, dim, 0.25, q, key, v)
			bad.where[at*dim+3] = was
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[:4*at*dim], want[:4*at*dim]) {
				t.Errorf("a %s of %g changes rows before it", bad.of, bad.v)
			}
			for i := at * dim; i < n*dim; i++ {
				if v := float32At(got, i); v == v {
					t.Fatalf("a %s of %g: row %d has %g at column %d", bad.of, bad.v, i/dim, v, i%dim)
				}
			}
		}
	}
}
