package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

var endingMutations = []mutation{
	{"a row too many of an adapter's", "linear90_8_3", `setp\.ge\.u32(\s+%p\d+, %r\d+, %r\d+;)`, 2, "setp.gt.u32${1}", playEnding, bounds},
	{"an output too many of an adapter's", "linear90_8_3", `setp\.le\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 2, "setp.lt.s32${1}", playEnding, bounds},
	{"a row too many of a gated product", "linear90_8_3", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 10, "setp.gt.s32${1}", playEnding, bounds},
	{"a step of an adapter's sum is left out", "linear90_8_3", `fma\.rn\.f32(\s+%f\d+), %f\d+, %f\d+, (%f\d+);`, 8, "mov.f32${1}, ${2};", playEnding, otherAnswer},
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
	d.linear90By(clusters90{plan90{8, 1, 2, 0}, alone}, out, x, w, bias, k.Ending{Gated: true, Plus: random(d, g, rows, n/2), Expands: []k.Expand{
		{Row: 1, Col: 2, Low: random(d, g, 3, 2), B: random(d, g, 9, 2)},
		{Row: 2, Col: 100, Low: random(d, g, 3, 3), B: random(d, g, 60, 3)},
	}})
	return answer(d, out)
}

// What adapters of rank 8 add where rows begin at multiples of 16 bytes, and where they do not, to the bits of MatMul.
func TestFusedAdapters(t *testing.T) {
	d, g := simulated(t), source()
	const n, in = 70, 90
	raw := make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w := d.Load(k.Format{Type: k.BF16}, n, in, raw)
	for _, rows := range []int{3, 60} {
		for _, from := range []int{0, 1} {
			x, plain, out := random(d, g, rows, in), d.New(k.F32, rows, n), d.New(k.F32, rows, n)
			low, b := random(d, g, rows, 12).Columns(from, 8), random(d, g, n-9, 12).Columns(from, 8)
			d.Linear(plain, x, w, k.Tensor{})
			d.MatMul(plain.Slice(1, rows-2).Columns(5, n-9), low.Slice(0, rows-2), b, k.Gemm{TransB: true, Alpha: 1, Accumulate: true})
			if !d.Fused(out, x, w, k.Tensor{}, k.Ending{Expands: []k.Expand{{Row: 1, Col: 5, Low: low.Slice(0, rows-2), B: b}}}) {
				t.Fatalf("%d rows are not taken", rows)
			}
			if !slices.Equal(bits(t, d, out), bits(t, d, plain)) {
				t.Errorf("%d rows, from column %d: other bits than MatMul's", rows, from)
			}
		}
	}
}

// A product with its ending allocates nothing, with adapters or without; those that the device cannot end so it leaves alone.
func TestFusedAllocatesNothing(t *testing.T) {
	h := &hopper{empty: newEmpty(1 << 28)}
	d, err := On(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := d.Load(k.Format{Type: k.BF16}, 96, 500, make([]byte, 2*96*500))
	x, out := d.New(k.F32, 70, 500), d.New(k.F32, 70, 48)
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
		t.Error("seventy tokens and adapters are taken together")
	}
	wide := d.Load(k.Format{Type: k.F32}, 96, 500, make([]byte, 4*96*500))
	if d.Fused(out, x, wide, k.Tensor{}, k.Ending{Gated: true}) {
		t.Error("f32 weights are taken")
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// A fuses device counts the products that are ended.
type fuses struct {
	*Device
	ended int
}

func (d *fuses) Fused(out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) bool {
	ok := d.Device.Fused(out, x, w, bias, e)
	if ok {
		d.ended++
	}
	return ok
}

// A model's log-probabilities have the same bits from products that end with what follows them, in a pass without
// Backward and in one with it, and from operations one after another: sequences without an adapter, with one, with another.
func TestFusedModel(t *testing.T) {
	b := &batch.Batch{Starts: []int32{0}, Adapters: []int32{0, 1, 2}}
	for s, n := range []int32{4, 6, 9} {
		for i := range n {
			b.Tokens, b.Positions = append(b.Tokens, (7*int32(s)+5*i)%90), append(b.Positions, i)
			b.Want, b.Targets = append(b.Want, int32(len(b.Want))), append(b.Targets, (i*i+3)%90)
		}
		b.Starts, b.Lengths = append(b.Starts, int32(len(b.Tokens))), append(b.Lengths, n)
	}
	score := func(be k.Backend, train bool) []float32 {
		src := modeltest.Tiny("qwen2", 5)
		logp := make([]float32, len(b.Want))
		attached(t, be, func() error {
			dec, err := model.Load(be, src.Config, src, model.Options{Context: 64, DType: weights.BF16, Convert: true})
			if err != nil {
				return err
			}
			ads := []*model.Adapter{nil, nil, nil}
			for i := 1; i < 3; i++ {
				host, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 2 + i, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, uint64(i))
				if err != nil {
					return err
				}
				for _, p := range host.Pairs {
					for j := range p.B {
						p.B[j] = float32((i+j)%7-3) / 16
					}
				}
				if ads[i], err = dec.LoadAdapter(host); err != nil {
					return err
				}
			}
			n := len(b.Tokens)
			p := dec.NewPass(model.Size{Tokens: n, Sequences: 3, Wanted: n, Rank: 4, Train: train})
			if err := p.Load(b, ads, nil); err != nil {
				return err
			}
			p.Forward()
			return p.LogProbs(logp)
		})
		return logp
	}
	fused, training := &fuses{Device: simulated(t)}, &fuses{Device: simulated(t)}
	want := score(struct{ k.Backend }{simulated(t)}, false)
	if got := score(fused, false); !slices.Equal(got, want) || fused.ended != 2*4 {
		t.Errorf("%d products ended: %v, one after another %v", fused.ended, got, want)
	}
	if got := score(training, true); !slices.Equal(got, want) || training.ended != 2*4 {
		t.Errorf("%d products ended, training: %v, one after another %v", training.ended, got, want)
	}
}
