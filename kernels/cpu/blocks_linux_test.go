package cpu

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// threadTime is the processor time of this thread, in seconds: what other work on the machine takes does not count.
func threadTime() float64 {
	var u syscall.Rusage
	const thread = 1
	if err := syscall.Getrusage(thread, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) * 1e-9
}

// timed reports what one call of f takes of this thread.
func timed(b *testing.B, f func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	for b.Loop() {
		f()
	}
	return (threadTime() - start) / float64(b.N)
}

// A stack is the matrices of a model: those of a layer, and the head.
type stack struct {
	name   string
	layers int
	layer  [4][2]int // outputs, inputs
	head   [2]int
}

// All products of a forward pass over rounded rows and matrices that together fit no cache: on one
// thread by its processor time, and on two by the clock.
func BenchmarkPass(b *testing.B) {
	for _, s := range []stack{
		{"SmolLM2-135M", 30, [4][2]int{{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}, [2]int{49152, 576}},
		{"Qwen2-0.5B", 24, [4][2]int{{1152, 896}, {896, 896}, {9728, 896}, {896, 4864}}, [2]int{151936, 896}},
	} {
		b.Run(s.name+"/bf16", func(b *testing.B) { pass(b, s, kernels.Format{Type: kernels.BF16, Acts: kernels.BF16}) })
		for _, typ := range blockTypes {
			b.Run(s.name+"/"+typ.String(), func(b *testing.B) { pass(b, s, kernels.Format{Type: typ, Acts: kernels.I8}) })
		}
	}
}

func pass(b *testing.B, s stack, f kernels.Format) {
	d, two := New(1), New(2)
	defer d.Close()
	defer two.Close()
	var ws []kernels.Weight
	r := rand.New(rand.NewPCG(1, 1))
	load := func(n, rows, cols int) {
		raw := randomBlocks(r, f.Type, rows, cols/kernels.BlockLen)
		if !f.Type.Blocks() {
			raw, _ = stored(f.Type, matrix{rows, cols, normals(r, rows*cols)})
		}
		for range n {
			ws = append(ws, d.Load(f, rows, cols, raw))
		}
	}
	widest := 0
	for _, m := range s.layer {
		load(s.layers, m[0], m[1])
		widest = max(widest, m[1])
	}
	load(1, s.head[0], s.head[1])
	for _, m := range []int{1, 4, 16, 64, 512} {
		x, outs := f32(d, normals(r, m*widest), widest), map[int]kernels.Tensor{}
		for _, w := range ws {
			if outs[w.Rows].Zero() {
				outs[w.Rows] = d.New(kernels.F32, m, w.Rows)
				d.Fill(outs[w.Rows], 0) // the system finds the pages now
			}
		}
		used := ws
		if m > 64 { // long prompts have one row of logits
			used = ws[:len(ws)-1]
		}
		bytes, ops := 0.0, 0.0
		for _, w := range used {
			bytes += float64(w.Rows * f.Type.Bytes(w.Cols))
			ops += 2 * float64(m*w.Rows*w.Cols)
		}
		pass := func(d *Device) {
			for _, w := range used {
				d.Linear(outs[w.Rows], x.Columns(0, w.Cols), w, kernels.Tensor{})
			}
		}
		b.Run(fmt.Sprintf("m%d/cpu", m), func(b *testing.B) {
			s := timed(b, func() { pass(d) })
			b.ReportMetric(s*1e3, "cpu-ms")
			b.ReportMetric(bytes/s*1e-9, "GB/s")
			b.ReportMetric(ops/s*1e-9, "GOP/s")
		})
		b.Run(fmt.Sprintf("m%d/threads2", m), func(b *testing.B) {
			for b.Loop() {
				pass(two)
			}
			report(b, ops, bytes)
		})
		for _, out := range outs {
			d.Free(out)
		}
	}
	for _, w := range ws {
		d.Unload(w)
	}
}

// A panel's blocks and their rows, in the nearest caches, in every form: what one block of 32 x 32 takes a row.
func BenchmarkBlocks(b *testing.B) {
	const n = 18
	r := rand.New(rand.NewPCG(1, 1))
	d := New(1)
	defer d.Close()
	for _, form := range append(forms(), form{"go", inGo}) {
		for _, typ := range blockTypes {
			w := d.Load(kernels.Format{Type: typ, Acts: kernels.I8}, lanes, n*kernels.BlockLen, randomBlocks(r, typ, lanes, n)).Buf.(*weight)
			for _, m := range []int{1, 4, 16} {
				x, sums, records := normals(r, n*kernels.BlockLen), make([]float32, m*lanes), make([]record, n*m)
				for i := range m {
					(&move{dst: unsafe.Pointer(&records[i]), src: unsafe.Pointer(&x[0]), n: n, dstRow: m * recordSize}).roundBlocks()
				}
				t := blockTile{panel: w.at(0, 0), x: unsafe.Pointer(&records[0]), sums: unsafe.Pointer(&sums[0]), blocks: n, rows: m,
					xBlock: m * recordSize, out: unsafe.Pointer(&sums[0]), outRow: lineF32, ahead: uintptr(w.at(0, 0))}
				b.Run(fmt.Sprintf("%s/%v/m%d", form.name, typ, m), func(b *testing.B) {
					form.run(func() {
						b.ReportMetric(timed(b, func() { t.dots(w) })*1e9/float64(m*n), "ns/block")
					})
				})
			}
		}
	}
}
