package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// A gradCase is one sequence with the gradient of its output and what dq, dk and dv hold before.
type gradCase struct {
	tokens
	dout       []float32
	dq, dk, dv []float32
}

func (h headsCase) gradCase(r *rand.Rand, n int) gradCase {
	s := h.sequence(r, n)
	return gradCase{s, normals(r, len(s.q)), normals(r, len(s.q)), normals(r, len(s.k)), normals(r, len(s.k))}
}

// grads runs AttentionGrad on the sequences side by side.
func (h headsCase) grads(t *testing.T, d *Device, seqs ...gradCase) (dq, dk, dv []float32) {
	t.Helper()
	var all gradCase
	a, starts, lengths := h.attn(), []int32{0}, []int32(nil)
	for _, s := range seqs {
		all.q, all.k, all.v = append(all.q, s.q...), append(all.k, s.k...), append(all.v, s.v...)
		all.dq, all.dk, all.dv = append(all.dq, s.dq...), append(all.dk, s.dk...), append(all.dv, s.dv...)
		all.dout = append(all.dout, s.dout...)
		n := int32(len(s.q) / (h.heads * h.dim))
		starts, lengths = append(starts, starts[len(starts)-1]+n), append(lengths, n)
		a.MaxQueries = max(a.MaxQueries, int(n))
	}
	a.Starts, a.Lengths = i32(d, 1, starts...), i32(d, 1, lengths...)
	wide, narrow := h.heads*h.dim, h.kv*h.dim
	q, k, v := f32(d, all.q, wide), f32(d, all.k, narrow), f32(d, all.v, narrow)
	out, lse := f32(d, make([]float32, len(all.q)), wide), f32(d, make([]float32, len(all.q)/h.dim), h.heads)
	d.Attention(out, lse, q, k, v, a)
	tq, tk, tv := f32(d, all.dq, wide), f32(d, all.dk, narrow), f32(d, all.dv, narrow)
	d.AttentionGrad(tq, tk, tv, f32(d, all.dout, wide), out, lse, q, k, v, a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return flat(tq), flat(tk), flat(tv)
}

// loss is Σ dout·out in float64.
func (h headsCase) loss(s gradCase) (sum float64) {
	out, _, _ := h.exact(s.tokens)
	for i, o := range out {
		sum += o * float64(s.dout[i])
	}
	return sum
}

func TestAttentionGradIsTheSlope(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 4))
	d := New(2)
	worst := 0.0
	for _, h := range headsCases {
		for _, n := range []int{1, 3, 20, 45} {
			s := h.gradCase(r, n)
			dq, dk, dv := h.grads(t, d, s)
			for _, in := range []struct {
				name        string
				x, was, got []float32
			}{{"dq", s.q, s.dq, dq}, {"dk", s.k, s.dk, dk}, {"dv", s.v, s.dv, dv}} {
				for range 12 {
					i := r.IntN(len(in.x))
					const step = 1.0 / 512 // exact to add to most numbers here
					x := in.x[i]
					in.x[i] = x + step
					up, hi := h.loss(s), in.x[i]
					in.x[i] = x - step
					down, lo := h.loss(s), in.x[i]
					in.x[i] = x
					slope := (up - down) / (float64(hi) - float64(lo))
					e := near(t, fmt.Sprint(h, n, in.name), in.got[i:i+1], []float64{float64(in.was[i]) + slope}, 3e-5, 1)
					worst = max(worst, e)
				}
			}
		}
	}
	t.Logf("worst error %.2g", worst)
}

// The gradient of a sequence has the same bits alone and in a batch, on any number of threads, and adds to
// what was there.
func TestAttentionGradOneSequenceOneAnswer(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 5))
	for _, h := range headsCases {
		var seqs []gradCase
		var want [3][]float32
		for _, n := range []int{30, 1, 33, 80} {
			s := h.gradCase(r, n)
			seqs = append(seqs, s)
			one := New(1)
			dq, dk, dv := h.grads(t, one, s)
			want[0], want[1], want[2] = append(want[0], dq...), append(want[1], dk...), append(want[2], dv...)
		}
		for _, threads := range []int{1, 2, 3} {
			d := New(threads)
			dq, dk, dv := h.grads(t, d, seqs...)
			for i, got := range [][]float32{dq, dk, dv} {
				sameBits(t, fmt.Sprint(h, threads, " threads, ", []string{"dq", "dk", "dv"}[i]), got, want[i])
			}
			d.Close()
		}
	}
}

// twins runs f on the assembly and on the twins, and compares the numbers it gives.
func twins(t *testing.T, what string, f func() []float32) {
	t.Helper()
	got := f()
	var want []float32
	inGo(func() { want = f() })
	for i := range got {
		if !same(got[i], want[i]) {
			t.Fatalf("%s: number %d is %v, in Go %v", what, i, got[i], want[i])
		}
	}
}

func TestAttentionIsItsTwin(t *testing.T) { eachForm(t, attentionIsItsTwin) }

func attentionIsItsTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 6))
	for _, h := range headsCases {
		a, b := h.gradCase(r, 21), h.gradCase(r, 37)
		twins(t, fmt.Sprint(h), func() []float32 {
			d := New(1)
			out, lse := h.own(t, d, a.tokens, b.tokens)
			dq, dk, dv := h.grads(t, d, a, b)
			return join([][]float32{out, lse, dq, dk, dv})
		})
	}
}

var _ kernels.Backend = (*Device)(nil)
