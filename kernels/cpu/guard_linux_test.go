package cpu

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// fenced makes m a tensor that begins or ends at a page which nobody may touch: an access beyond it
// ends the test binary.
func fenced(t *testing.T, m matrix, atEnd bool) kernels.Tensor {
	t.Helper()
	page := os.Getpagesize()
	inner := ceilDiv(4*len(m.v), page) * page
	b, err := syscall.Mmap(-1, 0, inner+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	for _, fence := range [][]byte{b[:page], b[page+inner:]} {
		if err := syscall.Mprotect(fence, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if atEnd {
		at += inner - 4*len(m.v)
	}
	s := unsafe.Slice((*float32)(unsafe.Pointer(&b[at])), len(m.v))
	copy(s, m.v)
	return kernels.Tensor{Buf: &buffer{f: s}, Rows: m.rows, Cols: m.cols, Stride: m.cols}
}

// No product reads or writes before or behind its operands, whatever the shape.
func TestProductsStayInside(t *testing.T) {
	both(t, func(t *testing.T) {
		d := New(2)
		defer d.Close()
		r := rand.New(rand.NewPCG(21, 1))
		for i, s := range [][3]int{{1, 1, 1}, {1, 7, 3}, {15, 33, 17}, {29, 8, 31}, {3, 40, 16}, {57, 17, 45}} {
			m, n, k := s[0], s[1], s[2]
			x, w, dout := random(r, m, k), random(r, n, k), random(r, m, n)
			for _, end := range []bool{false, true} {
				fx, fd := fenced(t, x, end), fenced(t, dout, end)
				frozen, values := load(t, d, weightTypes[i%3], w)
				out, dx := fenced(t, nans(m, n), end), fenced(t, x, end)
				d.Linear(out, fx, frozen, fenced(t, random(r, 1, n), end))
				d.LinearGrad(dx, fd, frozen)
				dx.Buf = &buffer{f: append([]float32(nil), dx.Buf.(*buffer).f...)}
				wantBits(t, "LinearGrad", get(t, d, dx), chain(dout, values.transposed(), x, 1, nil))
				for mode := range 4 {
					g := kernels.Gemm{TransA: mode&1 != 0, TransB: mode&2 != 0, Alpha: 1}
					left, right := x, w
					if g.TransA {
						left = x.transposed()
					}
					if !g.TransB {
						right = w.transposed()
					}
					d.MatMul(out, fenced(t, left, end), fenced(t, right, end), g)
					wantBits(t, fmt.Sprint(s, g.TransA, g.TransB), get(t, d, out), chain(x, w, matrix{}, 1, nil))
				}
			}
		}
	})
}
