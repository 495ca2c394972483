package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// integers are matrices in blocks and activations rounded to integers: what --dtype int8 stands for.
var integers = model.Options{DType: weights.Q8_0, Acts: k.I8}

// A GRPO step on a base in blocks, by integers: sampler and trainer agree to the bit, and the adapter moves.
func TestEngineOfIntegers(t *testing.T) {
	s := newStandOf(t, simulated(t), "qwen2", integers)
	if got := s.step(t); got.stats.Parity != 0 || !(got.stats.GradNorm > 0) {
		t.Errorf("sampler and trainer differ by %g; the gradient's norm is %g", got.stats.Parity, got.stats.GradNorm)
	}
}

// A decode step of a base in blocks as a graph has the bits of its operations, for few rows and for more, with an adapter.
func TestQuantGraphs(t *testing.T) {
	for _, o := range []model.Options{{DType: weights.Q8_0}, integers} {
		c := &counter{Device: newSimulator()}
		d, err := On(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		graphs, plain := decodingOf(t, d, o), decodingOf(t, struct{ k.Backend }{simulated(t)}, o)
		for _, s := range []step{{n: 3, position: 0}, {n: 3, position: 1, adapter: 1}, {n: 9, position: 0}, {n: 9, position: 1}} {
			b, draws := s.batch()
			want, err := plain.Step(b, draws)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := graphs.Step(b, draws); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v, %+v: %v, and as a graph %v (%v)", o.Acts, s, want, got, err)
			}
		}
		if c.replays == 0 {
			t.Errorf("%v: no graph was launched", o.Acts)
		}
	}
}

// Blocks that are no plain numbers become what kernels.Format says: below 2⁻¹⁰⁰ zeros, of an infinity or a NaN NaNs; others round to
// the oracle's integers, ties to even.
func TestQuantIntegers(t *testing.T) {
	const rows, n, in = 9, 20, 96
	g := source()
	x := make([]float32, rows*in)
	for i := range x {
		x[i] = float32(g.NormFloat64())
	}
	block := func(row, b int, f func(i int) float32) {
		for i := range k.BlockLen {
			x[row*in+b*k.BlockLen+i] = f(i)
		}
	}
	block(0, 1, func(int) float32 { return 0x1.fp-101 })
	block(1, 0, func(i int) float32 { return float32(i) * 0x1p-149 })
	block(2, 2, func(int) float32 { return 0x1p-100 })
	block(3, 1, func(i int) float32 { return float32(2*i-31) * 3e33 })
	block(4, 0, func(i int) float32 { return float32(i) + 0.5 }) // with the next, in steps of one half
	x[4*in] = 63.5
	x[5*in+40] = float32(math.Inf(-1))
	x[6*in+95] = float32(math.NaN())
	block(7, 0, func(int) float32 { return 0 })
	raw := blocks(g, n, in)
	play := func(be k.Backend) (got []float32) {
		a, out := be.New(k.F32, rows, in), be.New(k.F32, rows, n)
		be.Write(a, floatBytes(x))
		be.Linear(out, a, be.Load(q8i, n, in, raw), k.Tensor{})
		b := make([]byte, 4*rows*n)
		if err := be.Read(b, out); err != nil {
			t.Fatal(err)
		}
		for ; len(b) > 0; b = b[4:] {
			got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
		return got
	}
	got, want := play(simulated(t)), play(ref.New())
	for i, v := range got {
		size := math.Abs(float64(want[i])) + 1e-3
		if i/n == 3 {
			size = 1e35
		}
		if w := want[i]; (v != v) != (w != w) || v == v && !(math.Abs(float64(v-w)) <= 1e-5*size) {
			t.Errorf("row %d, output %d: %g, want %g", i/n, i%n, v, w)
		}
		if bad := i/n == 5 || i/n == 6; (v != v) != bad {
			t.Errorf("row %d, output %d: %g", i/n, i%n, v)
		}
	}
}
