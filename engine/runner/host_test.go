package runner_test

import (
	"fmt"
	"testing"

	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// plain hides that a device lends its threads.
type plain struct{ kernels.Backend }

// Rows that are drawn on the host are drawn alike on any number of threads, in any company and on a device that lends
// none: each as it is drawn alone.
func TestHostRows(t *testing.T) {
	src := modeltest.Tiny("llama", 1)
	const n, pageSize = 9, 4
	draws := make([]sample.Draw, n)
	for i := range draws {
		d := &draws[i]
		*d = sample.Draw{Params: sample.Params{Temperature: 0.9, Seed: uint64(i)}, Step: uint32(i), Top: 3, Prompt: []int32{3, 4}, Drawn: []int32{7, int32(i)}}
		switch i % 4 {
		case 0:
			d.TopP = 0.7
		case 1:
			d.TopK, d.MinP = 6, 0.1
		case 2:
			d.Repetition, d.Frequency = 1.3, 0.5
		case 3:
			d.Bias = []sample.Bias{{ID: 5, Add: 2}}
		}
	}
	draws[4].TopP = 0 // one on the device, between others
	words := (src.Config.Vocab + 31) / 32
	run := func(be kernels.Backend, from, to int) (out []string) {
		d, err := model.Load(be, src.Config, src, model.Options{Context: 64})
		if err != nil {
			t.Fatal(err)
		}
		r, err := runner.New(d, model.Size{Tokens: 16, Sequences: n, Wanted: 16, Slice: 6, Pages: 8, PageSize: pageSize, Masks: true}, 64)
		if err != nil {
			t.Fatal(err)
		}
		b := &batch.Batch{Starts: []int32{0}}
		for s := range int32(to - from) {
			b.Tokens, b.Positions, b.Slots = append(b.Tokens, 3+int32(from)+s), append(b.Positions, 0), append(b.Slots, pageSize*s)
			b.Starts, b.Lengths, b.Pages = append(b.Starts, s+1), append(b.Lengths, 1), append(b.Pages, []int32{s})
			b.Want, b.Temperatures = append(b.Want, s), append(b.Temperatures, 0.9)
			for w := range words {
				b.Masks = append(b.Masks, ^uint32(1<<((int(s)+from+w)%32)))
			}
		}
		tokens, err := r.Step(b, draws[from:to])
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range tokens {
			out = append(out, fmt.Sprint(k))
		}
		return out
	}
	var alone []string
	for i := range n {
		alone = append(alone, run(plain{cpu.New(1)}, i, i+1)...)
	}
	for name, be := range map[string]kernels.Backend{"one thread": cpu.New(1), "two": cpu.New(2), "three": cpu.New(3), "more than rows": cpu.New(16), "none lent": plain{cpu.New(2)}} {
		for i, got := range run(be, 0, n) {
			if got != alone[i] {
				t.Errorf("%s: row %d: %s, alone %s", name, i, got, alone[i])
			}
		}
	}
}
