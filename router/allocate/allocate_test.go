package allocate

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/router"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

// nine is the method's pool, weakest first.
var nine = func() (cards []router.Card) {
	for i, name := range []string{"q0.5", "q1.5", "q3", "q7", "q14", "q32", "q72", "v3", "4o"} {
		cards = append(cards, router.Card{Name: name, Group: router.Group(i/3 + 1), Rank: i + 1})
	}
	cards[8].Price = router.Price{Input: 2_500_000, Output: 10_000_000}
	return cards
}()

var plan = router.Plan{"Find the price of one pen.", "Multiply it by six."}

const question = "Three pens cost 6 dollars. What do six cost?"

// script answers with its completions in turn, and keeps what it was asked.
type script struct {
	answers []router.Completion
	err     error
	asked   []router.Request
}

func (s *script) Complete(_ context.Context, r router.Request) (router.Completion, error) {
	s.asked = append(s.asked, r)
	return s.answers[(len(s.asked)-1)%len(s.answers)], s.err
}

func named(s *script) router.Model {
	return router.Model{Card: router.Card{Name: "base"}, Completer: s}
}

func texts(s ...string) *script {
	c := &script{}
	for _, text := range s {
		c.answers = append(c.answers, router.Completion{Text: text})
	}
	return c
}

func TestModel(t *testing.T) {
	s := texts("q3", " 4o\n")
	l := router.NewLedger(router.DefaultLimits)
	got, err := (&Model{Model: named(s)}).Allocate(t.Context(), l, question, plan, nine)
	if err != nil || !slices.Equal(got, []string{"q3", "4o"}) {
		t.Fatalf("%q, %v", got, err)
	}
	if n := len(l.Calls()); n != 2 || l.Calls()[1].Subtask != 2 {
		t.Errorf("ledger: %+v", l.Calls())
	}
	golden(t, "instruct.json", s.asked[1])
}

func TestModelFallsBack(t *testing.T) {
	for _, c := range []struct {
		name string
		s    *script
		want string // "": an error
	}{
		{"not a name", texts("the small one"), "q14"},
		{"unusable", &script{answers: []router.Completion{{}}, err: fmt.Errorf("not a choice: %w", router.ErrAnswer)}, "q14"},
		{"busy", &script{answers: []router.Completion{{}}, err: router.ErrBusy}, ""},
	} {
		got, err := (&Model{Model: named(c.s), Fallback: Fixed("q14")}).Choose(t.Context(), nil, question, plan, 0, nine)
		if got != c.want || (c.want == "") != (err != nil) {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	_, err := (&Model{Model: named(texts("x"))}).Choose(t.Context(), nil, question, plan, 0, nine)
	if !errors.Is(err, router.ErrAnswer) {
		t.Errorf("without a fallback: %v, want ErrAnswer", err)
	}
}

func TestCompactPrompt(t *testing.T) {
	r, err := (&Model{Model: named(nil), Prompt: Compact}).Request(question, plan, 1, nine[:2])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]router.Message{{Role: "user", Content: "Multiply it by six."}}, r.Messages); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(r.Choices, []string{"q0.5", "q1.5"}) {
		t.Errorf("choices %q", r.Choices)
	}
}

// logs are natural logs of probabilities.
func logs(p ...float64) (out []float32) {
	for _, x := range p {
		out = append(out, float32(math.Log(x)))
	}
	return out
}

// By hand from the method's §3: p₍min(⌊αn⌋, n−1)₎, counted from 0 in ascending order.
func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		p     []float64
		alpha float64
		want  float64
	}{
		{[]float64{0.7}, 0.4, 0.7},                                 // ⌊0.4⌋ = 0
		{[]float64{0.9, 0.2}, 0.4, 0.2},                            // ⌊0.8⌋ = 0
		{[]float64{0.9, 0.2, 0.5}, 0.4, 0.5},                       // ⌊1.2⌋ = 1
		{[]float64{0.9, 0.1, 0.3, 0.7, 0.5}, 0.4, 0.5},             // ⌊2.0⌋ = 2
		{[]float64{0.9, 0.9, 0.3, 0.9, 0.3, 0.9}, 0.4, 0.9},        // ⌊2.4⌋ = 2: equal tokens count by position
		{[]float64{0.1, 0.2, 0.3}, 1, 0.3},                         // not past the last
		{[]float64{0.3, 0.1, 0.2}, 0, 0.1},                         // the least
		{append(make100(0.5, 29), make100(0.9, 71)...), 0.29, 0.9}, // 0.29·100 is 28.999… in binary
	} {
		if got := Quantile(logs(c.p...), c.alpha); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("α %g of %v: %g, want %g", c.alpha, c.p, got, c.want)
		}
	}
}

func make100(p float64, n int) []float64 { return slices.Repeat([]float64{p}, n) }

// The quantile is one of the probabilities, at least ⌊αn⌋ are no greater, and order does not matter.
func TestQuantileLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lp := rapid.SliceOfN(rapid.Float32Range(-20, 0), 1, 50).Draw(t, "logprobs")
		before := slices.Clone(lp)
		pct := rapid.IntRange(0, 100).Draw(t, "percent")
		got := Quantile(lp, float64(pct)/100)
		if !slices.Equal(lp, before) {
			t.Fatal("the log-probabilities were reordered")
		}
		k := min(pct*len(lp)/100, len(lp)-1)
		below, equal := 0, 0
		for _, x := range lp {
			switch p := math.Exp(float64(x)); {
			case p < got:
				below++
			case p == got:
				equal++
			}
		}
		if equal == 0 || below > k || below+equal <= k {
			t.Fatalf("%d below and %d equal to the quantile, whose index is %d", below, equal, k)
		}
	})
}

func TestThreshold(t *testing.T) {
	s := &script{answers: []router.Completion{
		{LogProbs: logs(0.99, 0.95)}, {LogProbs: logs(0.6, 0.99)}, {LogProbs: logs(0.1, 0.99)},
	}}
	th := &Threshold{Model: named(s), Easy: 0.86, Hard: 0.52}
	p := router.Plan{"easy", "medium", "hard"}
	got, err := th.Allocate(t.Context(), nil, question, p, nine)
	if err != nil || !slices.Equal(got, []string{"q1.5", "q14", "v3"}) {
		t.Errorf("%q, %v; want the middle of each group", got, err)
	}
	golden(t, "confidence.json", s.asked[1])

	if _, err := (&Threshold{Model: named(texts("x"))}).Choose(t.Context(), nil, question, p, 0, nine); !errors.Is(err, router.ErrAnswer) {
		t.Errorf("no log-probabilities: %v, want ErrAnswer", err)
	}
	if g := th.Group(0.86); g != router.SLM {
		t.Errorf("the threshold itself is %v, want easy", g)
	}
}

func TestMiddle(t *testing.T) {
	card := func(name string, g router.Group, rank int) router.Card {
		return router.Card{Name: name, Group: g, Rank: rank}
	}
	for _, c := range []struct {
		models []router.Card
		g      router.Group
		want   string
	}{
		{nine, router.LLM, "v3"},
		{[]router.Card{card("b", router.SLM, 2), card("a", router.SLM, 1)}, router.SLM, "a"},
		{[]router.Card{card("s", router.SLM, 1), card("l", router.LLM, 2)}, router.MLM, "l"},
		{[]router.Card{card("s", router.SLM, 1), card("m", router.MLM, 2)}, router.LLM, "m"},
		{[]router.Card{card("s", router.SLM, 1)}, router.LLM, "s"},
	} {
		if got, err := Middle(c.models, c.g); err != nil || got != c.want {
			t.Errorf("middle of %v in %v: %q, %v; want %q", c.g, c.models, got, err, c.want)
		}
	}
	if _, err := Middle(nil, router.SLM); err == nil {
		t.Error("an empty pool has no middle")
	}
}

func TestRandom(t *testing.T) {
	counts := map[string]int{}
	for i := range 9000 {
		q := fmt.Sprint("question ", i)
		a, err := Random{1}.Allocate(t.Context(), nil, q, plan, nine)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := (Random{1}).Allocate(t.Context(), nil, q, plan, nine); !slices.Equal(a, b) {
			t.Fatal("the same seed and question give another allocation")
		}
		counts[a[1]]++
	}
	// 1000 expected of each, standard deviation 30
	for _, c := range nine {
		if n := counts[c.Name]; n < 850 || n > 1150 {
			t.Errorf("%s was drawn %d times of 9000", c.Name, n)
		}
	}
}

func TestFixed(t *testing.T) {
	if got, err := Fixed("q7").Allocate(t.Context(), nil, question, plan, nine); err != nil || !slices.Equal(got, []string{"q7", "q7"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Fixed("nobody").Allocate(t.Context(), nil, question, plan, nine); !errors.Is(err, router.ErrRefused) {
		t.Errorf("a model that is not there: %v", err)
	}
	if _, err := Fixed("q7").Allocate(t.Context(), nil, question, plan, nil); !errors.Is(err, router.ErrRefused) {
		t.Errorf("an empty pool: %v", err)
	}
}

// What an allocation rests on is in the trace: the probability of the choice, or the baseline's confidence.
func TestConfidenceInTheTrace(t *testing.T) {
	half, quarter := float32(math.Log(0.5)), float32(math.Log(0.25))
	sure := &script{answers: []router.Completion{{Text: "q3", LogProbs: []float32{half, quarter}}}}
	base := &script{answers: []router.Completion{{Text: "6", LogProbs: []float32{quarter}}}}
	cheap := &script{answers: []router.Completion{{Text: "done"}}}
	for name, c := range map[string]struct {
		allocator router.Allocator
		want      float64
	}{
		"choice":    {&Model{Model: named(sure), Confident: true}, 0.125},
		"threshold": {&Threshold{Model: named(base), Easy: 0.8, Hard: 0.5}, 0.25},
	} {
		r := router.Router{Decomposer: fixedPlan{}, Allocator: c.allocator, Pool: scripted{cheap}, Integrator: router.Concatenate{}}
		tr, err := r.Answer(context.Background(), question)
		if err != nil {
			t.Fatal(name, err)
		}
		for i, s := range tr.Steps {
			if s.Confidence == nil || math.Abs(*s.Confidence-c.want) > 1e-7 {
				t.Errorf("%s: subtask %d: confidence %v, want %v", name, i+1, s.Confidence, c.want)
			}
		}
	}
	r := router.Router{Decomposer: fixedPlan{}, Allocator: Fixed("q3"), Pool: scripted{cheap}, Integrator: router.Concatenate{}}
	tr, err := r.Answer(context.Background(), question)
	if err != nil || tr.Steps[0].Confidence != nil {
		t.Errorf("a fixed choice rests on no confidence: %v, %v", tr.Steps[0].Confidence, err)
	}
}

type fixedPlan struct{}

func (fixedPlan) Decompose(context.Context, *router.Ledger, string) (router.Plan, error) {
	return plan, nil
}

// scripted is the pool of nine, all of which the script answers for.
type scripted struct{ *script }

func (scripted) Models() []router.Card { return nine }

func (s scripted) Complete(ctx context.Context, _ string, r router.Request) (router.Completion, error) {
	return s.script.Complete(ctx, r)
}
