package cpu

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// What is written is read, through views too, and nothing beside them changes.
func TestWriteReadCopyFill(t *testing.T) {
	d := New(2)
	defer d.Close()
	r := rand.New(rand.NewPCG(1, 1))
	m := random(r, 5, 7)
	a, b := put(t, d, m, 2), put(t, d, nans(5, 7), 1)
	wantBits(t, "Write", get(t, d, a), m)
	d.Copy(b, a)
	wantBits(t, "Copy", get(t, d, b), m)
	d.Fill(b, 3)
	three := matrix{5, 7, make([]float32, 35)}
	for i := range three.v {
		three.v[i] = 3
	}
	wantBits(t, "Fill", get(t, d, b), three)

	ids := d.New(kernels.I32, 4, 3)
	want := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	d.Write(ids.Slice(1, 1).Columns(1, 2), want)
	all := make([]byte, 48)
	if err := d.Read(all, ids); err != nil || !bytes.Equal(all[16:24], want) || bytes.Count(all, []byte{0}) != 40 {
		t.Errorf("i32: %v, %v", all, err)
	}
	if v := ints("", ids)[4]; uint32(v) != binary.LittleEndian.Uint32(want) {
		t.Errorf("element (1, 1) is %x", v)
	}
}

// Tensors begin as zeros at a cache line, also in memory that was used before.
func TestNewIsZero(t *testing.T) {
	d := New(1)
	for _, n := range []int{0, 1, 1000, 300000, 1 << 20} {
		for range 3 {
			x := d.New(kernels.F32, n, 1)
			s := floats("", x)
			for i, v := range s {
				if v != 0 {
					t.Fatalf("element %d of %d is %v", i, n, v)
				}
			}
			d.Fill(x, 1)
			d.Free(x)
		}
	}
}

// resident is the bytes of memory that the process holds.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("needs /proc/self/statm: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// Freed and unloaded memory goes back to the system.
func TestMemoryIsReturned(t *testing.T) {
	d := New(1)
	const size = 64 << 20
	raw := make([]byte, size)
	before := resident(t)
	x := d.New(kernels.F32, size/4/100, 100)
	d.Fill(x, 1)
	w := d.Load(kernels.Format{Type: kernels.BF16}, size/2/64, 64, raw)
	if held := resident(t) - before; held < 2*size*9/10 {
		t.Fatalf("%d MB are held after filling %d", held>>20, 2*size>>20)
	}
	d.Free(x)
	d.Unload(w)
	if held := resident(t) - before; held > size/4 {
		t.Errorf("%d MB are still held", held>>20)
	}
}

// Weights that share a mapping are each their own, whatever is unloaded before them, and the last of a mapping
// takes it along.
func TestWeightsShareMemory(t *testing.T) {
	d := New(1)
	r := rand.New(rand.NewPCG(2, 2))
	const rows, cols, n = 100, 600, 400 // 240 KB each, 96 MB together
	fresh := func() (kernels.Weight, []byte) {
		raw := make([]byte, 4*rows*cols)
		for i := 0; i < len(raw); i += 4 {
			binary.LittleEndian.PutUint32(raw[i:], math.Float32bits(r.Float32()+1))
		}
		w := d.Load(kernels.Format{Type: kernels.F32}, rows, cols, raw)
		return w, bytes.Clone(d.Packed(w))
	}
	before := resident(t)
	ws, want := make([]kernels.Weight, n), make([][]byte, n)
	for i := range ws {
		ws[i], want[i] = fresh()
	}
	for range 3 {
		for _, i := range r.Perm(n)[:n/2] {
			d.Unload(ws[i])
			ws[i], want[i] = fresh()
		}
		for i := range ws {
			if !bytes.Equal(d.Packed(ws[i]), want[i]) {
				t.Fatalf("weight %d changed", i)
			}
		}
	}
	want = nil
	for _, i := range r.Perm(n) {
		d.Unload(ws[i])
	}
	debug.FreeOSMemory()
	if held := resident(t) - before; held > 24<<20 {
		t.Errorf("%d MB are still held", held>>20)
	}
}

// Misuse is a bug and panics with what was wrong.
func TestMisusePanics(t *testing.T) {
	d := New(1)
	x, y := d.New(kernels.F32, 2, 3), d.New(kernels.F32, 4, 5)
	ids, gone := d.New(kernels.I32, 2, 1), d.New(kernels.F32, 1, 1)
	d.Free(gone)
	w := d.Load(kernels.Format{Type: kernels.F32}, 5, 3, make([]byte, 60))
	for what, f := range map[string]func(){
		"not f16":       func() { d.New(kernels.F16, 1, 1) },
		"that has no":   func() { d.Fill(gone, 1) },
		"needs an f32":  func() { d.Fill(ids, 1) },
		"needs an i32":  func() { d.Embed(x, w, d.New(kernels.F32, 2, 1)) },
		"out 2x3, x 4x": func() { d.Linear(x, y, w, kernels.Tensor{}) },
		"dx 2x3, dout":  func() { d.LinearGrad(x, y, w) },
		"c 2x3, a 4x5":  func() { d.MatMul(x, y, y, kernels.Gemm{Alpha: 1}) },
		"Accumulate":    func() { d.MatMul(d.New(kernels.F32, 2, 2), x, x, kernels.Gemm{TransB: true, Accumulate: true}) },
		"hold 5 rows":   func() { d.Load(kernels.Format{Type: kernels.F32}, 6, 3, make([]byte, 60)) },
		"not whole":     func() { d.Load(kernels.Format{Type: kernels.F32}, 5, 3, make([]byte, 59)) },
		"a view of":     func() { d.Fill(x.Slice(1, 2), 0) },
		"24 bytes":      func() { d.Write(y, make([]byte, 24)) },
		"2x3 f32 to":    func() { d.Copy(y, x) },
	} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.Contains(s, what) {
					t.Errorf("panic %q", s)
				}
			}()
			f()
			t.Error("no panic")
		})
	}
}

func TestThreads(t *testing.T) {
	t.Setenv("R2_THREADS", "3")
	if n := New(0).Threads(); n != 3 {
		t.Errorf("R2_THREADS=3 gives %d threads", n)
	}
	if n := New(2).Threads(); n != 2 {
		t.Errorf("New(2) gives %d threads", n)
	}
}
