package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

func random(d *Device, g *rand.Rand, rows, cols int) k.Tensor {
	t := d.New(k.F32, rows, cols)
	vs := make([]float32, rows*cols)
	for i := range vs {
		vs[i] = float32(g.NormFloat64())
	}
	d.Write(t, floatBytes(vs))
	return t
}

func column32(d *Device, vs ...int32) k.Tensor {
	t := d.New(k.I32, len(vs), 1)
	d.Write(t, intBytes(vs))
	return t
}

func floatBytes(vs []float32) (b []byte) {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func intBytes(vs []int32) (b []byte) {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b
}

// bits reads tensors.
func bits(t *testing.T, d *Device, ts ...k.Tensor) (all []byte) {
	t.Helper()
	for _, x := range ts {
		raw := make([]byte, 4*x.Rows*x.Cols)
		if err := d.Read(raw, x); err != nil {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	return all
}

// attend plays one attention on a device: sequences of so many queries that see so many keys in pages of
// 16, or their own rows, with heads of dim columns; and the gradient where it can.
func attend(d *Device, dim, queries, keys int, paged, gradient bool) ([]byte, error) {
	g := rand.New(rand.NewPCG(uint64(dim), uint64(keys)))
	const heads, kv, sequences = 6, 2, 2
	q, rows := random(d, g, sequences*queries, heads*dim), sequences*keys
	a := k.Attn{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 0.1, MaxQueries: queries,
		Starts: column32(d, 0, int32(queries), int32(2*queries)), Lengths: column32(d, int32(keys), int32(keys))}
	if paged {
		pages := ceil(keys, 16)
		order := g.Perm(2 * pages)
		a.PageSize, a.Pages, rows = 16, d.New(k.I32, 2, pages), 2*pages*16
		var table []int32
		for _, p := range order {
			table = append(table, int32(p))
		}
		d.Write(a.Pages, intBytes(table))
	}
	key, v := random(d, g, rows, kv*dim), random(d, g, rows, kv*dim)
	out, lse := d.New(k.F32, q.Rows, q.Cols), d.New(k.F32, q.Rows, heads)
	d.Attention(out, lse, q, key, v, a)
	if !gradient {
		return answer(d, out, lse)
	}
	dq, dk, dv, dout := random(d, g, q.Rows, q.Cols), random(d, g, rows, kv*dim), random(d, g, rows, kv*dim), random(d, g, q.Rows, q.Cols)
	d.AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v, a)
	return answer(d, out, lse, dq, dk, dv)
}

// On sm_80 every version of attention and of its gradient gives the bits of the first, for heads of every kernel,
// for rows of prefills and of decode steps whose keys are several segments.
func TestAttentionVersions(t *testing.T) {
	for _, c := range []struct {
		dim, queries, keys int
		paged              bool
	}{
		{8, 1, 300, true}, {8, 3, 530, true}, {8, 70, 70, false}, {20, 40, 90, true}, {33, 50, 50, false}, {64, 1, 257, true},
		{80, 37, 37, false}, {128, 2, 300, true}, {128, 20, 33, true}, {130, 21, 21, false}, {256, 1, 260, true}, {256, 9, 40, true},
	} {
		t.Run(fmt.Sprintf("%d columns, %d of %d, pages %v", c.dim, c.queries, c.keys, c.paged), func(t *testing.T) {
			first, shipped := simulatedAs(t, ptxsim.Options{Capability: 80}), simulatedAs(t, ptxsim.Options{Capability: 80})
			first.naive = true
			want, err := attend(first, c.dim, c.queries, c.keys, c.paged, !c.paged)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := attend(shipped, c.dim, c.queries, c.keys, c.paged, !c.paged); err != nil || !slices.Equal(got, want) {
				t.Errorf("the shipped version and the first differ (%v)", err)
			}
		})
	}
}

// A product with a bf16 weight has, for every number of tokens and whether activations are one bf16 number
// or three, the bits of the first version; K is of several segments and stages.
func TestProductVersions(t *testing.T) {
	for _, capability := range []int{80, 90} {
		t.Run(fmt.Sprint("sm_", capability), func(t *testing.T) { productVersions(t, capability) })
	}
}

func productVersions(t *testing.T, capability int) {
	const n, in = 150, 600
	for _, pieces := range []int{1, 3} {
		first := simulatedAs(t, ptxsim.Options{Capability: capability})
		first.naive, first.pieces = true, pieces
		g := rand.New(rand.NewPCG(1, 2))
		raw := make([]byte, 2*n*in)
		for i := range n * in {
			v := float32(g.NormFloat64())
			raw[2*i], raw[2*i+1] = floatBytes([]float32{v})[2], floatBytes([]float32{v})[3]
		}
		x, dout := make([]float32, 140*in), make([]float32, 140*n)
		for i := range x {
			x[i] = float32(g.NormFloat64())
		}
		for i := range dout {
			dout[i] = float32(g.NormFloat64())
		}
		play := func(d *Device, rows int) []byte {
			w := d.Load(k.Format{Type: k.BF16}, n, in, raw)
			out, dx, a, b := d.New(k.F32, rows, n), d.New(k.F32, rows, in), d.New(k.F32, rows, in), d.New(k.F32, rows, n)
			d.Write(a, floatBytes(x[:rows*in]))
			d.Write(b, floatBytes(dout[:rows*n]))
			d.Linear(out, a, w, k.Tensor{})
			d.LinearGrad(dx, b, w)
			return bits(t, d, out, dx)
		}
		for _, rows := range []int{1, 8, 9, 16, 17, 32, 33, 70, 140} {
			shipped := simulatedAs(t, ptxsim.Options{Capability: capability})
			shipped.pieces = pieces
			if !slices.Equal(play(first, rows), play(shipped, rows)) {
				t.Errorf("%d tokens, %d pieces: the shipped version and the first differ", rows, pieces)
			}
		}
	}
}

// BF16 activations are rounded to the nearest and no more: the answer is that of exact ones which are bf16.
func TestActivations(t *testing.T) {
	const n, in, rows = 40, 300, 9
	g := rand.New(rand.NewPCG(5, 6))
	x, rounded, raw := make([]float32, rows*in), make([]float32, rows*in), make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	for i := range x {
		x[i] = float32(g.NormFloat64())
		// To a number whose last place, in float64, is the value's last place in bf16, and back: rounded to even.
		big := math.Ldexp(1.5, 45+int(math.Floor(math.Log2(math.Abs(float64(x[i]))))))
		rounded[i] = float32(float64(x[i]) + big - big)
	}
	play := func(d *Device, x []float32) []byte {
		a, out := d.New(k.F32, rows, in), d.New(k.F32, rows, n)
		d.Write(a, floatBytes(x))
		d.Linear(out, a, d.Load(k.Format{Type: k.BF16}, n, in, raw), k.Tensor{})
		return bits(t, d, out)
	}
	half, err := On(newSimulator(), Options{Activations: k.BF16})
	if err != nil {
		t.Fatal(err)
	}
	exact := simulated(t)
	if slices.Equal(play(half, x), play(exact, x)) {
		t.Error("bf16 activations are not rounded")
	}
	if !slices.Equal(play(half, x), play(exact, rounded)) {
		t.Error("bf16 activations are not those rounded to the nearest")
	}
	if _, err := On(newEmpty(1<<20), Options{Activations: k.F16}); err == nil {
		t.Error("f16 activations are taken")
	}
}
