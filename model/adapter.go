package model

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// An Adapter is the LoRA pairs of one policy on the device. Whoever trains it writes its tensors in
// place, so that the next batch of whoever samples with it reads them: there is no copy to bring up
// to date.
type Adapter struct {
	Config weights.AdapterConfig
	Rank   int // the largest
	sites  []pair
	stacks [][]stack // of the sites with one input, by the first of them
}

// A pair adds Scale·x·Aᵀ·Bᵀ to a projection: A is rank × in, B is out × rank. A is zero where the
// adapter has no pair.
type pair struct {
	Scale float32
	A, B  kernels.Tensor
	at    int // the column of activations.low where Scale·x·Aᵀ begins
}

// A stack is the A of pairs with one input and one scale, below each other, so that one product serves all of
// them. The pairs' own A are views of it.
type stack struct {
	Scale float32
	A     kernels.Tensor
	at    int   // of the first pair
	of    []int // their sites
}

// view is the rows of pair p.
func (s *stack) view(p *pair) kernels.Tensor { return s.A.Slice(p.at-s.at, p.B.Cols) }

// inputs are the sites of a layer that take the same input: the first, and how many.
var inputs = [...][2]int{{siteQ, 3}, {siteO, 1}, {siteGate, 2}, {siteDown, 1}}

// modulePath is the module that site i of an adapter adds to.
func (d *Decoder) modulePath(i int) string { return d.Config.Projections(i / sites)[i%sites].Module }

// LoadAdapter takes an adapter to the device. An adapter of another model is refused.
func (d *Decoder) LoadAdapter(a *weights.Adapter) (*Adapter, error) {
	if err := a.Check(d.Config); err != nil {
		return nil, err
	}
	n := len(d.layers) * sites
	for i := range n {
		if w, ok := a.Pairs[d.modulePath(i)]; ok {
			if err := finite(d.modulePath(i), w); err != nil {
				return nil, err
			}
		}
	}
	ad := &Adapter{Config: a.Config, sites: make([]pair, n), stacks: make([][]stack, n)}
	for layer := range d.layers {
		at := 0
		for _, in := range inputs {
			at = d.loadPairs(ad, a, layer*sites+in[0], in[1], at)
		}
	}
	return ad, d.be.Sync()
}

// loadPairs takes the pairs of n sites with one input to the device. Theirs are the columns of activations.low
// from at on; it returns the one after them.
func (d *Decoder) loadPairs(ad *Adapter, a *weights.Adapter, first, n, at int) int {
	var stacks []stack
	var rows [][]float32 // of each stack
	for i := first; i < first+n; i++ {
		w, ok := a.Pairs[d.modulePath(i)]
		if !ok {
			continue
		}
		p := pair{Scale: float32(w.Scale), B: d.be.New(kernels.F32, w.Out, w.Rank), at: at}
		d.be.Write(p.B, floatBytes(w.B))
		last := len(stacks) - 1
		if last < 0 || stacks[last].Scale != p.Scale {
			stacks, rows, last = append(stacks, stack{Scale: p.Scale, at: at}), append(rows, nil), last+1
		}
		stacks[last].of, rows[last] = append(stacks[last].of, i), append(rows[last], w.A...)
		ad.sites[i], ad.Rank = p, max(ad.Rank, w.Rank)
		at += w.Rank
	}
	for j := range stacks {
		s := &stacks[j]
		in := a.Pairs[d.modulePath(s.of[0])].In
		s.A = d.be.New(kernels.F32, len(rows[j])/in, in)
		d.be.Write(s.A, floatBytes(rows[j]))
		for _, i := range s.of {
			ad.sites[i].A = s.view(&ad.sites[i])
		}
	}
	ad.stacks[first] = stacks
	return at
}

func finite(module string, p weights.Pair) error {
	for name, m := range map[string][]float32{"lora_A": p.A, "lora_B": p.B} {
		if i := slices.IndexFunc(m, func(x float32) bool { return x-x != 0 }); i >= 0 {
			return fmt.Errorf("adapter: %s.%s: element %d is not a finite number; the file is damaged", module, name, i)
		}
	}
	return nil
}

// FreeAdapter gives the adapter's memory back.
func (d *Decoder) FreeAdapter(a *Adapter) {
	for _, stacks := range a.stacks {
		for _, s := range stacks {
			d.be.Free(s.A)
			for _, i := range s.of {
				d.be.Free(a.sites[i].B)
			}
		}
	}
}

// SaveAdapter reads an adapter back from the device.
func (d *Decoder) SaveAdapter(a *Adapter) (*weights.Adapter, error) {
	out := &weights.Adapter{Config: a.Config, Pairs: map[string]weights.Pair{}}
	for i, s := range a.sites {
		if s.A.Zero() {
			continue
		}
		w := weights.Pair{Rank: s.A.Rows, Scale: float64(s.Scale), In: s.A.Cols, Out: s.B.Rows}
		var err error
		if w.A, err = d.read(s.A); err != nil {
			return nil, err
		}
		if w.B, err = d.read(s.B); err != nil {
			return nil, err
		}
		out.Pairs[d.modulePath(i)] = w
	}
	return out, nil
}

func (d *Decoder) read(t kernels.Tensor) ([]float32, error) {
	b := make([]byte, 4*t.Rows*t.Cols)
	if err := d.be.Read(b, t); err != nil {
		return nil, err
	}
	return bytesFloats(b), nil
}

// RandomAdapter is a new adapter for a model, as PEFT begins one: A uniform within ±1/√in (He et al.
// 2015, with a = √5), B zero, so that it changes nothing yet.
func RandomAdapter(c weights.Config, cfg weights.AdapterConfig, seed uint64) (*weights.Adapter, error) {
	a, err := weights.NewAdapter(cfg, c)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 0x10a))
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		bound := 1 / math.Sqrt(float64(p.In))
		for j := range p.A {
			p.A[j] = float32((2*rng.Float64() - 1) * bound)
		}
	}
	return a, nil
}

// Modules are the names of the projections an adapter may add to.
func Modules() []string {
	var m []string
	for _, p := range (weights.Config{}).Projections(0) {
		m = append(m, p.Module[strings.LastIndexByte(p.Module, '.')+1:])
	}
	return m
}
