package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// nearest is the bf16 nearest to v, ties to even, found among its two neighbours.
func nearest(v float32) uint16 {
	b := math.Float32bits(v)
	low, high := math.Float32frombits(b&0xffff0000), math.Float32frombits(b&0xffff0000+0x10000)
	down, up := math.Abs(float64(v)-float64(low)), math.Abs(float64(high)-float64(v))
	if up < down || up == down && b>>16&1 == 1 {
		return uint16(b>>16) + 1
	}
	return uint16(b >> 16)
}

// Keys and values are rounded on their way into the cache, at any width, and copied as they are within it.
func TestRoundedRows(t *testing.T) { both(t, roundedRows) }

func roundedRows(t *testing.T) {
	r := rand.New(rand.NewPCG(81, 1))
	for _, cols := range []int{2, 14, 16, 18, 64, 130} {
		d := New(2)
		x := random(r, 5, cols)
		copy(x.v, []float32{1 + 0x1p-8, 1 + 3*0x1p-8}) // ties
		from := put(t, d, x, 1)
		copied, cache, again := d.New(kernels.BF16, 5, cols), d.New(kernels.BF16, 7, cols), d.New(kernels.BF16, 3, cols)
		d.Copy(copied, from)
		d.Scatter(cache, from, i32(d, 1, 6, -1, 0, 2, 3))
		d.Gather(again, cache, i32(d, 1, 3, 6, 1))
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		rows := func(v kernels.Tensor, row int) []uint16 { return halves("", v)[row*v.Stride:][:v.Cols] }
		for i := range 5 {
			for j := range cols {
				want := nearest(x.at(i, j))
				if got := rows(copied, i)[j]; got != want {
					t.Errorf("%d columns: %v is copied as %#04x, want %#04x", cols, x.at(i, j), got, want)
				}
				if to := []int{6, -1, 0, 2, 3}[i]; to >= 0 && rows(cache, to)[j] != want {
					t.Errorf("%d columns: %v is scattered as %#04x, want %#04x", cols, x.at(i, j), rows(cache, to)[j], want)
				}
			}
		}
		for i, from := range []int{3, 6, 1} {
			if fmt.Sprint(rows(again, i)) != fmt.Sprint(rows(cache, from)) {
				t.Errorf("%d columns: row %d is %v, want row %d of the cache, %v", cols, i, rows(again, i), from, rows(cache, from))
			}
		}
		for _, v := range append(rows(cache, 1), append(rows(cache, 4), rows(cache, 5)...)...) {
			if v != 0 {
				t.Fatalf("%d columns: a row that nothing was put into is %v", cols, v)
			}
		}
		d.Close()
	}
}

// Rows of bf16 beside each other, and nothing of what no mask names.
func TestPairRows(t *testing.T) {
	both(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(82, 1))
		const stride, line = 24, 20 // four bytes each
		for _, n := range []int{1, 2, 7} {
			for _, cols := range []int{1, 5, 16} {
				src, dst := make([]uint16, 2*n*2*stride), make([]uint32, n*line)
				for i := range src {
					src[i] = uint16(r.Uint32())
				}
				m := move{dst: unsafe.Pointer(&dst[0]), src: unsafe.Pointer(&src[0]), n: n, srcRow: 4 * stride, dstRow: 4 * line, mask: maskOf(cols)}
				m.pair()
				for i, got := range dst {
					want, row, c := uint32(0), i/line, i%line
					if c < cols {
						want = uint32(src[2*row*2*stride+c]) | uint32(src[(2*row+1)*2*stride+c])<<16
					}
					if got != want {
						t.Fatalf("%d pairs of %d columns: word %d of line %d is %#x, want %#x", n, cols, c, row, got, want)
					}
				}
			}
		}
	})
}

// pairOf is two elements, rounded, as a product of pairs takes them.
func pairOf(even, odd float32) uint32 {
	return uint32(roundBits(math.Float32bits(even))) | uint32(roundBits(math.Float32bits(odd)))<<16
}

// Attention with keys and values in bf16 is its definition, term by term: sums take pairs of elements and pairs of keys.
func TestRoundedAttentionIsOneChain(t *testing.T) { both(t, roundedAttentionIsOneChain) }

func roundedAttentionIsOneChain(t *testing.T) {
	r := rand.New(rand.NewPCG(83, 1))
	for i, h := range headsCases {
		if h.dim%2 > 0 {
			continue
		}
		for _, n := range []int{1, 2, 17, 70} {
			d := New(1 + i%2)
			s, wide, narrow := h.sequence(r, n), h.heads*h.dim, h.kv*h.dim
			k, v, out := d.New(kernels.BF16, n, narrow), d.New(kernels.BF16, n, narrow), f32(d, make([]float32, n*wide), wide)
			d.Copy(k, f32(d, s.k, narrow))
			d.Copy(v, f32(d, s.v, narrow))
			a := h.attn()
			a.Starts, a.Lengths, a.MaxQueries = i32(d, 1, 0, int32(n)), i32(d, 1, int32(n)), n
			d.Attention(out, kernels.Tensor{}, f32(d, s.q, wide), k, v, a)
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			sameBits(t, fmt.Sprint(h, n), flat(out), h.pairChain(s, n))
			d.Close()
		}
	}
}

func (h headsCase) pairChain(s tokens, n int) (out []float32) {
	for i := range n {
		for head := range h.heads {
			kv, q, p := head*h.kv/h.heads, s.q[(i*h.heads+head)*h.dim:], make([]float32, i+1, i+2)
			for j := range p {
				for c := 0; c < h.dim; c += 2 {
					k := s.k[(j*h.kv+kv)*h.dim:]
					p[j] = pairSum(p[j], pairOf(q[c], q[c+1]), pairOf(k[c], k[c+1]))
				}
			}
			by := 1 / softmax(p, p, h.attn().Scale, maxScaled(p, nil, h.attn().Scale))
			p = p[:(i+2)&^1]
			for c := range h.dim {
				sum := float32(0)
				for j := 0; j < len(p); j += 2 {
					odd := float32(0)
					if j < i {
						odd = s.v[((j+1)*h.kv+kv)*h.dim+c]
					}
					sum = pairSum(sum, pairOf(p[j], p[j+1]), pairOf(s.v[(j*h.kv+kv)*h.dim+c], odd))
				}
				out = append(out, sum*by)
			}
		}
	}
	return out
}
