package cpu

import (
	"fmt"
	"unsafe"
)

// lines is the product c[r][l] = Σ x[r·xs + i·xk]·w[i·ws + l], i ascending, one fused multiply-add each,
// onto what c holds if add is set and else from 0. Attention is made of it: w is a panel of transposed
// keys, or rows of keys, values or queries as they lie. Strides are in elements.
type lines struct {
	c, x, w        []float32
	cs, xs, xk, ws int
	add            bool
}

// run computes rows × n elements that are sums of k terms.
func (p *lines) run(rows, n, k int) {
	if rows <= 0 || n <= 0 || k <= 0 {
		return
	}
	p.check(rows, n, k)
	t := tile{k: k, line: 4 * p.ws, row: 4 * p.xs, step: 4 * p.xk, outRow: 4 * p.cs, alpha: 1}
	if p.add {
		t.start = 1
	}
	for r := 0; r < rows; r += tileRows {
		t.x = unsafe.Pointer(&p.x[r*p.xs])
		for l := 0; l < n; l += lanes {
			t.panel, t.out, t.mask = unsafe.Pointer(&p.w[l]), unsafe.Pointer(&p.c[r*p.cs+l]), maskOf(n-l)
			t.ahead = uintptr(t.panel)
			t.f32(min(tileRows, rows-r))
		}
	}
}

// check panics where the product would leave its slices: the assembly does not look.
func (p *lines) check(rows, n, k int) {
	c, x, w := (rows-1)*p.cs+n, (rows-1)*p.xs+(k-1)*p.xk+1, (k-1)*p.ws+n
	if c > len(p.c) || x > len(p.x) || w > len(p.w) || p.cs < 0 || p.xs < 0 || p.xk < 0 || p.ws < 0 {
		panic(fmt.Sprintf("cpu: a product of %d x %d sums of %d needs %d, %d and %d elements, got %d, %d and %d",
			rows, n, k, c, x, w, len(p.c), len(p.x), len(p.w)))
	}
}
