package local_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/weights"
)

// A log-probability stands at the place of its token: each is what the float64 reference gives that token in
// one pass over prompt and answer. (The command makes no sense, so that the model is in doubt.)
func TestLogProbPlaces(t *testing.T) {
	m := open(t, "maxi")
	r := ask("left and twice jump and opposite")
	r.LogProbs = true
	c, err := m.Complete(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	prompt, err := m.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	want := scores(t, "maxi", prompt, m.Tokenizer.Encode(c.Text, false))
	if len(want) < 5 || len(want) != len(c.LogProbs) {
		t.Fatalf("%d log-probabilities for the %d tokens of %q", len(c.LogProbs), len(want), c.Text)
	}
	doubt := 0
	for i, w := range want {
		if w < -0.05 {
			doubt++
		}
		if !(math.Abs(float64(w-c.LogProbs[i])) < 1e-4) {
			t.Errorf("token %d of %q: %v, want %v", i, c.Text, c.LogProbs[i], w)
		}
	}
	if doubt < 3 {
		t.Errorf("the model is too sure for this test to see anything: %v", want)
	}
}

// scores is the reference's log-probability of each token of text after prompt.
func scores(t *testing.T, name string, prompt, text []int32) []float32 {
	t.Helper()
	w, err := weights.Open(filepath.Join("..", "..", "cmd", "r2", "miniature", name))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	d, err := model.Load(ref.New(), w.Config, w, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := batch.Sequence{Tokens: append(append([]int32{}, prompt...), text...)}
	for i := range text {
		s.Predict = append(s.Predict, int32(len(prompt)+i))
	}
	var b batch.Batch
	batch.Pack(&b, []batch.Sequence{s}, len(s.Tokens))
	p := d.NewPass(model.Size{Tokens: len(s.Tokens), Sequences: 1, Wanted: len(s.Tokens)})
	if err := p.Load(&b, nil, nil); err != nil {
		t.Fatal(err)
	}
	p.Forward()
	out := make([]float32, len(text))
	if err := p.LogProbs(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// An answer that is cancelled half way ends with the reason, one whose reader leaves just ends, and both give
// their pages back.
func TestCancelHalfWay(t *testing.T) {
	m := open(t, "maxi")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ask("jump around left")
	r.IgnoreEOS = true
	parts, last := 0, error(nil)
	for d, err := range m.Stream(ctx, r) {
		if last = err; err == nil && d.Done == nil {
			parts++
		}
		cancel()
	}
	if !errors.Is(last, context.Canceled) || parts == 0 || parts > m.Context/2 {
		t.Errorf("after %d parts: %v", parts, last)
	}
	for range m.Stream(t.Context(), r) {
		break
	}
	if s := idle(t, m); s.Running != 0 || s.Waiting != 0 || s.Idle != s.Pages {
		t.Errorf("pages are not given back: %+v", s)
	}
}

// idle is the engine's state between two steps.
func idle(t *testing.T, m *local.Model) engine.Stats {
	t.Helper()
	if err := m.Engine.Exclusive(t.Context(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return m.Engine.Stats()
}

func TestOverflowSaysTheNumbers(t *testing.T) {
	m := open(t, "mini")
	r := ask(strings.Repeat("walk ", 300))
	prompt, err := m.Render(r)
	if err != nil || len(prompt) <= m.Context {
		t.Fatalf("%d tokens in a context of %d, %v", len(prompt), m.Context, err)
	}
	_, err = m.Complete(t.Context(), r)
	if want := fmt.Sprintf("%d tokens leave no room in the context of %d", len(prompt), m.Context); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}
