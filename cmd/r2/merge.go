package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/weights"
)

type mergeCmd struct {
	Model   string `required:"" placeholder:"DIR" help:"The base: a folder in the Hugging Face layout."`
	Adapter string `required:"" placeholder:"DIR" help:"The adapter, in PEFT's layout."`
	Out     string `required:"" placeholder:"DIR" help:"The merged model."`
	outputFlags
}

func (c *mergeCmd) Help() string {
	return `Example:

  r2 merge --model models/qwen --adapter runs/sft/adapter --out models/qwen-tuned

Each module's weight W becomes W + scale·B·A, added up in float64 and rounded to the type W is
stored in: in bfloat16 that is not quite what base and adapter compute together. Everything else is copied.`
}

// Run merges.
func (c *mergeCmd) Run() error {
	base, err := weights.Open(c.Model)
	if err != nil {
		return err
	}
	defer base.Close()
	if base.Vocabulary() != nil {
		return fmt.Errorf("%s: a GGUF file cannot be merged into: take the model's folder", c.Model)
	}
	a, err := weights.OpenAdapter(c.Adapter)
	if err != nil {
		return err
	}
	if err := a.Check(base.Config); err != nil {
		return fmt.Errorf("%s: %w", c.Adapter, err)
	}
	if _, err := os.Stat(c.Out); err == nil {
		return fmt.Errorf("%s is there already; use another --out", c.Out)
	}
	tensors, merged, err := merge(base, a)
	if err != nil {
		return err
	}
	err = weights.WriteDir(c.Out, func(tmp string) error {
		if err := weights.WriteSafetensors(filepath.Join(tmp, "model.safetensors"), tensors, map[string]string{"format": "pt"}); err != nil {
			return err
		}
		return copyFiles(c.Model, tmp, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
			"chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
	})
	if err != nil {
		return err
	}
	c.note("%d of %d tensors changed", merged, len(tensors))
	if !c.JSON {
		fmt.Println(c.Out)
		return nil
	}
	fmt.Printf("{\"out\":%q,\"merged\":%d,\"tensors\":%d}\n", c.Out, merged, len(tensors))
	return nil
}

// merge is the base's tensors with the adapter's pairs added. Only what changes is held in memory.
func merge(base *weights.Model, a *weights.Adapter) (out []weights.Tensor, merged int, err error) {
	pairs := map[string]weights.Pair{}
	for module, p := range a.Pairs {
		pairs[module+".weight"] = p
	}
	for _, name := range base.Names() {
		t, err := base.Tensor(name)
		if err != nil {
			return nil, 0, err
		}
		if p, ok := pairs[name]; ok {
			if t.Type > weights.BF16 {
				return nil, 0, fmt.Errorf("tensor %s is of type %v: merging writes F32, F16 and BF16", name, t.Type)
			}
			w := add(t.Float64(nil), p)
			t = weights.Encode(name, t.Type, t.Shape, w)
			if ok, at := t.Finite(); !ok {
				return nil, 0, fmt.Errorf("tensor %s: element %d is not a finite number once merged", name, at)
			}
			merged++
		}
		out = append(out, t)
	}
	if merged != len(pairs) {
		return nil, 0, fmt.Errorf("the adapter has %d modules, the base %d of them", len(pairs), merged)
	}
	return out, merged, nil
}

// add is W + scale·B·A in float32, summed in float64.
func add(w []float64, p weights.Pair) []float32 {
	out := make([]float32, len(w))
	for o := range p.Out {
		row := w[o*p.In : (o+1)*p.In]
		for r := range p.Rank {
			b := p.Scale * float64(p.B[o*p.Rank+r])
			for i, x := range p.A[r*p.In : (r+1)*p.In] {
				row[i] += b * float64(x)
			}
		}
		for i, x := range row {
			out[o*p.In+i] = float32(x)
		}
	}
	return out
}
