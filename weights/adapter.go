package weights

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An Adapter is a set of low-rank pairs (LoRA, Hu et al. 2021) in the layout of PEFT.
type Adapter struct {
	Config AdapterConfig
	Pairs  map[string]Pair // by module, such as "model.layers.0.self_attn.q_proj"
}

// A Pair adds Scale·B(Ax) to what its module makes of x.
type Pair struct {
	Rank    int
	Scale   float64   // α/r, or α/√r with RSLoRA; patterns applied
	In, Out int       // of the module
	A, B    []float32 // Rank × In and Out × Rank, row-major
}

const (
	adapterConfigFile = "adapter_config.json"
	adapterFile       = "adapter_model.safetensors"
	modulePrefix      = "base_model.model."
	suffixA, suffixB  = ".lora_A.weight", ".lora_B.weight"
)

// NewAdapter returns the adapter of zeros that cfg describes for a model: a pair for each targeted
// module.
func NewAdapter(cfg AdapterConfig, c Config) (*Adapter, error) {
	r, err := cfg.compile()
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	a := &Adapter{Config: cfg, Pairs: map[string]Pair{}}
	for i := range c.Layers {
		for _, p := range c.Projections(i) {
			if !r.targets(p.Module) {
				continue
			}
			n := r.rank(p.Module)
			a.Pairs[p.Module] = Pair{
				Rank: n, Scale: r.scale(p.Module), In: p.In, Out: p.Out,
				A: make([]float32, n*p.In), B: make([]float32, p.Out*n),
			}
		}
	}
	if err := a.check(r); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	return a, nil
}

// OpenAdapter reads an adapter_config.json and the adapter_model.safetensors beside it, whose values
// may be F32, F16 or BF16. What would change the result and is not supported is refused by name; a
// dropout is kept in Config.Dropout, for training to look at.
func OpenAdapter(dir string) (*Adapter, error) {
	a, err := openAdapter(dir)
	if err != nil {
		return nil, fmt.Errorf("adapter: %s: %w", dir, err)
	}
	return a, nil
}

func openAdapter(dir string) (*Adapter, error) {
	b, err := readJSON(filepath.Join(dir, adapterConfigFile))
	if err != nil {
		return nil, err
	}
	a := &Adapter{Pairs: map[string]Pair{}}
	if a.Config, err = ParseAdapterConfig(b); err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfigFile, err)
	}
	r, err := a.Config.compile()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfigFile, err)
	}
	s, err := OpenSafetensors(filepath.Join(dir, adapterFile))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := a.read(s, r); err != nil {
		return nil, fmt.Errorf("%s: %w", adapterFile, err)
	}
	return a, a.check(r)
}

// read collects the pairs of a file.
func (a *Adapter) read(s *Safetensors, r *rules) error {
	for _, name := range s.Names() {
		module, isPart := strings.CutPrefix(name, modulePrefix)
		module, isA := strings.CutSuffix(module, suffixA)
		module, isB := strings.CutSuffix(module, suffixB)
		if !isPart || !isA && !isB {
			return fmt.Errorf("tensor %q is no part of a LoRA pair: not supported", name)
		}
		t, _ := s.Tensor(name)
		if len(t.Shape) != 2 {
			return fmt.Errorf("tensor %q: shape %v, want a matrix", name, t.Shape)
		}
		if t.Type > BF16 {
			return fmt.Errorf("tensor %q: %v is not supported", name, t.Type)
		}
		if ok, i := t.Finite(); !ok {
			return fmt.Errorf("tensor %q: element %d is not a finite number", name, i)
		}
		p := a.Pairs[module]
		if isA {
			p.A, p.In, p.Rank = t.Float32(nil), t.Cols(), t.Rows()
		} else {
			p.B, p.Out = t.Float32(nil), t.Rows()
		}
		a.Pairs[module] = p
	}
	if err := a.covers(); err != nil {
		return err
	}
	for module, p := range a.Pairs {
		p.Scale = r.scale(module)
		a.Pairs[module] = p
	}
	return nil
}

// check verifies that the pairs are whole and agree with the configuration.
func (a *Adapter) check(r *rules) error {
	if err := a.covers(); err != nil {
		return err
	}
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		rank := r.rank(module)
		switch {
		case p.A == nil || p.B == nil:
			return fmt.Errorf("module %s has only one of lora_A and lora_B", module)
		case p.Rank != rank:
			return fmt.Errorf("module %s has rank %d, the configuration says %d", module, p.Rank, rank)
		case len(p.A) != rank*p.In || len(p.B) != p.Out*rank:
			return fmt.Errorf("module %s: lora_A has %d values and lora_B %d, want %d × %d and %d × %d", module, len(p.A), len(p.B), rank, p.In, p.Out, rank)
		case float32(p.Scale) != float32(r.scale(module)): // a pair that was trained has been through float32
			return fmt.Errorf("module %s has scale %g, the configuration says %g", module, p.Scale, r.scale(module))
		case !r.targets(module):
			return fmt.Errorf("module %s has a pair, but target_modules does not name it", module)
		}
	}
	return nil
}

// covers verifies that each name in target_modules has a pair, and that matching them all with the
// patterns is no absurd amount of work.
func (a *Adapter) covers() error {
	seen := map[string]bool{}
	for module := range a.Pairs {
		for end := range endings(module) {
			seen[end] = true
		}
	}
	for _, target := range a.Config.Targets.Names {
		if !seen[target] {
			return fmt.Errorf("target_modules names %q, but there is no pair for it", target)
		}
	}
	if len(a.Pairs) == 0 {
		return errors.New("no LoRA pairs")
	}
	if n := len(a.Config.RankPattern) + len(a.Config.AlphaPattern); n > 1<<22/len(a.Pairs) {
		return fmt.Errorf("%d patterns for %d modules are too many", n, len(a.Pairs))
	}
	return nil
}

// Check verifies that a fits a model: each pair's module is one of its projections, with its
// dimensions, and each targeted projection has a pair.
func (a *Adapter) Check(c Config) error {
	r, err := a.Config.compile()
	if err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	known := map[string]bool{}
	for i := range c.Layers {
		for _, want := range c.Projections(i) {
			known[want.Module] = true
			have, ok := a.Pairs[want.Module]
			switch {
			case !ok && r.targets(want.Module):
				return fmt.Errorf("adapter of another model: it has no pair for %s of this %s model with %d layers", want.Module, c.Architecture, c.Layers)
			case ok && (have.In != want.In || have.Out != want.Out):
				return fmt.Errorf("adapter of another model: %s is %d × %d, this model's is %d × %d", want.Module, have.Out, have.In, want.Out, want.In)
			}
		}
	}
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		if !known[module] {
			if module == "lm_head" || module == "model.embed_tokens" {
				return fmt.Errorf("adapter: a pair on %s is not supported (on the projections of the layers they are)", module)
			}
			return fmt.Errorf("adapter of another model: %s is no projection of this %s model with %d layers", module, c.Architecture, c.Layers)
		}
	}
	return nil
}

// WriteAdapter writes a as a directory in PEFT's layout, whole or not at all. It replaces an adapter
// that is there, and refuses to replace a directory that holds anything else.
func WriteAdapter(dir string, a *Adapter) error {
	entries, _ := os.ReadDir(dir) // what is wrong with dir WriteDir will say
	for _, e := range entries {
		if e.Name() != adapterConfigFile && e.Name() != adapterFile {
			return fmt.Errorf("adapter: %s holds %s besides an adapter: it is not replaced", dir, e.Name())
		}
	}
	return WriteDir(dir, a.WriteFiles)
}

// WriteFiles writes a's two files into dir, which must be there: for a directory that holds more than
// an adapter and is itself made by WriteDir.
func (a *Adapter) WriteFiles(dir string) error {
	r, err := a.Config.compile()
	if err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	if err := a.check(r); err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	var tensors []Tensor
	for module, p := range a.Pairs {
		tensors = append(tensors,
			Encode(modulePrefix+module+suffixA, F32, []int{p.Rank, p.In}, p.A),
			Encode(modulePrefix+module+suffixB, F32, []int{p.Out, p.Rank}, p.B))
	}
	if err := WriteSafetensors(filepath.Join(dir, adapterFile), tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return writeBytes(filepath.Join(dir, adapterConfigFile), a.Config.JSON())
}
