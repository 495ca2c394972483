package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// smolLM2 are the outputs and inputs of SmolLM2-135M's weights, alone and fused.
var smolLM2 = [][2]int{{576, 576}, {1536, 576}, {576, 1536}, {960, 576}, {3072, 576}, {49152, 576}}

// report adds GFLOP/s, and GB/s of a weight's bytes, of one call an iteration.
func report(b *testing.B, flops, bytes float64) {
	s := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(flops/s*1e-9, "GFLOP/s")
	if bytes > 0 {
		b.ReportMetric(bytes/s*1e-9, "GB/s")
	}
}

// rotated loads enough copies of a weight that none is in a cache when its turn comes again.
func rotated(b *testing.B, d *Device, typ kernels.DType, n, k int) []kernels.Weight {
	r := rand.New(rand.NewPCG(1, 1))
	raw, _ := stored(typ, matrix{n, k, normals(r, n*k)})
	ws := make([]kernels.Weight, 1+160<<20/(n*k*typ.Size()))
	for i := range ws {
		ws[i] = d.Load(kernels.Format{Type: typ}, n, k, raw)
		b.Cleanup(func() { d.Unload(ws[i]) })
	}
	return ws
}

func BenchmarkLinear(b *testing.B) {
	for _, typ := range []kernels.DType{kernels.F32, kernels.BF16} {
		for _, s := range smolLM2 {
			d := New(0)
			ws := rotated(b, d, typ, s[0], s[1])
			for _, m := range []int{1, 4, 16, 64, 512} {
				b.Run(fmt.Sprintf("%s/%dx%d/m%d", typ, s[0], s[1], m), func(b *testing.B) {
					r := rand.New(rand.NewPCG(2, 2))
					x, out := put(b, d, matrix{m, s[1], normals(r, m*s[1])}, 0), d.New(kernels.F32, m, s[0])
					defer d.Free(out)
					d.Fill(out, 0) // the system finds the pages now
					i := 0
					for b.Loop() {
						d.Linear(out, x, ws[i%len(ws)], kernels.Tensor{})
						i++
					}
					report(b, 2*float64(m*s[0]*s[1]), float64(s[0]*s[1]*typ.Size()))
				})
			}
			d.Close()
		}
	}
}

func BenchmarkLinearGrad(b *testing.B) {
	for _, typ := range []kernels.DType{kernels.F32, kernels.BF16} {
		for _, s := range smolLM2 {
			d := New(0)
			ws := rotated(b, d, typ, s[0], s[1])
			for _, m := range []int{16, 64, 512} {
				b.Run(fmt.Sprintf("%s/%dx%d/m%d", typ, s[0], s[1], m), func(b *testing.B) {
					r := rand.New(rand.NewPCG(2, 2))
					dout, dx := put(b, d, matrix{m, s[0], normals(r, m*s[0])}, 0), d.New(kernels.F32, m, s[1])
					defer d.Free(dx)
					d.Fill(dx, 0)
					i := 0
					for b.Loop() {
						d.LinearGrad(dx, dout, ws[i%len(ws)])
						i++
					}
					report(b, 2*float64(m*s[0]*s[1]), 0)
				})
			}
			d.Close()
		}
	}
}

// The products of a LoRA pair of rank 8, forward and backward, and of a trained matrix.
func BenchmarkMatMul(b *testing.B) {
	d := New(0)
	defer d.Close()
	for _, c := range []struct {
		name   string
		m, n   int
		k      int
		ta, tb bool
	}{
		{"low=x·Aᵀ/m1", 1, 8, 576, false, true},
		{"low=x·Aᵀ/m16", 16, 8, 576, false, true},
		{"low=x·Aᵀ/m512", 512, 8, 576, false, true},
		{"out=low·Bᵀ/m1", 1, 576, 8, false, true},
		{"out=low·Bᵀ/m16", 16, 576, 8, false, true},
		{"out=low·Bᵀ/m512", 512, 576, 8, false, true},
		{"dB=doutᵀ·low/m512", 576, 8, 512, true, false},
		{"dA=dlowᵀ·x/m512", 8, 576, 512, true, false},
		{"dx=dlow·A/m512", 512, 576, 8, false, false},
		{"dW=dyᵀ·x/m512", 576, 1536, 512, true, false},
		{"x·Wᵀ/m512", 512, 1536, 576, false, true},
		{"dy·W/m512", 512, 576, 1536, false, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(3, 3))
			left, right := matrix{c.m, c.k, normals(r, c.m*c.k)}, matrix{c.k, c.n, normals(r, c.k*c.n)}
			if c.ta {
				left = left.transposed()
			}
			if c.tb {
				right = right.transposed()
			}
			x, y, out := put(b, d, left, 0), put(b, d, right, 0), put(b, d, matrix{c.m, c.n, make([]float32, c.m*c.n)}, 0)
			for b.Loop() {
				d.MatMul(out, x, y, kernels.Gemm{TransA: c.ta, TransB: c.tb, Alpha: 1})
			}
			report(b, 2*float64(c.m*c.n*c.k), 0)
		})
	}
}

func BenchmarkRoof(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads%d", threads), func(b *testing.B) {
			var flops, bytes float64
			for b.Loop() {
				flops, bytes = Roof(threads)
			}
			b.ReportMetric(flops*1e-9, "GFLOP/s")
			b.ReportMetric(bytes*1e-9, "GB/s")
		})
	}
}

// A tile whose operands are in the nearest caches.
func BenchmarkTile(b *testing.B) {
	d := New(1)
	defer d.Close()
	r := rand.New(rand.NewPCG(4, 4))
	const k = 576
	x, out := normals(r, tileRows*k), make([]float32, tileRows*lanes)
	for _, typ := range []kernels.DType{kernels.F32, kernels.BF16} {
		raw, _ := stored(typ, matrix{lanes, k, normals(r, lanes*k)})
		kw := d.Load(kernels.Format{Type: typ}, lanes, k, raw)
		w := weightOf("", kw)
		for _, rows := range []int{1, 2, 4, 8, 12, 14} {
			b.Run(fmt.Sprintf("%s/%d", typ, rows), func(b *testing.B) {
				a := tile{
					panel: w.at(0, 0), x: unsafe.Pointer(&x[0]), out: unsafe.Pointer(&out[0]), k: k, line: w.line,
					row: 4 * k, step: 4, outRow: lineF32, ahead: uintptr(w.at(0, 0)), mask: maskOf(lanes), alpha: 1,
				}
				for b.Loop() {
					if w.bf16 {
						a.bf16(rows)
					} else {
						a.f32(rows)
					}
				}
				report(b, 2*float64(rows*lanes*k), 0)
			})
		}
		d.Unload(kw)
	}
}

func BenchmarkLoad(b *testing.B) {
	d := New(0)
	defer d.Close()
	for _, typ := range weightTypes {
		raw := make([]byte, 8192*576*typ.Size())
		b.Run(typ.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				d.Unload(d.Load(kernels.Format{Type: typ}, 8192, 576, raw))
			}
		})
	}
}
