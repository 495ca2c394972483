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

// All products of a forward pass of SmolLM2-135M over matrices in blocks, which together fit no cache: on one
// thread by its processor time, and on two by the clock.
func BenchmarkBlocksPass(b *testing.B) {
	const layers = 30
	for _, typ := range blockTypes {
		d := New(1)
		two := New(2)
		var ws []kernels.Weight
		r := rand.New(rand.NewPCG(1, 1))
		bytes, ops := 0.0, 0.0
		load := func(rows, cols int) {
			ws = append(ws, d.Load(kernels.Format{Type: typ, Acts: kernels.I8}, rows, cols, randomBlocks(r, typ, rows, cols/kernels.BlockLen)))
			bytes += float64(rows * typ.Bytes(cols))
			ops += 2 * float64(rows*cols)
		}
		for range layers {
			for _, s := range [][2]int{{960, 576}, {576, 576}, {3072, 576}, {576, 1536}} {
				load(s[0], s[1])
			}
		}
		load(49152, 576)
		for _, m := range []int{1, 4, 16, 64} {
			x, out := f32(d, normals(r, m*1536), 1536), f32(d, make([]float32, m*49152), 49152)
			pass := func(d *Device) {
				for _, w := range ws {
					d.Linear(out.Columns(0, w.Rows), x.Columns(0, w.Cols), w, kernels.Tensor{})
				}
			}
			b.Run(fmt.Sprintf("%v/m%d/cpu", typ, m), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := threadTime()
				for b.Loop() {
					pass(d)
				}
				s := (threadTime() - start) / float64(b.N)
				b.ReportMetric(s*1e3, "cpu-ms")
				b.ReportMetric(bytes/s*1e-9, "GB/s")
				b.ReportMetric(ops*float64(m)/s*1e-9, "GOP/s")
			})
			b.Run(fmt.Sprintf("%v/m%d/threads2", typ, m), func(b *testing.B) {
				for b.Loop() {
					pass(two)
				}
				report(b, ops*float64(m), bytes)
			})
		}
		for _, w := range ws {
			d.Unload(w)
		}
		d.Close()
		two.Close()
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
					xBlock: m * recordSize, ahead: uintptr(w.at(0, 0))}
				b.Run(fmt.Sprintf("%s/%v/m%d", form.name, typ, m), func(b *testing.B) {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					form.run(func() {
						start := threadTime()
						for b.Loop() {
							t.dots(w)
						}
						b.ReportMetric((threadTime()-start)*1e9/float64(b.N*m*n), "ns/block")
					})
				})
			}
		}
	}
}
