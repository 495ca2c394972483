package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

// openShipped opens a model on an engine that runs until the test ends, with room for adapters.
func openShipped(t *testing.T, dir string) (*Host, *runner.Runner) {
	t.Helper()
	w, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := model.Load(cpu.New(2), w.Config, w, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const pages, pageSize, tokens, sequences = 512, 16, 64, 16
	run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: sequences, Wanted: tokens, Pages: 16, PageSize: pageSize, Rank: 64, Masks: true}, pages)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(run, kvcache.New(pages, pageSize), engine.Options{Vocab: w.Config.Vocab, Context: d.Context, TokensPerStep: tokens, MaxSequences: sequences})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	var eos []int32
	for _, id := range w.Generation.EOS {
		eos = append(eos, int32(id))
	}
	return &Host{Engine: e, Tokenizer: tok, Forms: local.NewForms(tok, w.Config.Vocab, eos), EOS: eos, Vocab: w.Config.Vocab, Context: d.Context}, run
}

// An adapter that is loaded and replaced over HTTP computes what its weights say, to the bit, each time it is loaded, and
// the base is what it was.
func TestRealAdapters(t *testing.T) {
	miniature := filepath.Join("..", "..", "cmd", "r2", "miniature")
	host, run := openShipped(t, filepath.Join(miniature, "router"))
	root, err := os.OpenRoot(miniature)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c := &Catalog{Source: &Source{Host: host, Parent: "m", Root: root, Open: func(dir string) (engine.Adapter, error) {
		w, err := weights.OpenAdapter(dir)
		if err != nil {
			return engine.Adapter{}, err
		}
		return run.Adapter(w), nil
	}}}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	s := &shelf{Handler: &openai.Handler{Models: c}}
	answer := func(model string) string {
		status, body := s.post("/v1/completions", `{"model":"`+model+`","prompt":"jump twice after walk left","temperature":0,"max_tokens":8,"logprobs":0,"return_token_ids":true}`)
		var r openai.Response
		if err := json.Unmarshal([]byte(body), &r); err != nil || status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		out := fmt.Sprint(r.Choices[0].IDs)
		for _, lp := range r.Choices[0].LogProbs.TokenLogProbs {
			out += fmt.Sprintf(" %08x", math.Float32bits(*lp))
		}
		return out
	}
	base := answer("m")
	s.load(t, `"lora_name":"x","lora_path":"allocator"`, 200, `"generation":1`)
	first := answer("x")
	s.load(t, `"lora_name":"x","lora_path":"decomposer","load_inplace":true`, 200, `"generation":2`)
	second := answer("x")
	s.load(t, `"lora_name":"x","lora_path":"allocator","load_inplace":true`, 200, `"generation":3`)
	if third := answer("x"); third != first || first == second || first == base || second == base {
		t.Errorf("base %s\nallocator %s\ndecomposer %s\nallocator again %s", base, first, second, third)
	}
	if again := answer("m"); again != base {
		t.Errorf("base %s, before %s", again, base)
	}
	s.load(t, `"lora_name":"y","lora_path":"maxi"`, 400, "adapter_config.json")
}
