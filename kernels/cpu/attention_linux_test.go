package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// Attention and its gradient read and write nothing before or behind their operands.
func TestAttentionStaysInside(t *testing.T) {
	both(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(rand.Uint64(), 15))
		d := New(2)
		defer d.Close()
		for _, h := range headsCases {
			const n, size = 21, 3
			wide, narrow, a := h.heads*h.dim, h.kv*h.dim, h.attn()
			a.Starts, a.Lengths, a.MaxQueries = i32(d, 1, 0, n), i32(d, 1, n), n
			for _, end := range []bool{false, true} {
				in := func(cols int) kernels.Tensor { return fenced(t, random(r, n, cols), end) }
				q, k, v, out, lse := in(wide), in(narrow), in(narrow), in(wide), in(h.heads)
				d.Attention(out, lse, q, k, v, a)
				d.AttentionGrad(in(wide), in(narrow), in(narrow), in(wide), out, lse, q, k, v, a)
				paged, want := a, flat(out)
				paged.Pages, paged.PageSize = i32(d, n/size, 0, 1, 2, 3, 4, 5, 6), size
				d.Attention(out, kernels.Tensor{}, q, k, v, paged)
				sameBits(t, fmt.Sprint(h), flat(out), want)
				if h.dim%4 == 0 {
					k, v = halved(in(narrow/2)), halved(in(narrow/2))
					d.Attention(out, lse, q, k, v, a)
					d.Attention(out, kernels.Tensor{}, q, k, v, paged)
				}
			}
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
	})
}

// halved is t's memory as twice as many bf16.
func halved(t kernels.Tensor) kernels.Tensor {
	s := t.Buf.(*buffer).f
	h := unsafe.Slice((*uint16)(unsafe.Pointer(&s[0])), 2*len(s))
	return kernels.Tensor{Buf: &buffer{h: h}, Off: 2 * t.Off, Rows: t.Rows, Cols: 2 * t.Cols, Stride: 2 * t.Stride, Type: kernels.BF16}
}
