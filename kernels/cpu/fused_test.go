package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// A product with its ending has the bits of the operations one after another, whatever the weight's format, the rows
// and how the work is cut.
func TestFusedIsOneAfterAnother(t *testing.T) { both(t, fusedIsOneAfterAnother) }

func fusedIsOneAfterAnother(t *testing.T) {
	r := rand.New(rand.NewPCG(71, 1))
	formats := []kernels.Format{{Type: kernels.F32}, {Type: kernels.BF16}, {Type: kernels.BF16, Acts: kernels.BF16},
		{Type: kernels.Q8_0}, {Type: kernels.Q8_0, Acts: kernels.I8}, {Type: kernels.Q4_0, Acts: kernels.I8}, {Type: kernels.Q4_1, Acts: kernels.I8}}
	fused, expanded := map[bool]int{}, 0
	for i, f := range formats {
		for j, s := range [][2]int{{64, 32}, {192, 96}, {70, 64}, {1536, 64}} {
			d := New(1 + (i+j)%3)
			raw := randomBlocks(r, f.Type, s[0], s[1]/kernels.BlockLen)
			if !f.Type.Blocks() {
				raw, _ = stored(f.Type, random(r, s[0], s[1]))
			}
			w := d.Load(f, s[0], s[1], raw)
			for _, m := range []int{1, 3, 16, 45, 210} {
				for _, gated := range []bool{false, true} {
					if m*s[0]*s[1] > 1<<21 {
						continue // seconds, in the twin
					}
					x, what := put(t, d, random(r, m, s[1]), 1), fmt.Sprintf("%v %dx%d, %d rows, gated %v", f, s[0], s[1], m, gated)
					product := put(t, d, nans(m, s[0]), 0)
					d.Linear(product, x, w, kernels.Tensor{})
					want, e := put(t, d, nans(m, s[0]), 0), kernels.Ending{Gated: gated}
					for range r.IntN(4) {
						a := anExpand(t, d, r, m, s[0])
						e.Expands = append(e.Expands, a)
						d.MatMul(product.Slice(a.Row, a.Low.Rows).Columns(a.Col, a.B.Rows), a.Low, a.B, kernels.Gemm{TransB: true, Alpha: 1, Accumulate: true})
					}
					if n := s[0] / 2; gated {
						want = put(t, d, nans(m, n), 0)
						d.SwiGLU(want, product.Columns(0, n), product.Columns(n, n))
					} else {
						e.Plus = put(t, d, random(r, m, s[0]), 2)
						d.Add(want, e.Plus, product)
					}
					out := put(t, d, nans(m, want.Cols), 1)
					if d.Fused(out, x, w, kernels.Tensor{}, e) {
						fused[gated]++
						expanded += len(e.Expands)
						wantBits(t, what, get(t, d, out), get(t, d, want))
						continue
					}
					if len(e.Expands) > 0 && f.Acts == kernels.I8 {
						continue
					}
					if !gated || s[0]%64 == 0 && (f.Acts != kernels.F32 || f.Type == kernels.F32) {
						t.Errorf("%s: not fused", what)
					}
				}
			}
			d.Close()
		}
	}
	if fused[true] == 0 || fused[false] == 0 || expanded == 0 {
		t.Errorf("%v were fused, %d parts of adapters", fused, expanded)
	}
}

// anExpand adds to some rows and columns of m × n.
func anExpand(t *testing.T, d *Device, r *rand.Rand, m, n int) kernels.Expand {
	rank, row, col := 1+r.IntN(40), r.IntN(m), r.IntN(n)
	return kernels.Expand{Row: row, Col: col, Low: put(t, d, random(r, 1+r.IntN(m-row), rank), 1), B: put(t, d, random(r, 1+r.IntN(n-col), rank), 1)}
}

// What a device cannot end a product with is left to the operations.
func TestFusedRefuses(t *testing.T) {
	d := New(1)
	defer d.Close()
	r := rand.New(rand.NewPCG(72, 1))
	w, _ := load(t, d, kernels.F32, random(r, 64, 32))
	ints := d.Load(kernels.Format{Type: kernels.Q8_0, Acts: kernels.I8}, 64, 32, randomBlocks(r, kernels.Q8_0, 64, 1))
	x, out, half := put(t, d, random(r, 2, 32), 0), put(t, d, nans(2, 64), 0), put(t, d, nans(2, 32), 0)
	bias, low, b := put(t, d, random(r, 1, 64), 0), put(t, d, random(r, 2, 4), 0), put(t, d, random(r, 64, 4), 0)
	for name, ok := range map[string]bool{
		"nothing":       d.Fused(out, x, w, kernels.Tensor{}, kernels.Ending{}),
		"bias and plus": d.Fused(out, x, w, bias, kernels.Ending{Plus: out}),
		"gated, a bias": d.Fused(half, x, w, bias, kernels.Ending{Gated: true}),
		"gated, plus":   d.Fused(half, x, w, kernels.Tensor{}, kernels.Ending{Gated: true, Plus: half}),
		"of an adapter": d.Fused(out, x, ints, kernels.Tensor{}, kernels.Ending{Plus: out, Expands: []kernels.Expand{{Low: low, B: b}}}),
	} {
		if ok {
			t.Errorf("%s: fused", name)
		}
	}
	for _, v := range get(t, d, out).v {
		if v == v {
			t.Fatal("out was written")
		}
	}
}
