package local_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

// open opens a model that the program ships, on an engine.
func open(t *testing.T, name string) *local.Model {
	t.Helper()
	dir := filepath.Join("..", "..", "cmd", "r2", "miniature", name)
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
	const pages, pageSize, tokens, sequences = 256, 16, 64, 16
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
	return &local.Model{Engine: e, Tokenizer: tok, EOS: []int32{0}, Context: d.Context, Forms: local.NewForms(tok, w.Config.Vocab, []int32{0})}
}

func ask(text string) router.Request {
	return router.Request{Messages: []router.Message{{Role: "user", Content: text}}, Temperature: new(0.0)}
}

const around = " I_TURN_LEFT I_JUMP I_TURN_LEFT I_JUMP I_TURN_LEFT I_JUMP I_TURN_LEFT I_JUMP"

// A text is decoded up to its end, without the end-of-text token; its parts as they come make the whole; each
// of its tokens has a log-probability and its bytes.
func TestComplete(t *testing.T) {
	m := open(t, "maxi")
	r := ask("jump around left")
	r.LogProbs = true
	c, err := m.Complete(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if c.Text != around || c.Finish != router.FinishStop || c.Out != 9 || c.In != 6 {
		t.Errorf("%+v", c)
	}
	if len(c.LogProbs) != 8 || strings.Join(c.Pieces, "") != around || slices.ContainsFunc(c.LogProbs, func(x float32) bool { return !(x <= 0) }) {
		t.Errorf("log-probabilities %v of %q", c.LogProbs, c.Pieces)
	}
	var parts []string
	var last *router.Completion
	for d, err := range m.Stream(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		parts, last = append(parts, d.Text), d.Done
	}
	if strings.Join(parts, "") != around || last == nil || last.Text != around || len(parts) < 8 {
		t.Errorf("streamed %q, then %+v", parts, last)
	}
}

// A stop string ends the text before it, though it begins inside one token and ends inside another; what may
// be its beginning is held back.
func TestStop(t *testing.T) {
	m := open(t, "maxi")
	for stop, want := range map[string]string{
		"LEFT I_J": " I_TURN_", "JUMP": " I_TURN_LEFT I_", "never": around, " I_TURN_LEFT": "", "P I_TURN_LEFT I_JUMP I_X": around,
	} {
		r := ask("jump around left")
		r.Stop = []string{stop}
		text := ""
		for d, err := range m.Stream(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			text += d.Text
			if d.Done != nil && (d.Done.Text != want || text != want || d.Done.Finish != router.FinishStop) {
				t.Errorf("stop %q: %q, streamed %q, %s; want %q", stop, d.Done.Text, text, d.Done.Finish, want)
			}
		}
	}
}

func TestForms(t *testing.T) {
	m := open(t, "maxi")
	r := ask("walk")
	r.Choices = []string{"midi", "maxi", "mini"}
	c, err := m.Complete(t.Context(), r)
	if err != nil || !slices.Contains(r.Choices, c.Text) {
		t.Errorf("%q, %v", c.Text, err)
	}
	r = ask("walk")
	r.Schema, r.LogProbs = `{"type":"array","items":{"enum":[1,2]},"minItems":2,"maxItems":2}`, true
	c, err = m.Complete(t.Context(), r)
	if err != nil || !slices.Contains([]string{"[1,1]", "[1,2]", "[2,1]", "[2,2]", "[1, 1]", "[1, 2]", "[2, 1]", "[2, 2]"}, c.Text) || c.Finish != router.FinishStop {
		t.Errorf("%q, %v", c.Text, err)
	}
	if n := len(c.LogProbs); n == 0 || c.LogProbs[0] != 0 { // "[" is all that is allowed
		t.Errorf("log-probabilities %v", c.LogProbs)
	}
	for _, bad := range []router.Request{{Schema: `{"type":"integer","minimum":1}`}, {Pattern: "("}} {
		r := ask("walk")
		r.Schema, r.Pattern = bad.Schema, bad.Pattern
		if _, err := m.Complete(t.Context(), r); !errors.Is(err, router.ErrRefused) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestLimits(t *testing.T) {
	m := open(t, "mini")
	r := ask("jump thrice")
	r.Limit = 2
	if c, err := m.Complete(t.Context(), r); err != nil || c.Text != " I_JUMP I_JUMP" || c.Finish != router.FinishLength {
		t.Errorf("%+v, %v", c, err)
	}
	for name, r := range map[string]router.Request{
		"a prompt beyond the context": ask(strings.Repeat("walk ", 300)), "no prompt": {Temperature: new(0.0)},
		"messages and a prompt": {Messages: ask("a").Messages, Prompt: "b"}, "a temperature below 0": {Prompt: "walk", Temperature: new(-1.0)},
	} {
		if _, err := m.Complete(t.Context(), r); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Complete(ctx, ask("walk")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	stats := m.Engine.Stats()
	if err := m.Engine.Exclusive(t.Context(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if s := m.Engine.Stats(); s.Running != 0 || s.Idle != s.Pages {
		t.Errorf("pages are not given back: %+v then %+v", stats, s)
	}
}

// A draw is a function of its seed: the same alone and among others.
func TestSeeds(t *testing.T) {
	m := open(t, "midi")
	draw := func(seed uint64) string {
		r := ask("jump opposite left thrice")
		r.Temperature, r.Seed, r.LogProbs = new(3.0), new(seed), true
		r.Limit = 20
		c, err := m.Complete(t.Context(), r)
		if err != nil {
			t.Error(err)
		}
		for _, lp := range c.LogProbs {
			if math.IsNaN(float64(lp)) {
				t.Error("a log-probability is not a number")
			}
		}
		return fmt.Sprint(c.Text, c.LogProbs)
	}
	alone := make([]string, 8)
	for i := range alone {
		alone[i] = draw(uint64(i))
	}
	if alone[0] == alone[1] {
		t.Error("two seeds draw the same")
	}
	done := make(chan bool)
	for i := range alone {
		go func() {
			if got := draw(uint64(i)); got != alone[i] {
				t.Errorf("seed %d: %s among others, %s alone", i, got, alone[i])
			}
			done <- true
		}()
	}
	for range alone {
		<-done
	}
}
