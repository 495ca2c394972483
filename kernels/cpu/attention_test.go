package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

var nan = float32(math.NaN())

// heads is a shape of attention and the tokens of some sequences.
type headsCase struct{ heads, kv, dim int }

var headsCases = []headsCase{{9, 3, 64}, {4, 4, 24}, {6, 1, 16}, {2, 2, 7}, {14, 2, 64}, {16, 1, 40}}

func (h headsCase) attn() kernels.Attn {
	return kernels.Attn{Heads: h.heads, KVHeads: h.kv, HeadDim: h.dim, Scale: float32(1 / math.Sqrt(float64(h.dim)))}
}

// f32 puts the values of s into a view with other columns, all NaN, around it.
func f32(d *Device, s []float32, cols int) kernels.Tensor {
	rows := len(s) / cols
	t := d.New(kernels.F32, rows+2, cols+5)
	d.Fill(t, nan)
	v := t.Slice(1, rows).Columns(3, cols)
	for i := range rows {
		copy(viewOf("test", v).row(i), s[i*cols:][:cols])
	}
	return v
}

func i32(d *Device, cols int, s ...int32) kernels.Tensor {
	t := d.New(kernels.I32, len(s)/cols, cols)
	copy(ints("test", t), s)
	return t
}

// flat is the elements of an F32 tensor.
func flat(t kernels.Tensor) []float32 {
	var s []float32
	v := viewOf("test", t)
	for i := range t.Rows {
		s = append(s, v.row(i)...)
	}
	return s
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: number %d of %d is %v, want the bits of %v", what, i, len(got), got[i], want[i])
		}
	}
}

// near checks |got - want| ≤ tol·(|want| + size).
func near(t *testing.T, what string, got []float32, want []float64, tol, size float64) float64 {
	t.Helper()
	worst := 0.0
	for i := range want {
		e := math.Abs(float64(got[i])-want[i]) / (math.Abs(want[i]) + size)
		if worst = max(worst, e); !(e <= tol) {
			t.Fatalf("%s: number %d is %v, want %v (error %.3g of at most %.3g)", what, i, got[i], want[i], e, tol)
		}
	}
	return worst
}

// A tokens is the q, k and v of one sequence.
type tokens struct{ q, k, v []float32 }

func (h headsCase) sequence(r *rand.Rand, n int) tokens {
	return tokens{normals(r, n*h.heads*h.dim), normals(r, n*h.kv*h.dim), normals(r, n*h.kv*h.dim)}
}

// own runs attention of whole sequences over their own rows, and gives out and lse.
func (h headsCase) own(t *testing.T, d *Device, seqs ...tokens) (out, lse []float32) {
	t.Helper()
	var q, k, v []float32
	a, starts, lengths := h.attn(), []int32{0}, []int32(nil)
	for _, s := range seqs {
		q, k, v = append(q, s.q...), append(k, s.k...), append(v, s.v...)
		n := int32(len(s.q) / (h.heads * h.dim))
		starts, lengths = append(starts, starts[len(starts)-1]+n), append(lengths, n)
		a.MaxQueries = max(a.MaxQueries, int(n))
	}
	a.Starts, a.Lengths = i32(d, 1, starts...), i32(d, 1, lengths...)
	rows := int(starts[len(starts)-1])
	o, l := f32(d, make([]float32, len(q)), h.heads*h.dim), f32(d, make([]float32, rows*h.heads), h.heads)
	d.Attention(o, l, f32(d, q, h.heads*h.dim), f32(d, k, h.kv*h.dim), f32(d, v, h.kv*h.dim), a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return flat(o), flat(l)
}

// exact is attention in float64: out, lse and the probabilities of each row and head.
func (h headsCase) exact(s tokens) (out, lse []float64, probs [][]float64) {
	n, g := len(s.q)/(h.heads*h.dim), h.heads/h.kv
	for i := range n {
		for head := range h.heads {
			q, p, most := s.q[(i*h.heads+head)*h.dim:][:h.dim], make([]float64, i+1), math.Inf(-1)
			for j := range p {
				for c, x := range s.k[(j*h.kv+head/g)*h.dim:][:h.dim] {
					p[j] += float64(q[c]) * float64(x)
				}
				p[j] *= float64(h.attn().Scale)
				most = max(most, p[j])
			}
			sum := 0.0
			for j := range p {
				sum += math.Exp(p[j] - most)
			}
			lse = append(lse, most+math.Log(sum))
			o := make([]float64, h.dim)
			for j := range p {
				p[j] = math.Exp(p[j]-most) / sum
				for c := range o {
					o[c] += p[j] * float64(s.v[(j*h.kv+head/g)*h.dim+c])
				}
			}
			out, probs = append(out, o...), append(probs, p)
		}
	}
	return out, lse, probs
}

func TestAttentionIsSoftmax(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	d := New(2)
	worst := 0.0
	for _, h := range headsCases {
		for _, n := range []int{1, 2, 17, 100} {
			s := h.sequence(r, n)
			out, lse := h.own(t, d, s)
			wantOut, wantLSE, _ := h.exact(s)
			worst = max(worst, near(t, fmt.Sprint(h, n, " out"), out, wantOut, 3e-6, 1))
			worst = max(worst, near(t, fmt.Sprint(h, n, " lse"), lse, wantLSE, 1e-6, 1))
		}
	}
	t.Logf("worst error %.2g", worst)
}

// A cache holds the keys and values of sequences in pages of rows that are NaN until they are written.
type cache struct {
	k, v  kernels.Tensor
	size  int
	pages [][]int32 // of each sequence
	most  int
}

func (h headsCase) newCache(d *Device, r *rand.Rand, size int, lengths []int) *cache {
	total, c := 0, &cache{size: size}
	for _, n := range lengths {
		c.most = max(c.most, ceilDiv(n, size))
		total += ceilDiv(n, size)
	}
	c.k, c.v = d.New(kernels.F32, (total+2)*size, h.kv*h.dim), d.New(kernels.F32, (total+2)*size, h.kv*h.dim)
	d.Fill(c.k, nan)
	d.Fill(c.v, nan)
	order := r.Perm(total + 2)
	for _, n := range lengths {
		var p []int32
		for range ceilDiv(n, size) {
			p, order = append(p, int32(order[0])), order[1:]
		}
		c.pages = append(c.pages, p)
	}
	return c
}

// steps feeds the sequences to a cache, tokens chunk at a time, all that have tokens left side by side, and
// gives the out and lse of each.
func (h headsCase) steps(t *testing.T, d *Device, r *rand.Rand, size, chunk int, seqs []tokens) (outs, lses [][]float32) {
	t.Helper()
	var lengths []int
	for _, s := range seqs {
		lengths = append(lengths, len(s.k)/(h.kv*h.dim))
	}
	c := h.newCache(d, r, size, lengths)
	outs, lses = make([][]float32, len(seqs)), make([][]float32, len(seqs))
	for done := 0; ; done += chunk {
		var who []int
		var q []float32
		var pages []int32
		a, starts, seen := h.attn(), []int32{0}, []int32(nil)
		for s := range seqs {
			n := min(chunk, lengths[s]-done)
			if n <= 0 {
				continue
			}
			who, q = append(who, s), append(q, seqs[s].q[done*h.heads*h.dim:][:n*h.heads*h.dim]...)
			starts, seen = append(starts, starts[len(starts)-1]+int32(n)), append(seen, int32(done+n))
			pages = append(append(pages, c.pages[s]...), make([]int32, c.most-len(c.pages[s]))...)
			for j := done; j < done+n; j++ {
				row := int(c.pages[s][j/size])*size + j%size
				copy(viewOf("test", c.k).row(row), seqs[s].k[j*h.kv*h.dim:])
				copy(viewOf("test", c.v).row(row), seqs[s].v[j*h.kv*h.dim:])
			}
		}
		if who == nil {
			return outs, lses
		}
		a.Starts, a.Lengths, a.Pages, a.PageSize = i32(d, 1, starts...), i32(d, 1, seen...), i32(d, c.most, pages...), size
		a.MaxQueries = chunk
		out, lse := f32(d, make([]float32, len(q)), h.heads*h.dim), f32(d, make([]float32, len(q)/h.dim), h.heads)
		d.Attention(out, lse, f32(d, q, h.heads*h.dim), c.k, c.v, a)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		o, l := flat(out), flat(lse)
		for i, s := range who {
			n := int(starts[i+1] - starts[i])
			outs[s], o = append(outs[s], o[:n*h.heads*h.dim]...), o[n*h.heads*h.dim:]
			lses[s], l = append(lses[s], l[:n*h.heads]...), l[n*h.heads:]
		}
	}
}

// A token's attention has the same bits alone and in a batch, over its own rows and through pages, however
// the prompt is cut, on any number of threads.
func TestAttentionOneRowOneAnswer(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	for _, h := range headsCases {
		one := New(1)
		var seqs []tokens
		var outs, lses [][]float32
		for _, n := range []int{40, 1, 33, 97, 16} {
			s := h.sequence(r, n)
			out, lse := h.own(t, one, s)
			seqs, outs, lses = append(seqs, s), append(outs, out), append(lses, lse)
		}
		for _, threads := range []int{1, 2, 3} {
			d := New(threads)
			out, lse := h.own(t, d, seqs...)
			sameBits(t, fmt.Sprint(h, " batch, out"), out, join(outs))
			sameBits(t, fmt.Sprint(h, " batch, lse"), lse, join(lses))
			for _, chunk := range []int{1, 3, 16, 97} {
				size := []int{1, 3, 16, 32}[r.IntN(4)]
				gotOut, gotLSE := h.steps(t, d, r, size, chunk, seqs)
				what := fmt.Sprint(h, " chunks of ", chunk, ", pages of ", size, ", threads ", threads)
				sameBits(t, what+", out", join(gotOut), join(outs))
				sameBits(t, what+", lse", join(gotLSE), join(lses))
			}
			d.Close()
		}
	}
}

func join(s [][]float32) (all []float32) {
	for _, x := range s {
		all = append(all, x...)
	}
	return all
}
