package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// vocabularies end within, at and after a block of logits.
var vocabularies = []int{1, 33, 1023, 1024, 1025, 5000, 49152}

// A scored is rows of logits with their temperatures, allowed ids and an allowed id each.
type scored struct {
	vocab  int
	logits []float32
	temps  []float32
	mask   []int32
	ids    []int32
}

func newScored(r *rand.Rand, rows, vocab int) scored {
	s := scored{vocab: vocab, logits: normals(r, rows*vocab)}
	words := (vocab + 31) / 32
	s.mask = make([]int32, rows*words)
	for i := range s.mask {
		s.mask[i] = int32(r.Uint32())
	}
	for i := range rows {
		s.temps = append(s.temps, []float32{0, 1, 0.3, 2.7}[r.IntN(4)])
		id := r.IntN(vocab)
		s.ids = append(s.ids, int32(id))
		s.mask[i*words+id/32] |= 1 << (id % 32)
		for j := range vocab {
			s.logits[i*vocab+j] *= 4
			if s.mask[i*words+j/32]>>(j%32)&1 == 0 { // what is forbidden does not matter
				s.logits[i*vocab+j] = []float32{nan, float32(math.Inf(1)), 1e30, 3}[r.IntN(4)]
			}
		}
	}
	return s
}

// row is row i alone.
func (s scored) row(i int) scored {
	words := (s.vocab + 31) / 32
	return scored{s.vocab, s.logits[i*s.vocab:][:s.vocab], s.temps[i:][:1], s.mask[i*words:][:words], s.ids[i:][:1]}
}

func (s scored) dist(d *Device) kernels.Dist {
	return kernels.Dist{Temperature: f32(d, s.temps, 1), Mask: i32(d, (s.vocab+31)/32, s.mask...)}
}

// logProb runs LogProb.
func (s scored) logProb(t *testing.T, d *Device) (lp, lse []float32) {
	t.Helper()
	n := len(s.ids)
	p, l := f32(d, make([]float32, n), 1), f32(d, make([]float32, n), 1)
	d.LogProb(p, l, f32(d, s.logits, s.vocab), i32(d, 1, s.ids...), s.dist(d))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return flat(p), flat(l)
}

// sample runs Sample at u.
func (s scored) sample(t *testing.T, d *Device, u []float32) (ids []int32, lp []float32) {
	t.Helper()
	n := len(s.ids)
	id, p := d.New(kernels.I32, n, 1), f32(d, make([]float32, n), 1)
	d.Sample(id, p, f32(d, s.logits, s.vocab), f32(d, u, 1), s.dist(d))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return ints("test", id), flat(p)
}

// exact is row i's probabilities and log-sum-exp in float64.
func (s scored) exact(i int) (probs []float64, lse float64) {
	r, most, sum := s.row(i), math.Inf(-1), 0.0
	temperature := float64(r.temps[0])
	if temperature == 0 {
		temperature = 1
	}
	probs = make([]float64, s.vocab)
	for j := range probs {
		probs[j] = math.Inf(-1)
		if r.mask[j/32]>>(j%32)&1 == 1 {
			probs[j] = float64(r.logits[j]) / temperature
		}
		most = max(most, probs[j])
	}
	for _, x := range probs {
		sum += math.Exp(x - most)
	}
	lse = most + math.Log(sum)
	for j, x := range probs {
		probs[j] = math.Exp(x - lse)
	}
	return probs, lse
}

func TestLogProbAgainstFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 7))
	d := New(2)
	worst := 0.0
	for _, vocab := range vocabularies {
		s := newScored(r, 5, vocab)
		lp, lse := s.logProb(t, d)
		for i, id := range s.ids {
			probs, want := s.exact(i)
			// Scores are near 40 at most here, and rounded once each.
			worst = max(worst, near(t, fmt.Sprint(vocab, " lse"), lse[i:i+1], []float64{want}, 4e-7, 1))
			worst = max(worst, near(t, fmt.Sprint(vocab, " lp"), lp[i:i+1], []float64{math.Log(probs[id])}, 4e-7, 10))
		}
	}
	t.Logf("worst error %.2g", worst)
}

// A row's numbers have the same bits alone and among others, and Sample's log-probability is LogProb's.
func TestDistributionOneRowOneAnswer(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 8))
	for _, vocab := range []int{7, 1025, 5000} {
		s := newScored(r, 40, vocab)
		u := make([]float32, 40)
		for i := range u {
			u[i] = r.Float32()
		}
		d, one := New(3), New(1)
		lp, lse := s.logProb(t, d)
		ids, drawn := s.sample(t, d, u)
		for i := range u {
			row := s.row(i)
			p, l := row.logProb(t, one)
			sameBits(t, "lp and lse", []float32{p[0], l[0]}, []float32{lp[i], lse[i]})
			id, q := row.sample(t, one, u[i:i+1])
			if id[0] != ids[i] {
				t.Fatalf("row %d of %d draws %d, alone %d", i, vocab, ids[i], id[0])
			}
			row.ids = id
			p, _ = row.logProb(t, one)
			sameBits(t, "lp of the draw", []float32{q[0], drawn[i]}, []float32{p[0], p[0]})
		}
		d.Close()
	}
}

func TestSampleIsTheInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 9))
	d := New(2)
	for _, vocab := range vocabularies {
		s := newScored(r, 6, vocab)
		for i := range s.temps {
			s.temps[i] = max(s.temps[i], 0.3)
		}
		for _, u := range []float32{0, r.Float32(), r.Float32(), 1 - 1.0/(1<<24)} {
			us := []float32{u, u, u, u, u, u}
			ids, _ := s.sample(t, d, us)
			for i, id := range ids {
				probs, _ := s.exact(i)
				before := 0.0
				for _, p := range probs[:id] {
					before += p
				}
				after := before + probs[id]
				// Sums of float32 exponentials: a relative error of 1e-6 at most.
				if probs[id] == 0 || before > float64(u)+1e-6 || after < float64(u)-1e-6 {
					t.Errorf("vocabulary of %d, u = %v: id %d lies from %v to %v", vocab, u, id, before, after)
				}
				if u == 0 && before > 1e-30 {
					t.Errorf("vocabulary of %d: u = 0 draws id %d, after others of %v", vocab, id, before)
				}
			}
		}
	}
}

func TestGreedyTakesTheFirstLargest(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 10))
	d := New(1)
	for _, vocab := range []int{5, 1024, 3000} {
		s := newScored(r, 1, vocab)
		s.temps[0] = 0
		best := r.IntN(vocab)
		for j := range vocab {
			s.mask[j/32] |= 1 << (j % 32)
			s.logits[j] = float32(r.NormFloat64())
		}
		for j := best; j < vocab; j += 1 + r.IntN(50) {
			s.logits[j] = 50
		}
		if best > 0 { // larger, but forbidden
			s.logits[best-1] = 60
			s.mask[(best-1)/32] &^= 1 << ((best - 1) % 32)
		}
		ids, lp := s.sample(t, d, []float32{0.999})
		if int(ids[0]) != best {
			t.Errorf("vocabulary of %d: took %d, want %d", vocab, ids[0], best)
		}
		s.ids = ids
		want, _ := s.logProb(t, d)
		sameBits(t, "lp", lp, want)
	}
}

func TestLogProbGradAgainstFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 11))
	d := New(2)
	worst := 0.0
	for _, vocab := range vocabularies {
		s := newScored(r, 4, vocab)
		_, lse := s.logProb(t, d)
		coef := normals(r, 4)
		logits, ids := f32(d, s.logits, vocab), i32(d, 1, s.ids...)
		for range 2 { // the second time in place
			out := logits
			if vocab%2 == 0 {
				out = f32(d, make([]float32, len(s.logits)), vocab)
			}
			d.LogProbGrad(out, f32(d, s.logits, vocab), f32(d, lse, 1), ids, f32(d, coef, 1), s.dist(d))
			for i, id := range s.ids {
				probs, _ := s.exact(i)
				c := float64(coef[i])
				if s.temps[i] != 0 {
					c /= float64(s.temps[i])
				}
				for j := range probs {
					probs[j] *= -c
				}
				probs[id] += c
				// The lse comes rounded: near 40, an error of 2e-6 in each probability, and in 1 minus the id's.
				got := viewOf("", out).row(i)
				worst = max(worst, near(t, fmt.Sprint(vocab, " own"), got[id:id+1], probs[id:id+1], 4e-6, math.Abs(c)))
				got[id], probs[id] = 0, 0
				worst = max(worst, near(t, fmt.Sprint(vocab), got, probs, 4e-6, math.Abs(c)*1e-3))
			}
		}
	}
	t.Logf("worst error %.2g", worst)
}

// Whatever the number of threads, the failure names the first bad row.
func TestDistributionFailures(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 12))
	const vocab, rows = 2000, 64
	for _, c := range []struct {
		want  string
		spoil func(s scored, row int)
	}{
		{"log-sum-exp of the logits is NaN", func(s scored, i int) { s.logits[i*vocab+int(s.ids[i])] = nan }},
		{"log-sum-exp of the logits is +Inf", func(s scored, i int) { s.logits[i*vocab+int(s.ids[i])] = float32(math.Inf(1)) }},
		{"log-sum-exp of the logits is -Inf", func(s scored, i int) { clear(s.mask[i*63:][:63]) }},
		{"the mask forbids id", func(s scored, i int) { s.mask[i*63+int(s.ids[i])/32] &^= 1 << (s.ids[i] % 32) }},
		{"id -1 is outside 0 … 1999", func(s scored, i int) { s.ids[i] = -1 }},
		{"id 2000 is outside 0 … 1999", func(s scored, i int) { s.ids[i] = vocab }},
	} {
		for _, threads := range []int{1, 3} {
			d := New(threads)
			s := newScored(r, rows, vocab)
			first := r.IntN(rows)
			for i := first; i < rows; i += 1 + r.IntN(9) {
				c.spoil(s, i)
			}
			lp, lse := f32(d, make([]float32, rows), 1), f32(d, make([]float32, rows), 1)
			d.LogProb(lp, lse, f32(d, s.logits, vocab), i32(d, 1, s.ids...), s.dist(d))
			err := d.Sync()
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("LogProb: row %d: ", first)) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d threads: got %v, want row %d and %q", threads, err, first, c.want)
			}
			if err := d.Sync(); err != nil {
				t.Errorf("the failure was not cleared: %v", err)
			}
			d.Close()
		}
	}
}

// The failure that is kept is the first row's, in whatever order threads come to them.
func TestRowsFailInOrder(t *testing.T) {
	var task rowTask
	for _, i := range []int{7, 3, 9} {
		task.fail(i, "bad")
	}
	if task.bad != 3 || !strings.Contains(task.err.Error(), "row 3: bad") {
		t.Errorf("kept row %d, %v", task.bad, task.err)
	}
}
