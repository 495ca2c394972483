package cuda

import (
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
)

var endingMutations = []mutation{
	{"a row too many of an adapter's", "linear90_8_3", `setp\.ge\.u32(\s+%p\d+, %r\d+, %r\d+;)`, 0, "setp.gt.u32${1}", playEnding, bounds},
	{"an output too many of an adapter's", "linear90_8_3", `setp\.le\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 1, "setp.lt.s32${1}", playEnding, bounds},
	{"a row too many of a gated product", "linear90_8_3", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 8, "setp.gt.s32${1}", playEnding, bounds},
	{"a step of an adapter's sum is left out", "linear90_8_3", `fma\.rn\.f32(\s+%f\d+), %f\d+, %f\d+, (%f\d+);`, 0, "mov.f32${1}, ${2};", playEnding, otherAnswer},
	{"what the second adapter adds is not kept", "linear90_8_3", `setp\.ne\.s32(\s+%p\d+, %r\d+, )1;`, 0, "setp.ne.s32${1}1000;", playEnding, unwritten},
	{"a gated weight's tiles are a whole one's", "linear90_8_3", `selp\.b32(\s+%r\d+), 16, 8,`, 0, "selp.b32${1}, 16, 16,", playEnding, otherAnswer},
	{"silu of the other sign", "linear90_8_3", `neg\.f32(\s+%f\d+), (%f\d+);`, 0, "mov.f32${1}, ${2};", playEnding, otherAnswer},
}

// Each bug planted in a product's ending is caught.
func TestEndingMutations(t *testing.T) { plantAll(t, 90, endingMutations) }

// playEnding has 80 gates and 80 ups, two adapters whose parts end within the product, and what is added to it.
func playEnding(t *testing.T, d *Device) ([]byte, error) {
	const rows, n, in = 5, 160, 40
	g, raw := source(), make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, x, bias, out := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), random(d, g, 1, n), d.New(k.F32, rows, n/2)
	d.Fill(out, 0)
	d.linear90By(plan90{8, 1, 2, 0}, out, x, w, bias, k.Ending{Gated: true, Plus: random(d, g, rows, n/2), Expands: []k.Expand{
		{Row: 1, Col: 2, Low: random(d, g, 3, 2), B: random(d, g, 9, 2)},
		{Row: 2, Col: 100, Low: random(d, g, 3, 3), B: random(d, g, 60, 3)},
	}})
	return answer(d, out)
}

// A product with its ending allocates nothing, with adapters or without; those that the device cannot end so it leaves alone.
func TestFusedAllocatesNothing(t *testing.T) {
	h := &hopper{empty: newEmpty(1 << 28)}
	d, err := On(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := d.Load(k.Format{Type: k.BF16}, 96, 500, make([]byte, 2*96*500))
	x, out := d.New(k.F32, 40, 500), d.New(k.F32, 40, 48)
	adds := []k.Expand{{Low: d.New(k.F32, 9, 4), B: d.New(k.F32, 48, 4)}}
	play := func() {
		if !d.Fused(out.Slice(0, 9), x.Slice(0, 9), w, k.Tensor{}, k.Ending{Gated: true, Expands: adds}) ||
			!d.Fused(out, x, w, k.Tensor{}, k.Ending{Gated: true}) {
			t.Error("a product is not ended")
		}
	}
	play()
	if n := testing.AllocsPerRun(10, play); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if d.Fused(out, x, w, k.Tensor{}, k.Ending{Gated: true, Expands: adds}) {
		t.Error("forty tokens and adapters are taken together")
	}
	wide := d.Load(k.Format{Type: k.F32}, 96, 500, make([]byte, 4*96*500))
	if d.Fused(out, x, wide, k.Tensor{}, k.Ending{Gated: true}) {
		t.Error("f32 weights are taken")
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}
