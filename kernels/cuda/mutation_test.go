package cuda

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A mutation is a bug planted in the PTX of one kernel, and a part of the backend that must see it.
type mutation struct {
	bug, kernel string
	find        string // a regular expression
	nth         int    // match, from 0
	put         string
	play        func(t *testing.T, d *Device) ([]byte, error)
	caught      string // a part of the simulator's message, or otherAnswer
}

// What catches a bug.
const (
	otherAnswer = "another answer"
	race        = "a race"
	unwritten   = "nothing has been written to"
	unfinished  = "has not brought yet"
	bounds      = "of an allocation of"
)

const (
	barrier = `bar\.sync\s+0;`
	waitOne = `cp\.async\.wait_group 1;`
	late    = "cp.async.wait_group 2;"
)

var mutations = []mutation{
	{"no barrier before the sum of warps", "rmsnorm", barrier, 0, "", playNorm, race},
	{"no barrier before the pieces are joined", "squares_join", barrier, 0, "", playSquares, race},
	{"a warp's sum misses half its lanes", "rmsnorm_v1", `mov\.u32(\s+%r\d+, )16;`, 0, "mov.u32${1}8;", playNorm, otherAnswer},
	{"no barrier after the blocks' parts", "sample", barrier, 0, "", playSample, race},
	{"no barrier before the blocks are added", "sample", barrier, 1, "", playSample, race},
	{"no barrier after the total", "sample", barrier, 2, "", playSample, unwritten},
	{"the mask's bit is of the next id", "logprob", `(and\.b32\s+%r\d+, %r\d+, )31;`, 0, "${1}30;", playSample, otherAnswer},
	{"the largest score of half the lanes", "score_parts", `mov\.u32(\s+%r\d+, )4;`, 0, "mov.u32${1}8;", playScore, otherAnswer},
	{"a tile's sum by another tree", "score_parts", `mov\.u32(\s+%r\d+, )4;`, 1, "mov.u32${1}2;", playScore, otherAnswer},
	{"an id after the last", "score_parts", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 2, "setp.gt.s32${1}", playScore, otherAnswer},
	{"no barrier before parts are added", "score_join", barrier, 0, "", playScore, race},
	{"one column too many", "add", `setp\.ge\.s32`, 0, "setp.gt.s32", playRows, race},
	{"one row too many", "add", `setp\.lt\.s32`, 0, "setp.le.s32", playRows, bounds},
	{"an index at the table's end is taken", "gather", `setp\.lt\.s32(\s+%p8)`, 0, "setp.le.s32${1}", playRows, otherAnswer},
	{"no barrier before segments are added", "linear_few8", barrier, 0, "", playFew, race},
	{"no barrier before the next segments", "linear_few8", barrier, 1, "", playFew, race},
	{"two registers of a fragment exchanged", "linear_few8", `(mma\.sync\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+),`, 8, "${1}{${3},${2},", playFew, otherAnswer},
	{"a fragment's rows 8 to 15 are rows 0 to 7", "linear_many", `(mma\.sync\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+),`, 3, "${1}{${2},${2},", playMany, otherAnswer},
	{"a tile is read before it is there", "linear_many", waitOne, 0, late, playMany, unfinished},
	{"no barrier between tiles", "linear_many", barrier, 0, "", playMany, race},
	{"a fragment that is not turned", "linear_grad", `(ldmatrix\.sync\.aligned\.m8n8\.x4)\.trans`, 0, "${1}", playMany, otherAnswer},
	{"no barrier between the gradient's tiles", "linear_grad", barrier, 0, "", playMany, race},
	{"what is left of an activation is dropped", "pack_tokens", `sub(\.(?:rn\.)?f32\s+%f\d+, %f\d+, )%f\d+;`, 8, "sub${1}%f1;", playFew, otherAnswer},
	{"keys are read before they are there", "attention_rows32", waitOne, 0, late, playPrefill, unfinished},
	{"no barrier before keys are used", "attention_rows32", barrier, 0, "", playPrefill, race},
	{"no barrier before a stage of keys is filled again", "attention_rows32", barrier, 1, "", playPrefill, race},
	{"the next page", "attention_rows32", `(ld\.global\.s32\s+%rd\d+, \[%rd\d+)\];`, 1, "${1}+4];", playPrefill, bounds},
	{"keys of a segment are read before they are there", "attention_split32", waitOne, 0, late, playDecode, unfinished},
	{"no barrier before a segment's keys are used", "attention_split32", barrier, 0, "", playDecode, race},
	{"no barrier between a segment's stages", "attention_split32", barrier, 1, "", playDecode, race},
	{"every other segment is left out", "attention_join", `add\.s32(\s+%r\d+, %r\d+, )256;`, 0, "add.s32${1}512;", playDecode, otherAnswer},
	{"the gradient's keys are read before they are there", "attention_grad_q32", waitOne, 0, late, playGradient, unfinished},
	{"no barrier between blocks of keys", "attention_grad_q32", barrier, 1, "", playGradient, race},
	{"the gradient's queries are read before they are there", "attention_grad_kv32", waitOne, 0, late, playGradient, unfinished},
	{"no barrier between blocks of queries", "attention_grad_kv32", barrier, 1, "", playGradient, race},
}

// Each planted bug is caught, by what the table says. The test's log has the messages.
func TestMutations(t *testing.T) { plantAll(t, 80, mutations) }

// plantAll plants bugs on a simulated GPU of a capability.
func plantAll(t *testing.T, capability int, bugs []mutation) {
	wants := map[uintptr][]byte{} // of the plays without a bug
	for _, m := range bugs {
		t.Run(m.kernel+" "+m.bug, func(t *testing.T) {
			play := reflect.ValueOf(m.play).Pointer()
			if wants[play] == nil {
				want, err := m.play(t, simulatedAs(t, ptxsim.Options{Capability: capability}))
				if err != nil {
					t.Fatalf("without the bug: %v", err)
				}
				wants[play] = want
			}
			planted := false
			d, err := On(mutant{ptxsim.New(ptxsim.Options{Capability: capability}), func(text string) string {
				edited, ok := m.plant(text)
				planted = planted || ok
				return edited
			}}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !planted {
				t.Fatalf("%s has no match %d of %q", m.kernel, m.nth, m.find)
			}
			got, err := m.play(t, d)
			by := otherAnswer
			switch {
			case err != nil:
				by = err.Error()
			case slices.Equal(got, wants[play]):
				by = "nothing"
			}
			if !strings.Contains(by, m.caught) {
				t.Errorf("caught by %s, not by %s", by, m.caught)
			}
			_, message, found := strings.Cut(by, "cuLaunchKernel: ")
			if !found {
				message = by
			}
			t.Logf("| %s | %s | %s |", m.kernel, m.bug, message)
		})
	}
}

// plant puts the bug into a module's text, where the kernel is there.
func (m mutation) plant(text string) (string, bool) {
	from := strings.Index(text, ".entry "+m.kernel+"(")
	if from < 0 {
		return text, false
	}
	to := len(text)
	if n := strings.Index(text[from+1:], ".entry "); n >= 0 {
		to = from + 1 + n
	}
	re := regexp.MustCompile(m.find)
	all := re.FindAllStringSubmatchIndex(text[from:to], -1)
	if len(all) <= m.nth {
		return text, false
	}
	at := all[m.nth]
	put := re.ExpandString(nil, m.put, text[from:to], at)
	return text[:from+at[0]] + string(put) + text[from+at[1]:], true
}

// answer reads tensors, or the failure.
func answer(d *Device, ts ...k.Tensor) (all []byte, err error) {
	for _, x := range ts {
		raw := make([]byte, 4*x.Rows*x.Cols)
		if err := d.Read(raw, x); err != nil {
			return nil, err
		}
		all = append(all, raw...)
	}
	return all, nil
}

func source() *rand.Rand { return rand.New(rand.NewPCG(7, 8)) }

func playNorm(t *testing.T, d *Device) ([]byte, error) {
	g := source()
	long, short := random(d, g, 2, 1100), random(d, g, 3, 70)
	d.RMSNorm(long, long, random(d, g, 1, 1100), 1e-6)
	d.RMSNorm(short, short, random(d, g, 1, 35), 1e-6)
	return answer(d, long, short)
}

func playSquares(t *testing.T, d *Device) ([]byte, error) {
	out := d.New(k.F32, 1, 1)
	d.SumSquares(out, random(d, source(), 9, 3000))
	return answer(d, out)
}

func playSample(t *testing.T, d *Device) ([]byte, error) {
	const rows, vocab = 3, 3000
	g := source()
	x, ids, lp, lse, u := random(d, g, rows, vocab), d.New(k.I32, rows, 1), d.New(k.F32, rows, 1), d.New(k.F32, rows, 1), d.New(k.F32, rows, 1)
	words := make([]int32, rows*ceil(vocab, 32))
	for i := range words {
		words[i] = int32(g.Uint32())
	}
	mask := d.New(k.I32, rows, ceil(vocab, 32))
	d.Write(mask, intBytes(words))
	d.Fill(u, 0.7)
	d.Sample(ids, lp, x, u, k.Dist{Mask: mask})
	all, err := answer(d, ids, lp)
	if err != nil {
		return nil, err
	}
	d.LogProb(lp, lse, x, ids, k.Dist{Mask: mask})
	scored, err := answer(d, lp, lse)
	return append(all, scored...), err
}

func playScore(t *testing.T, d *Device) ([]byte, error) { return score(d, 3, 1200, 40) }

// score goes through a bf16 head, forward and backward.
func score(d *Device, rows, vocab, in int) ([]byte, error) {
	g, raw, ids := source(), make([]byte, 0, 2*vocab*in), make([]int32, rows)
	for range vocab * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	for i := range ids {
		ids[i] = int32(g.IntN(vocab))
	}
	w, x, id := d.Load(k.Format{Type: k.BF16}, vocab, in, raw), random(d, g, rows, in), column32(d, ids...)
	coef, dx := random(d, g, rows, 1), random(d, g, rows, in)
	lp, lse, h := d.New(k.F32, rows, 1), d.New(k.F32, rows, 1), d.New(k.F32, rows, 1)
	words, temps := make([]int32, rows*ceil(vocab, 32)), make([]float32, rows)
	for i := range words {
		words[i] = int32(g.Uint32())
	}
	for i, id := range ids {
		words[i*ceil(vocab, 32)+int(id)/32] |= 1 << (id % 32)
		temps[i] = float32(i%3) / 2
	}
	dist := k.Dist{Mask: d.New(k.I32, rows, ceil(vocab, 32)), Temperature: d.New(k.F32, rows, 1)}
	d.Write(dist.Mask, intBytes(words))
	d.Write(dist.Temperature, floatBytes(temps))
	d.Score(lp, lse, h, x, w, id, dist)
	d.ScoreGrad(dx, x, w, lse, id, coef, dist)
	return answer(d, lp, lse, h, dx)
}

func playRows(t *testing.T, d *Device) ([]byte, error) {
	g := source()
	a, b, out := random(d, g, 3, 9), random(d, g, 3, 9), d.New(k.F32, 3, 7)
	d.Add(out, a.Columns(2, 7), b.Columns(2, 7)) // ends where the memory does
	all, err := answer(d, out)
	if err != nil {
		return nil, err
	}
	d.Gather(out, a.Columns(0, 7), column32(d, 0, 3, 1)) // there is no row 3
	_, err = answer(d, out)
	return fmt.Append(all, err), nil
}

func playFew(t *testing.T, d *Device) ([]byte, error)  { return frozen(d, 5, 2500) }
func playMany(t *testing.T, d *Device) ([]byte, error) { return frozen(d, 70, 200) }

// frozen multiplies with a bf16 weight of 150 outputs, both ways.
func frozen(d *Device, rows, in int) ([]byte, error) {
	const n = 150
	g, raw := source(), make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, x, out, dx := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), d.New(k.F32, rows, n), d.New(k.F32, rows, in)
	d.Linear(out, x, w, k.Tensor{})
	d.LinearGrad(dx, out, w)
	return answer(d, out, dx)
}

func playPrefill(t *testing.T, d *Device) ([]byte, error) { return attend(d, 32, 20, 90, true, false) }
func playDecode(t *testing.T, d *Device) ([]byte, error)  { return attend(d, 32, 1, 600, true, false) }
func playGradient(t *testing.T, d *Device) ([]byte, error) {
	return attend(d, 32, 100, 100, false, true)
}
