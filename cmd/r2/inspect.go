package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/weights"
)

type inspectCmd struct {
	Path    string `arg:"" help:"A model, adapter, checkpoint or run."`
	Tensors bool   `help:"List every tensor."`
	outputFlags
}

func (c *inspectCmd) Help() string {
	return `Example:

  r2 inspect models/smollm2 --tensors`
}

// A tensorInfo describes one tensor.
type tensorInfo struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
}

// An inspection is what was found.
type inspection struct {
	Kind       string           `json:"kind"` // model, adapter, checkpoint or run
	Path       string           `json:"path"`
	Config     json.RawMessage  `json:"config,omitempty"`
	Parameters int              `json:"parameters,omitempty"`
	Types      map[string]int   `json:"types,omitempty"` // tensors by stored type
	Tensors    []tensorInfo     `json:"tensors,omitempty"`
	Memory     map[string]int64 `json:"memory_bytes,omitempty"`
	Step       *int             `json:"step,omitempty"`
	Verified   []string         `json:"verified,omitempty"` // files whose hashes are right
	Steps      []int            `json:"checkpoints,omitempty"`
}

// Run inspects.
func (c *inspectCmd) Run() error {
	i, err := c.inspect()
	if err != nil {
		return err
	}
	if c.JSON {
		return encodeLine(os.Stdout, i)
	}
	return i.print(os.Stdout)
}

func (c *inspectCmd) inspect() (*inspection, error) {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(c.Path, name))
		return err == nil
	}
	if _, err := os.Stat(c.Path); err != nil {
		return nil, err
	}
	switch {
	case has("checkpoints") || has("metrics.jsonl"):
		return c.run()
	case has("state.json"):
		return c.checkpoint()
	case has("adapter_config.json"):
		return c.adapter()
	}
	return c.model()
}

func (c *inspectCmd) model() (*inspection, error) {
	m, err := weights.Open(c.Path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	i := &inspection{Kind: "model", Path: c.Path, Config: m.Config.JSON(), Types: map[string]int{}}
	for _, name := range m.Names() {
		t, err := m.Tensor(name)
		if err != nil {
			return nil, err
		}
		if ok, at := t.Finite(); !ok {
			return nil, fmt.Errorf("tensor %s: element %d is not a finite number; the file is damaged", name, at)
		}
		i.add(t, c.Tensors)
	}
	cache := int64(m.Config.Layers * 2 * m.Config.KVHeads * m.Config.HeadDim * 4)
	i.Memory = map[string]int64{"weights_f32": 4 * int64(i.Parameters), "weights_bf16": 2 * int64(i.Parameters), "cache_per_1k_tokens": 1024 * cache}
	return i, nil
}

func (i *inspection) add(t weights.Tensor, list bool) {
	i.Parameters += t.Len()
	i.Types[t.Type.String()]++
	if list {
		i.Tensors = append(i.Tensors, tensorInfo{t.Name, t.Type.String(), t.Shape})
	}
}

func (c *inspectCmd) adapter() (*inspection, error) {
	a, err := weights.OpenAdapter(c.Path)
	if err != nil {
		return nil, err
	}
	i := &inspection{Kind: "adapter", Path: c.Path, Config: a.Config.JSON(), Types: map[string]int{}}
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		i.add(weights.Tensor{Name: module + ".lora_A.weight", Shape: []int{p.Rank, p.In}}, c.Tensors)
		i.add(weights.Tensor{Name: module + ".lora_B.weight", Shape: []int{p.Out, p.Rank}}, c.Tensors)
	}
	i.Memory = map[string]int64{"weights_f32": 4 * int64(i.Parameters)}
	return i, nil
}

func (c *inspectCmd) checkpoint() (*inspection, error) {
	st, err := train.Verify(c.Path)
	if err != nil {
		return nil, err
	}
	i := &inspection{Kind: "checkpoint", Path: c.Path, Step: &st.Step, Verified: slices.Sorted(maps.Keys(st.Files))}
	if _, err := os.Stat(filepath.Join(c.Path, "adapter_config.json")); err == nil {
		a, err := c.adapter()
		if err != nil {
			return nil, err
		}
		i.Config, i.Parameters, i.Types, i.Tensors = a.Config, a.Parameters, a.Types, a.Tensors
	}
	return i, nil
}

func (c *inspectCmd) run() (*inspection, error) {
	steps, err := train.Checkpoints(filepath.Join(c.Path, "checkpoints"))
	if err != nil {
		return nil, err
	}
	i := &inspection{Kind: "run", Path: c.Path, Steps: steps}
	var broken error
	for _, s := range steps {
		st, err := train.Verify(filepath.Join(c.Path, "checkpoints", fmt.Sprint(s)))
		if err != nil {
			broken = errors.Join(broken, err)
			continue
		}
		i.Step = &st.Step
		i.Verified = append(i.Verified, fmt.Sprint("checkpoints/", s))
	}
	return i, broken
}

func (i *inspection) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\n", i.Kind, i.Path)
	if i.Parameters > 0 {
		fmt.Fprintf(w, "parameters\t%d\n", i.Parameters)
	}
	for _, t := range slices.Sorted(maps.Keys(i.Types)) {
		fmt.Fprintf(w, "tensors of %s\t%d\n", t, i.Types[t])
	}
	for _, m := range slices.Sorted(maps.Keys(i.Memory)) {
		fmt.Fprintf(w, "%s\t%.1f MiB\n", m, float64(i.Memory[m])/(1<<20))
	}
	if i.Step != nil {
		fmt.Fprintf(w, "step\t%d\n", *i.Step)
	}
	if len(i.Steps) > 0 {
		fmt.Fprintf(w, "checkpoints\t%v\n", i.Steps)
	}
	for _, v := range i.Verified {
		fmt.Fprintf(w, "hash right\t%s\n", v)
	}
	for _, t := range i.Tensors {
		fmt.Fprintf(w, "%s\t%s %v\n", t.Name, t.Type, t.Shape)
	}
	if len(i.Config) > 0 {
		fmt.Fprintf(w, "%s\n", i.Config)
	}
	return w.Flush()
}
