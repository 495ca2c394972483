package cpu

import (
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// Keys and values in bf16: their products are tiles of pairs. A row of k has its elements in pairs as it is. Of
// values, the rows of an even key and of the next one are laid beside each other, element by element.

var _ kernels.KeyRounder = (*Device)(nil)

// RoundsKeys is true.
func (d *Device) RoundsKeys() bool { return true }

// roundsTo reports whether rows of x can be put into out, rounded.
func roundsTo(out, x kernels.Tensor) bool { return out.Type == kernels.BF16 && x.Type == kernels.F32 }

// roundRow rounds as many elements of x as to has to bf16.
func roundRow(to []uint16, x []float32) {
	x = x[:len(to)]
	n := len(to) / 16
	if n > 0 {
		(&move{dst: unsafe.Pointer(&to[0]), src: unsafe.Pointer(&x[0]), n: n}).round()
	}
	for i := 16 * n; i < len(to); i++ { // round writes whole vectors
		to[i] = roundBits(math.Float32bits(x[i]))
	}
}

// narrow rounds x to bf16 in place: into its first half.
func narrow(x []float32) {
	if len(x) > 0 {
		p := unsafe.Pointer(&x[0])
		(&move{dst: p, src: p, n: len(x) / 16, mask: maskOf(len(x) % 16)}).round()
	}
}

// holdsKeys reports whether keys and values k and v can be attended to by heads of so many elements.
func holdsKeys(k, v kernels.Tensor, headDim int) bool {
	if k.Type != kernels.BF16 {
		return like(k, v)
	}
	even := func(t kernels.Tensor) bool { return (t.Off|t.Stride|t.Cols)%2 == 0 }
	return v.Type == k.Type && k.Rows == v.Rows && k.Cols == v.Cols && headDim%2 == 0 && even(k) && even(v)
}

// keysOf is the view of keys or values; one of BF16 has two elements in each of its own.
func keysOf(op string, t kernels.Tensor) view {
	if t.Type != kernels.BF16 {
		return viewOf(op, t)
	}
	s := halves(op, t)
	return view{unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(s))), len(s)/2), t.Stride / 2, t.Cols / 2}
}

// multiply computes a tile of keys or values.
func (t *attention) multiply(a *tile, rows int) {
	if t.pairs {
		a.pairs(rows)
		return
	}
	a.f32(rows)
}

// pairGo is the twin of pairRows: of 16 columns of 2·m.n rows of bf16, each two rows' elements beside each other.
func (m *move) pairGo() {
	for i := range m.n {
		for j := range 16 {
			v := uint32(0)
			if m.mask>>j&1 != 0 {
				at := unsafe.Add(m.src, 2*i*m.srcRow+2*j)
				v = uint32(*(*uint16)(at)) | uint32(*(*uint16)(unsafe.Add(at, m.srcRow)))<<16
			}
			*(*uint32)(unsafe.Add(m.dst, i*m.dstRow+4*j)) = v
		}
	}
}

// lay puts n pairs of rows of HeadDim bf16 elements, stride words apart, into lines of pairs.
func (t *attention) lay(lines, src []float32, stride, n int) {
	width := panelLines(t.HeadDim)
	_, _ = lines[n*width-1], src[(2*n-1)*stride+t.dim-1]
	for c := 0; c < t.HeadDim; c += 16 {
		(&move{dst: unsafe.Pointer(&lines[c]), src: unsafe.Pointer(&src[c/2]), n: n,
			srcRow: 4 * stride, dstRow: 4 * width, mask: maskOf(min(16, t.HeadDim-c))}).pair()
	}
}

// pairValues lays the rows of m of keys j … j+n-1, j being even, beside each other in pairs; the last key has a row of
// zeros beside it where n is odd. two is room for two rows.
func (p *piece) pairValues(lines, two []float32, m view, j, n int) {
	col, dim, width := p.kv*p.dim, p.dim, panelLines(p.HeadDim)
	for i := 0; i < n; {
		row, have := p.run(j + i)
		if pairs := min(have, n-i) / 2; pairs > 0 {
			p.lay(lines[i/2*width:], m.from(row, col), m.stride, pairs)
			i += 2 * pairs
			continue
		}
		copy(two[:dim], m.from(row, col))
		clear(two[dim : 2*dim])
		if i+1 < n {
			next, _ := p.run(j + i + 1)
			copy(two[dim:2*dim], m.from(next, col))
		}
		p.lay(lines[i/2*width:], two, dim, 1)
		i += 2
	}
}

// blendPairs is blend where v is of bf16 and rows of s were narrowed. space is that of dots.
func (p *piece) blendPairs(o, s []float32, m view, space []float32) {
	width := panelLines(p.HeadDim)
	lines, alone := space[:valueRun/2*width], space[valueRun/2*width:][:width]
	two := space[(valueRun/2+1)*width:]
	p.prefetch(m, p.from, lanes)
	for j := p.from; j < p.last; j += valueRun {
		n := min(valueRun, p.last-j)
		p.prefetch(m, j+lanes, n)
		p.pairValues(lines, two, m, j, n)
		for r := 0; r < p.rows; r = p.tile(r) {
			end := p.tile(r)
			whole := max(0, min(n, p.keys(r)-j)) / 2 // pairs that every row of the tile sees
			p.weighPairs(o, s[j/2:], lines, r, end, whole)
			for i := whole; 2*i < n; i++ {
				first := max(r, (j+2*i+1-p.keys0)*p.per) // that sees the even key, and both
				both := max(r, (j+2*i+2-p.keys0)*p.per)
				if first >= end {
					break
				}
				if first < both {
					evens(alone, lines[i*width:])
					p.weighPairs(o, s[j/2+i:], alone, first, min(both, end), 1)
				}
				p.weighPairs(o, s[j/2+i:], lines[i*width:], both, end, 1)
			}
		}
	}
}

// evens is a line of pairs with zeros for the odd elements.
func evens(to, line []float32) {
	for i, v := range line[:len(to)] {
		to[i] = math.Float32frombits(math.Float32bits(v) & 0xffff)
	}
}

// weighPairs is weigh with lines of n pairs.
func (p *piece) weighPairs(o, s, lines []float32, lo, hi, n int) {
	hd, width := p.HeadDim, panelLines(p.HeadDim)
	if n <= 0 || lo >= hi {
		return
	}
	_, _, _ = o[hi*hd-1], s[(hi-1)*p.ss+n-1], lines[n*width-1]
	t := tile{k: n, line: 4 * width, row: 4 * p.ss, step: 4, outRow: 4 * hd, start: 1, alpha: 1}
	for l := 0; l < hd; l += lanes {
		t.panel, t.mask = unsafe.Pointer(&lines[l]), maskOf(hd-l)
		for r := lo; r < hi; {
			end := min(p.tile(r), hi)
			t.x, t.out = unsafe.Pointer(&s[r*p.ss]), unsafe.Pointer(&o[r*hd+l])
			p.feed.take(&t, n)
			t.pairs(end - r)
			r = end
		}
	}
}
