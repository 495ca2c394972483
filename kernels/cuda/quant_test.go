package cuda

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/x448/float16"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

var q8, q8i = k.Format{Type: k.Q8_0}, k.Format{Type: k.Q8_0, Acts: k.I8}

// Weights in blocks, as the suite of all devices has them. (sm_80 has the same bits: TestQuantVersions.)
func TestQuant(t *testing.T) {
	open := func(t *testing.T) k.Backend { return simulated(t) }
	kerneltest.RunFormat(t, open, q8)
	kerneltest.RunLinear(t, open, q8i)
}

// blocks is a random weight in blocks, as Load takes it.
func blocks(g *rand.Rand, rows, cols int) (raw []byte) {
	for range rows * cols / k.BlockLen {
		raw = binary.LittleEndian.AppendUint16(raw, float16.Fromfloat32(float32(g.NormFloat64())/64).Bits())
		for range k.BlockLen {
			raw = append(raw, byte(g.Uint32()))
		}
	}
	return raw
}

// quantized plays a product with a weight in blocks.
func quantized(d *Device, f k.Format, rows, n, in int) ([]byte, error) {
	g := source()
	w, x, out := d.Load(f, n, in, blocks(g, n, in)), random(d, g, rows, in), d.New(k.F32, rows, n)
	d.Linear(out, x, w, random(d, g, 1, n))
	return answer(d, out)
}

// A product with a weight in blocks has, for every number of tokens, one bf16 number or three an activation, K of several segments
// and every order of warps, the bits of the first version; and as the simulator adds by mma.sync and by wgmma alike, those of both
// capabilities are the same.
func TestQuantVersions(t *testing.T) {
	for i, c := range []struct {
		f                   k.Format
		pieces, rows, n, in int
	}{
		{q8, 3, 1, 150, 1120}, {q8, 1, 7, 70, 1120}, {q8, 3, 9, 150, 544}, {q8, 1, 12, 20, 544}, {q8, 3, 17, 70, 544}, {q8, 1, 33, 130, 96},
		{q8, 3, 70, 130, 96}, {q8, 1, 100, 20, 576}, {q8i, 3, 2, 150, 1120}, {q8i, 1, 9, 70, 544}, {q8i, 3, 30, 20, 544}, {q8i, 3, 60, 130, 96}, {q8i, 3, 100, 20, 576},
	} {
		var want []byte
		for _, version := range []struct {
			capability int
			first      bool
		}{{90, true}, {90, false}, {80, false}} {
			d := simulatedAs(t, ptxsim.Options{Capability: version.capability, Order: ptxsim.Orders[i%len(ptxsim.Orders)]})
			d.naive, d.pieces = version.first, c.pieces
			got, err := quantized(d, c.f, c.rows, c.n, c.in)
			if err != nil {
				t.Fatalf("%+v of %+v: %v", version, c, err)
			}
			if want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Errorf("%+v of %+v: other bits than the first", version, c)
			}
		}
	}
}

// The first version of sm_80 too.
func TestQuantFirst(t *testing.T) {
	for _, f := range []k.Format{q8, q8i} {
		first, shipped := simulatedAs(t, ptxsim.Options{Capability: 80}), simulatedAs(t, ptxsim.Options{Capability: 80})
		first.naive = true
		want, err := quantized(first, f, 3, 40, 1120)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := quantized(shipped, f, 3, 40, 1120); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: the shipped version and the first differ (%v)", f, err)
		}
	}
}

// Once its tensor maps are made, a product with a weight in blocks allocates nothing, ended or not, nor does its gradient.
func TestQuantAllocatesNothing(t *testing.T) {
	h := &hopper{empty: newEmpty(1 << 28)}
	d, err := On(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []k.Format{q8, q8i} {
		w := d.Load(f, 96, 512, make([]byte, f.Type.Bytes(96*512)))
		x, out, half := d.New(k.F32, 40, 512), d.New(k.F32, 40, 96), d.New(k.F32, 40, 48)
		play := func() {
			for _, n := range []int{1, 9, 40} {
				d.Linear(out.Slice(0, n), x.Slice(0, n), w, k.Tensor{})
				if !d.Fused(half.Slice(0, n), x.Slice(0, n), w, k.Tensor{}, k.Ending{Gated: true}) {
					t.Error("a product is not ended")
				}
			}
			d.LinearGrad(x, out, w)
		}
		play()
		play() // scratch memory has grown
		made := h.encoded
		if n := testing.AllocsPerRun(10, play); n != 0 || h.encoded != made {
			t.Errorf("%v: %v allocations, %d tensor maps and then %d", f, n, made, h.encoded)
		}
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}
