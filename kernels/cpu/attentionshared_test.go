package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// A group is the next token of samples that share the pages of their prompts, as an engine has them: some
// pages of the prompt are common, the rest are each sample's own, or there is nothing in common at all.
func TestAttentionOverSharedPages(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 16))
	for _, h := range headsCases {
		for range 6 {
			size := []int{1, 3, 16, 32}[r.IntN(4)]
			prompts := []tokens{h.sequence(r, size*(1+r.IntN(64/size+1))), h.sequence(r, size*(1+r.IntN(100/size+1)))}
			one := New(1)
			var lengths []int
			var samples []tokens
			var from []int // the prompt of each sample
			for range 12 {
				p := r.IntN(5) / 4
				s := h.extend(prompts[p], h.sequence(r, 1+r.IntN(40)))
				samples, from = append(samples, s), append(from, p)
				lengths = append(lengths, len(s.k)/(h.kv*h.dim))
			}
			var wantOut, wantLSE []float32
			for _, s := range samples {
				out, lse := h.own(t, one, s)
				wantOut = append(wantOut, out[len(out)-h.heads*h.dim:]...)
				wantLSE = append(wantLSE, lse[len(lse)-h.heads:]...)
			}
			for _, threads := range []int{1, 2} {
				d := New(threads)
				out, lse := h.next(t, d, r, size, samples, lengths, from, prompts)
				what := fmt.Sprint(h, ", pages of ", size, ", threads ", threads)
				sameBits(t, what+", out", out, wantOut)
				sameBits(t, what+", lse", lse, wantLSE)
				d.Close()
			}
		}
	}
}

// extend is a followed by b.
func (h headsCase) extend(a, b tokens) tokens {
	cat := func(x, y []float32) []float32 { return append(append([]float32(nil), x...), y...) }
	return tokens{cat(a.q, b.q), cat(a.k, b.k), cat(a.v, b.v)}
}

// next runs attention of the samples' last tokens, the pages of a prompt being the same for all its samples.
func (h headsCase) next(t *testing.T, d *Device, r *rand.Rand, size int, samples []tokens, lengths, from []int, prompts []tokens) (out, lse []float32) {
	t.Helper()
	c := h.newCache(d, r, size, lengths)
	first := map[int]int{} // the first sample of each prompt
	var q []float32
	var starts, seen, pages []int32
	for i, s := range samples {
		if f, ok := first[from[i]]; ok {
			copy(c.pages[i][:len(prompts[from[i]].k)/(h.kv*h.dim)/size], c.pages[f])
		} else {
			first[from[i]] = i
		}
		for j := range lengths[i] {
			row := int(c.pages[i][j/size])*size + j%size
			copy(viewOf("test", c.k).row(row), s.k[j*h.kv*h.dim:])
			copy(viewOf("test", c.v).row(row), s.v[j*h.kv*h.dim:])
		}
		q = append(q, s.q[len(s.q)-h.heads*h.dim:]...)
		starts, seen = append(starts, int32(i)), append(seen, int32(lengths[i]))
		pages = append(append(pages, c.pages[i]...), make([]int32, c.most-len(c.pages[i]))...)
	}
	a := h.attn()
	a.Starts, a.Lengths = i32(d, 1, append(starts, int32(len(samples)))...), i32(d, 1, seen...)
	a.Pages, a.PageSize, a.MaxQueries = i32(d, c.most, pages...), size, 1
	o, l := f32(d, make([]float32, len(q)), h.heads*h.dim), f32(d, make([]float32, len(q)/h.dim), h.heads)
	d.Attention(o, l, f32(d, q, h.heads*h.dim), c.k, c.v, a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return flat(o), flat(l)
}

// Neighbours that share pages are computed together, in as many batches as there are workers; a few batches
// that workers cannot share evenly are cut by key heads.
func TestAttentionPlan(t *testing.T) {
	const size = 4
	pages := [][]int32{{0, 1, 2, 3}, {0, 1, 2, 4}, {0, 1, 2, 5}, {0, 1, 2, 6}, {0, 1, 2, 7}, {8, 9, 10, 11}, {0, 1, 2, 12}, {0, 9, 10, 13}}
	lengths := []int32{15, 13, 16, 14, 13, 13, 13, 16}
	a := headsCase{9, 3, 8}.attn()
	var flatPages, starts []int32
	for i, p := range pages {
		flatPages, starts = append(flatPages, p...), append(starts, int32(i))
	}
	for _, c := range []struct {
		threads, sequences int
		want               []batch // first sequence and token, members, shared keys, first key head and how many
	}{
		{1, 8, []batch{{0, 0, 5, 12, 0, 3}, {5, 0, 1, 13, 0, 3}, {6, 0, 1, 13, 0, 3}, {7, 0, 1, 16, 0, 3}}},
		{2, 5, []batch{{0, 0, 2, 12, 0, 3}, {2, 0, 3, 12, 0, 3}}},
		{2, 1, []batch{{0, 0, 1, 15, 0, 1}, {0, 0, 1, 15, 1, 1}, {0, 0, 1, 15, 2, 1}}},
	} {
		d := New(c.threads)
		a.Starts, a.Lengths = i32(d, 1, append(starts[:c.sequences:c.sequences], int32(c.sequences))...), i32(d, 1, lengths[:c.sequences]...)
		a.Pages, a.PageSize, a.MaxQueries = i32(d, 4, flatPages[:4*c.sequences]...), size, 1
		x := d.New(kernels.F32, 64, 24)
		at := &attention{}
		at.begin("test", d, x, x, x, a)
		at.cut(16)
		at.plan(16)
		if fmt.Sprint(at.batches) != fmt.Sprint(c.want) {
			t.Errorf("%d threads: batches %v, want %v", c.threads, at.batches, c.want)
		}
		d.Close()
	}
}
