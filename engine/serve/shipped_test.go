package serve

import (
	"context"
	"errors"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

// openShipped opens a model on an engine that runs until the test ends.
func openShipped(t *testing.T, dir string) *Host {
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
	run, err := runner.New(d, model.Size{Tokens: tokens, Sequences: sequences, Wanted: tokens, Pages: 16, PageSize: pageSize, Masks: true}, pages)
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
	return &Host{Engine: e, Tokenizer: tok, Forms: local.NewForms(tok, w.Config.Vocab, eos), EOS: eos, Vocab: w.Config.Vocab, Context: d.Context}
}
