package runner_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A step of decoding, with adapters, masks and one row whose logits come to the host, allocates nothing.
func TestStepAllocatesNothing(t *testing.T) {
	src := modeltest.Tiny("qwen2", 1)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	const pageSize, n = 4, 6
	run, err := runner.New(d, model.Size{Tokens: 16, Sequences: n, Wanted: 16, Slice: 4, Pages: 8, PageSize: pageSize, Rank: 4, Masks: true}, 64)
	if err != nil {
		t.Fatal(err)
	}
	run.SetAdapter(1, adapter(t, d, 4, 1))
	words := (src.Config.Vocab + 31) / 32
	b := &batch.Batch{Starts: []int32{0}}
	draws := make([]sample.Draw, n)
	for s := range int32(n) {
		b.Tokens, b.Positions, b.Slots = append(b.Tokens, s+3), append(b.Positions, 5), append(b.Slots, 8*s+5)
		b.Starts, b.Lengths, b.Pages = append(b.Starts, s+1), append(b.Lengths, 6), append(b.Pages, []int32{2 * s, 2*s + 1})
		b.Adapters, b.Want, b.Temperatures = append(b.Adapters, s/3), append(b.Want, s), append(b.Temperatures, 0.8)
		draws[s] = sample.Draw{Params: sample.Params{Temperature: 0.8, Seed: 1}, Step: 2}
		for range words {
			b.Masks = append(b.Masks, 1<<32-1)
		}
	}
	draws[2].TopK = 5
	step := func() {
		if _, err := run.Step(b, draws); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if allocs := testing.AllocsPerRun(50, step); allocs > 0 {
		t.Errorf("%v allocations a step", allocs)
	}
}

// hostAdapter is one of random pairs on all projections.
func hostAdapter(t testing.TB, c weights.Config, rank int, seed uint64) *weights.Adapter {
	t.Helper()
	a, err := model.RandomAdapter(c, weights.AdapterConfig{R: rank, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, seed)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		for i := range p.B {
			p.B[i] = float32(rng.NormFloat64()) / 8
		}
	}
	return a
}

// adapter takes one to the device.
func adapter(t *testing.T, d *model.Decoder, rank int, seed uint64) *model.Adapter {
	t.Helper()
	ad, err := d.LoadAdapter(hostAdapter(t, d.Config, rank, seed))
	if err != nil {
		t.Fatal(err)
	}
	return ad
}
