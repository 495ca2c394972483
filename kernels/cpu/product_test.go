package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/x448/float16"
)

// A matrix is the test's own: rows end to end.
type matrix struct {
	rows, cols int
	v          []float32
}

func (m matrix) at(i, j int) float32 { return m.v[i*m.cols+j] }

// random returns normal numbers times powers of two, so that a sum's order shows in its bits.
func random(r *rand.Rand, rows, cols int) matrix {
	m := matrix{rows, cols, normals(r, rows*cols)}
	for i := range m.v {
		m.v[i] *= float32(math.Exp2(float64(r.IntN(12) - 6)))
	}
	return m
}

func (m matrix) transposed() matrix {
	t := matrix{m.cols, m.rows, make([]float32, len(m.v))}
	for i := range m.rows {
		for j := range m.cols {
			t.v[j*m.rows+i] = m.at(i, j)
		}
	}
	return t
}

// chain is alpha·a·bᵀ + bias in one order: a fused multiply-add a term, ascending, from start or 0.
func chain(a, b, start matrix, alpha float32, bias []float32) matrix {
	out := matrix{a.rows, b.rows, make([]float32, a.rows*b.rows)}
	for i := range a.rows {
		for j := range b.rows {
			var s float32
			if start.v != nil {
				s = start.at(i, j)
			}
			for k := range a.cols {
				s = fma32(a.at(i, k), b.at(j, k), s)
			}
			s = float32(alpha * s)
			if bias != nil {
				s += bias[j]
			}
			out.v[i*b.rows+j] = s
		}
	}
	return out
}

const guard = 12345.5 // what surrounds a view, which an operation must leave alone

// put makes m a view in the middle of a larger tensor, of guards but for m.
func put(t testing.TB, d *Device, m matrix, margin int) kernels.Tensor {
	t.Helper()
	big := d.New(kernels.F32, m.rows+2*margin, m.cols+2*margin)
	d.Fill(big, guard)
	v := big.Slice(margin, m.rows).Columns(margin, m.cols)
	d.Write(v, bytesOf(m.v))
	t.Cleanup(func() { d.Free(big) })
	return v
}

// get reads v, and checks the guards around it.
func get(t testing.TB, d *Device, v kernels.Tensor) matrix {
	t.Helper()
	m := matrix{v.Rows, v.Cols, make([]float32, v.Rows*v.Cols)}
	b := make([]byte, 4*len(m.v))
	if err := d.Read(b, v); err != nil {
		t.Fatal(err)
	}
	for i := range m.v {
		m.v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	inside := map[int]bool{}
	for i := range v.Rows {
		for j := range v.Cols {
			inside[v.Off+i*v.Stride+j] = true
		}
	}
	for i, x := range v.Buf.(*buffer).f {
		if !inside[i] && x != guard && len(inside) < len(v.Buf.(*buffer).f) {
			t.Fatalf("element %d beside a view of %d x %d from %d, stride %d, is %v", i, v.Rows, v.Cols, v.Off, v.Stride, x)
		}
	}
	return m
}

func bytesOf(s []float32) []byte {
	b := make([]byte, 0, 4*len(s))
	for _, v := range s {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// stored returns m as bytes of type t, and the values that those stand for.
func stored(t kernels.DType, m matrix) ([]byte, matrix) {
	w := matrix{m.rows, m.cols, slices.Clone(m.v)}
	var b []byte
	for i, v := range m.v {
		switch t {
		case kernels.BF16:
			u := uint16(math.Float32bits(v) >> 16)
			b, w.v[i] = binary.LittleEndian.AppendUint16(b, u), math.Float32frombits(uint32(u)<<16)
		case kernels.F16:
			h := float16.Fromfloat32(v)
			b, w.v[i] = binary.LittleEndian.AppendUint16(b, h.Bits()), h.Float32()
		default:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b, w
}

// load puts m into d in two parts.
func load(t testing.TB, d *Device, typ kernels.DType, m matrix) (kernels.Weight, matrix) {
	b, values := stored(typ, m)
	cut := m.rows / 3 * m.cols * typ.Size()
	w := d.Load(kernels.Format{Type: typ}, m.rows, m.cols, b[:cut], b[cut:])
	t.Cleanup(func() { d.Unload(w) })
	return w, values
}

func nans(rows, cols int) matrix {
	m := matrix{rows, cols, make([]float32, rows*cols)}
	for i := range m.v {
		m.v[i] = float32(math.NaN())
	}
	return m
}

func wantBits(t testing.TB, what string, got, want matrix) {
	t.Helper()
	for i := range want.v {
		if !same(got.v[i], want.v[i]) {
			t.Fatalf("%s: element (%d, %d): %v, want %v", what, i/want.cols, i%want.cols, got.v[i], want.v[i])
		}
	}
}

// both runs f with each form of the assembly that runs here, and with the Go twins.
func both(t *testing.T, f func(t *testing.T)) {
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) { form.run(func() { f(t) }) })
	}
	t.Run("go", func(t *testing.T) { inGo(func() { f(t) }) })
}

var weightTypes = []kernels.DType{kernels.F32, kernels.BF16, kernels.F16}

// Linear is one chain of fused multiply-adds an element, whatever the shape, the number of rows beside
// it and of threads, in assembly and in Go.
func TestLinearIsOneChain(t *testing.T) {
	shapes := [][2]int{{1, 1}, {5, 3}, {31, 33}, {32, 32}, {33, 31}, {64, 100}, {97, 40}, {40, 1601}, {20, 1024}}
	both(t, func(t *testing.T) {
		for _, threads := range []int{1, 2, 3, 8} {
			d := New(threads)
			defer d.Close()
			r := rand.New(rand.NewPCG(11, uint64(threads)))
			for i, s := range shapes {
				typ := weightTypes[(i+threads)%3]
				w, values := load(t, d, typ, random(r, s[0], s[1]))
				bias := random(r, 1, s[0])
				for _, m := range []int{1, 2, 13, 14, 15, 27, 45} {
					x := random(r, m, s[1])
					what := fmt.Sprintf("%s %dx%d, %d rows, %d threads", typ, s[0], s[1], m, threads)
					out := put(t, d, nans(m, s[0]), m%3)
					d.Linear(out, put(t, d, x, 1), w, kernels.Tensor{})
					wantBits(t, what, get(t, d, out), chain(x, values, matrix{}, 1, nil))
					d.Linear(out, put(t, d, x, 0), w, put(t, d, bias, 2))
					wantBits(t, what+" with bias", get(t, d, out), chain(x, values, matrix{}, 1, bias.v))
				}
			}
		}
	})
}

// LinearGrad is one chain over the outputs that starts from what dx holds.
func TestLinearGradIsOneChain(t *testing.T) {
	shapes := [][2]int{{1, 1}, {3, 5}, {33, 31}, {32, 32}, {100, 64}, {40, 97}, {2100, 33}, {1024, 5}}
	both(t, func(t *testing.T) {
		for _, threads := range []int{1, 2, 3, 8} {
			d := New(threads)
			defer d.Close()
			r := rand.New(rand.NewPCG(12, uint64(threads)))
			for i, s := range shapes {
				typ := weightTypes[(i+threads)%3]
				w, values := load(t, d, typ, random(r, s[0], s[1]))
				for _, m := range []int{1, 5, 14, 15, 60} {
					dout, dx := random(r, m, s[0]), random(r, m, s[1])
					to := put(t, d, dx, m%3)
					d.LinearGrad(to, put(t, d, dout, m%2), w)
					what := fmt.Sprintf("%s %dx%d, %d rows, %d threads", typ, s[0], s[1], m, threads)
					wantBits(t, what, get(t, d, to), chain(dout, values.transposed(), dx, 1, nil))
				}
			}
		}
	})
}

// MatMul is one chain for all four ways to transpose, from zero or from what c holds.
func TestMatMulIsOneChain(t *testing.T) {
	shapes := [][3]int{ // m, n, k
		{1, 1, 1}, {1, 8, 576}, {1, 576, 8}, {3, 33, 17}, {14, 32, 16}, {29, 40, 70}, {57, 65, 33},
		{100, 8, 30}, {8, 100, 30}, {20, 20, 1100}, {130, 70, 520}, {12, 5, 1024},
	}
	both(t, func(t *testing.T) {
		for _, threads := range []int{1, 2, 3, 8} {
			d := New(threads)
			defer d.Close()
			r := rand.New(rand.NewPCG(13, uint64(threads)))
			for i, s := range shapes {
				if !useAssembly && !useNarrow && s[0]*s[1]*s[2] > 1<<20 && threads != 3 {
					continue
				}
				for mode := range 4 {
					m, n, k := s[0], s[1], s[2]
					a, b, c, bias := random(r, m, k), random(r, n, k), random(r, m, n), random(r, 1, n)
					g := kernels.Gemm{TransA: mode&1 != 0, TransB: mode&2 != 0, Alpha: 1, Accumulate: true}
					left, right := a, b
					if g.TransA {
						left = a.transposed()
					}
					if !g.TransB {
						right = b.transposed()
					}
					what := fmt.Sprintf("%v, transposed %v %v, %d threads", s, g.TransA, g.TransB, threads)
					la, rb := put(t, d, left, (i+1)%2), put(t, d, right, mode%2)
					to := put(t, d, c, i%3)
					d.MatMul(to, la, rb, g)
					wantBits(t, what+", added", get(t, d, to), chain(a, b, c, 1, nil))
					g.Accumulate, g.Alpha = false, 0.7
					d.Write(to, bytesOf(nans(m, n).v))
					d.MatMul(to, la, rb, g)
					wantBits(t, what+", alpha", get(t, d, to), chain(a, b, matrix{}, 0.7, nil))
					g.Bias = put(t, d, bias, 1)
					d.MatMul(to, la, rb, g)
					wantBits(t, what+", alpha and bias", get(t, d, to), chain(a, b, matrix{}, 0.7, bias.v))
				}
			}
		}
	})
}

// The products are right to rounding: against float64, within eps·√k of the rows' norms.
func TestProductsAgainstFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 1))
	d := New(2)
	defer d.Close()
	const m, n, k = 37, 70, 600
	x, raw, dout := matrix{m, k, normals(r, m*k)}, matrix{n, k, normals(r, n*k)}, matrix{m, n, normals(r, m*n)}
	worst := 0.0
	check := func(what string, got, a, b matrix) { // a·bᵀ
		for i := range a.rows {
			for j := range b.rows {
				var s, na, nb float64
				for l := range a.cols {
					u, v := float64(a.at(i, l)), float64(b.at(j, l))
					s, na, nb = s+u*v, na+u*u, nb+v*v
				}
				e := math.Abs(float64(got.at(i, j))-s) / (math.Sqrt(na*nb*float64(a.cols)) * 0x1p-24)
				if worst = max(worst, e); !(e < 1) {
					t.Fatalf("%s (%d, %d): %v, want %v: %.2f of the tolerance", what, i, j, got.at(i, j), s, e)
				}
			}
		}
	}
	for _, typ := range weightTypes {
		w, values := load(t, d, typ, raw)
		out := put(t, d, nans(m, n), 0)
		d.Linear(out, put(t, d, x, 0), w, kernels.Tensor{})
		check("Linear", get(t, d, out), x, values)
		dx := put(t, d, matrix{m, k, make([]float32, m*k)}, 0)
		d.LinearGrad(dx, put(t, d, dout, 0), w)
		check("LinearGrad", get(t, d, dx), dout, values.transposed())
	}
	out := put(t, d, nans(m, n), 0)
	d.MatMul(out, put(t, d, x, 0), put(t, d, raw, 0), kernels.Gemm{TransB: true, Alpha: 1})
	check("MatMul", get(t, d, out), x, raw)
	t.Logf("worst error %.3f of eps·√k·‖x‖·‖w‖", worst)
}

// A NaN or an infinity in a row or a weight comes out where the chain has it, and nowhere else.
func TestNaNAndInfinityFlowThrough(t *testing.T) {
	both(t, func(t *testing.T) {
		d := New(2)
		defer d.Close()
		r := rand.New(rand.NewPCG(15, 1))
		x, m := random(r, 30, 50), random(r, 45, 50)
		x.v[3*50+7], x.v[5*50+49], x.v[6*50] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))
		m.v[2*50+1], m.v[44*50+49] = float32(math.Inf(1)), 0
		for _, typ := range weightTypes {
			w, values := load(t, d, typ, m)
			for _, rows := range []int{1, 9, 30} {
				out := put(t, d, nans(rows, 45), 1)
				part := matrix{rows, 50, x.v[:rows*50]}
				d.Linear(out, put(t, d, part, 0), w, kernels.Tensor{})
				got := get(t, d, out)
				wantBits(t, typ.String(), got, chain(part, values, matrix{}, 1, nil))
				if v := got.at(0, 0); v != v {
					t.Fatalf("a NaN in an element that has none")
				}
			}
		}
	})
}

// Row i of a product of many rows is the product of row i.
func TestRowsDoNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 1))
	d := New(3)
	defer d.Close()
	const n, k, most = 200, 1700, 300
	x := random(r, most, k)
	in, all := put(t, d, x, 1), put(t, d, nans(most, n), 1)
	for _, typ := range weightTypes {
		w, _ := load(t, d, typ, random(r, n, k))
		d.Linear(all, in, w, kernels.Tensor{})
		want := get(t, d, all)
		for _, m := range []int{1, 2, 3, 7, 14, 15, 16, 24, 25, 29, 64, 100, 299} {
			lo := r.IntN(most - m + 1)
			out := put(t, d, nans(m, n), 0)
			d.Linear(out, in.Slice(lo, m), w, kernels.Tensor{})
			wantBits(t, fmt.Sprintf("%s rows %d … %d", typ, lo, lo+m-1), get(t, d, out), matrix{m, n, want.v[lo*n : (lo+m)*n]})
		}
	}
}

// A sum over rows may be cut between rows.
func TestSumsOverRowsCanBeCut(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 1))
	d := New(2)
	defer d.Close()
	const rows, m, n = 700, 40, 50
	dout, x := random(r, rows, m), random(r, rows, n)
	a, b := put(t, d, dout, 0), put(t, d, x, 0)
	g := kernels.Gemm{TransA: true, Alpha: 1, Accumulate: true}
	zero := matrix{m, n, make([]float32, m*n)}
	whole, cut := put(t, d, zero, 0), put(t, d, zero, 0)
	d.MatMul(whole, a, b, g)
	for lo, step := 0, 1; lo < rows; lo, step = lo+step, 2*step+1 {
		h := min(step, rows-lo)
		d.MatMul(cut, a.Slice(lo, h), b.Slice(lo, h), g)
	}
	wantBits(t, "cut", get(t, d, cut), get(t, d, whole))
}

// Embed gives the weight's own rows back, for every type and place.
func TestEmbed(t *testing.T) {
	both(t, func(t *testing.T) {
		d := New(2)
		defer d.Close()
		r := rand.New(rand.NewPCG(18, 1))
		const rows, cols = 75, 37
		id := []int32{0, 74, 15, 16, 31, 32, 33, 74, 47, 48, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 63, 64}
		ids := d.New(kernels.I32, len(id), 1)
		var raw []byte
		for _, v := range id {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
		}
		d.Write(ids, raw)
		for _, typ := range weightTypes {
			w, values := load(t, d, typ, random(r, rows, cols))
			out := put(t, d, nans(len(id), cols), 1)
			d.Embed(out, w, ids)
			want := matrix{cols: cols}
			for _, v := range id {
				want.v = append(want.v, values.v[int(v)*cols:][:cols]...)
			}
			wantBits(t, typ.String(), get(t, d, out), want)
		}
	})
}

func TestEmbedRefusesAnIdWithoutARow(t *testing.T) {
	d := New(1)
	r := rand.New(rand.NewPCG(19, 1))
	w, _ := load(t, d, kernels.BF16, random(r, 10, 4))
	for _, v := range []uint32{10, 0xffffffff} {
		ids, out := d.New(kernels.I32, 2, 1), d.New(kernels.F32, 2, 4)
		d.Write(ids.Slice(1, 1), binary.LittleEndian.AppendUint32(nil, v))
		d.Embed(out, w, ids)
		d.Fill(out, 7) // does nothing after a failure
		err := d.Sync()
		if err == nil {
			t.Fatalf("id %d was taken", int32(v))
		}
		if got := get(t, d, out); slices.Contains(got.v, 7) {
			t.Error("an operation after the failure was done")
		}
		if err := d.Sync(); err != nil {
			t.Errorf("the failure was not cleared: %v", err)
		}
	}
}

// A sum of no terms is 0, or what was there; no rows are no work.
func TestEmptyProducts(t *testing.T) {
	both(t, func(t *testing.T) {
		d := New(2)
		defer d.Close()
		r := rand.New(rand.NewPCG(20, 1))
		c, bias := random(r, 3, 40), random(r, 1, 40)
		to, none, empty := put(t, d, c, 1), d.New(kernels.F32, 3, 0), d.New(kernels.F32, 0, 40)
		d.MatMul(to, none, empty, kernels.Gemm{Alpha: 1, Accumulate: true})
		wantBits(t, "added", get(t, d, to), c)
		d.MatMul(to, none, empty, kernels.Gemm{Alpha: 1, Bias: put(t, d, bias, 0)})
		want := matrix{3, 40, slices.Concat(bias.v, bias.v, bias.v)}
		wantBits(t, "bias", get(t, d, to), want)
		w, _ := load(t, d, kernels.BF16, random(r, 40, 4))
		d.Linear(empty, d.New(kernels.F32, 0, 4), w, kernels.Tensor{})
		d.LinearGrad(d.New(kernels.F32, 0, 4), empty, w)
		d.Embed(d.New(kernels.F32, 0, 4), w, d.New(kernels.I32, 0, 1))
		d.MatMul(empty, d.New(kernels.F32, 0, 4), d.New(kernels.F32, 4, 40), kernels.Gemm{Alpha: 1})
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
	})
}
