package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A grading is what a play of AttentionGrad is given: sequences packed end to end, of which those with keys before their own rows share
// those of the last one without.
type grading struct {
	heads, kv, dim int
	rows, before   []int
}

// inputs are dout, out, lse, q, k and v, by the sequences' first row of `from`: values of a row depend on its number alone.
func (s grading) inputs(from int) (all [6][]float32) {
	for i, cols := range []int{s.heads * s.dim, s.heads * s.dim, s.heads, s.heads * s.dim, s.kv * s.dim, s.kv * s.dim} {
		for r := range s.total() {
			g := rand.New(rand.NewPCG(uint64(from+r), uint64(i)))
			for range cols {
				v := float32(g.NormFloat64())
				if i == 2 {
					v = 2 + v/4
				}
				all[i] = append(all[i], v)
			}
		}
	}
	return all
}

func (s grading) total() (n int) {
	for _, r := range s.rows {
		n += r
	}
	return n
}

// play adds the gradients to ones: dq, dk, dv.
func (s grading) play(d *Device, in [6][]float32) ([]byte, error) {
	n, starts, lengths := s.total(), []int32{0}, []int32{}
	var at [6]k.Tensor
	for i, x := range in {
		at[i] = d.New(k.F32, n, len(x)/n)
		d.Write(at[i], floatBytes(x))
	}
	for i, r := range s.rows {
		starts, lengths = append(starts, starts[i]+int32(r)), append(lengths, int32(r+s.before[i]))
	}
	dq, dk, dv := d.New(k.F32, n, s.heads*s.dim), d.New(k.F32, n, s.kv*s.dim), d.New(k.F32, n, s.kv*s.dim)
	for _, x := range []k.Tensor{dq, dk, dv} {
		d.Fill(x, 1)
	}
	d.AttentionGrad(dq, dk, dv, at[0], at[1], at[2], at[3], at[4], at[5], k.Attn{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Scale: float32(1 / math.Sqrt(float64(s.dim))),
		Starts: column32(d, starts...), Lengths: column32(d, lengths...), MaxQueries: slices.Max(s.rows)})
	return answer(d, dq, dk, dv)
}

// On compute capability 9.0 the gradient is near sm_80's first version, which is f32 throughout: as near as f32 with three pieces, as bf16
// with one; whatever the order of warps, in the same bits.
func TestAttentionGrad90(t *testing.T) {
	for _, s := range []grading{
		{3, 1, 8, []int{1, 67}, []int{0, 0}}, {2, 1, 33, []int{140, 9, 25}, []int{0, 37, 40}}, {1, 1, 64, []int{70}, []int{0}},
		{2, 1, 100, []int{35, 40}, []int{0, 35}}, {1, 1, 128, []int{130}, []int{0}},
	} {
		in := s.inputs(0)
		plain := simulatedAs(t, ptxsim.Options{Capability: 80})
		plain.naive = true
		want, err := s.play(plain, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, pieces := range []int{1, 3} {
			t.Run(fmt.Sprintf("%d columns, %d pieces", s.dim, pieces), func(t *testing.T) {
				var first []byte
				for _, order := range ptxsim.Orders {
					d := simulatedAs(t, ptxsim.Options{Capability: 90, Order: order})
					d.pieces = pieces
					got, err := s.play(d, in)
					if err != nil {
						t.Fatal(order, err)
					}
					if first == nil {
						first = got
					}
					if !slices.Equal(first, got) {
						t.Errorf("warps in order %v give other bits", order)
					}
					if s.dim != 33 {
						break // this one takes the stages round
					}
				}
				far, most := apart(first, want), map[int]float64{1: 0.01, 3: 1.2e-6}[pieces]
				if t.Logf("%.2g of the root of the mean square from sm_80's", far); !(far <= most) {
					t.Errorf("at most %g is right", most)
				}
			})
		}
	}
}

// apart is the root of the mean square of two results' differences, by that of the second.
func apart(a, b []byte) float64 {
	var off, all float64
	for i := range len(a) / 4 {
		x, y := float64(float32At(a, i)), float64(float32At(b, i))
		off, all = off+(x-y)*(x-y), all+y*y
	}
	return math.Sqrt(off / all)
}

// With one piece too, a sequence alone has the bits that it has among others, and queries those that they have where keys are shared.
func TestAttentionGrad90OneAnswer(t *testing.T) {
	all := grading{4, 2, 24, []int{50, 70, 30}, []int{0, 0, 45}}
	play := func(s grading, from int) []byte {
		got, err := s.play(pieced(t, 1, false), s.inputs(from))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	packed, alone, group := play(all, 0), play(grading{4, 2, 24, []int{50}, []int{0}}, 0), play(grading{4, 2, 24, []int{70, 30}, []int{0, 45}}, 50)
	wide, narrow := 4*4*24, 4*2*24
	if !slices.Equal(packed[:50*wide], alone[:50*wide]) || !slices.Equal(packed[50*wide:150*wide], group[:100*wide]) {
		t.Error("dq alone and packed differ")
	}
	for i := range 2 {
		at := 150*wide + i*150*narrow
		if !slices.Equal(packed[at:at+50*narrow], alone[50*wide+i*50*narrow:][:50*narrow]) ||
			!slices.Equal(packed[at+50*narrow:at+150*narrow], group[100*wide+i*100*narrow:][:100*narrow]) {
			t.Errorf("%s alone and packed differ", []string{"dk", "dv"}[i])
		}
	}
}

// A query, key, value or gradient that is not finite makes NaN of what sees it, and has no part in the rest, though one product has both.
func TestAttentionGrad90NotFinite(t *testing.T) {
	const n, dim, at = 45, 24, 37
	s := grading{1, 1, dim, []int{n}, []int{0}}
	for _, pieces := range []int{1, 3} {
		in := s.inputs(0)
		want, err := s.play(pieced(t, pieces, false), in)
		if err != nil {
			t.Fatal(err)
		}
		// Row `at` spoils dq from its own row on if it is a key, and that row's alone if it is a query; dk and dv the other way round.
		for name, of := range map[string]int{"dout": 0, "q": 3, "k": 4, "v": 5} {
			for _, v := range []float32{float32(math.NaN()), float32(math.Inf(-1)), math.MaxFloat32} {
				was := in[of][at*dim+3]
				in[of][at*dim+3] = v
				got, err := s.play(pieced(t, pieces, false), in)
				in[of][at*dim+3] = was
				if err != nil {
					t.Fatal(err)
				}
				for i := range 3 * n * dim {
					row, spoiled := i/dim%n, false
					if ofKeys := of >= 4; (i/dim/n > 0) == ofKeys {
						spoiled = row == at
					} else if ofKeys {
						spoiled = row >= at
					} else {
						spoiled = row <= at
					}
					if name == "v" && i/dim/n == 2 {
						spoiled = false // dv has no part of v
					}
					x := float32At(got, i)
					if same := x == float32At(want, i); !spoiled && !same {
						t.Fatalf("%d pieces, a %s of %g: row %d of %s changes", pieces, name, v, row, []string{"dq", "dk", "dv"}[i/dim/n])
					} else if spoiled && x == x && same {
						t.Fatalf("%d pieces, a %s of %g: row %d of %s does not show it", pieces, name, v, row, []string{"dq", "dk", "dv"}[i/dim/n])
					}
				}
			}
		}
	}
}
