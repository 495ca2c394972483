package router

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

// fakePool answers by model and the request's last message; every call takes a second.
type fakePool struct {
	cards   []Card
	replies map[string]string // of "model|last line of the last message"

	mu   sync.Mutex
	seen []Request
}

func (p *fakePool) Models() []Card { return p.cards }

func (p *fakePool) Complete(ctx context.Context, model string, r Request) (Completion, error) {
	p.mu.Lock()
	p.seen = append(p.seen, r)
	p.mu.Unlock()
	time.Sleep(time.Second)
	last := r.Messages[len(r.Messages)-1].Content
	key := model + "|" + last[strings.LastIndex(last, "\n")+1:]
	text, ok := p.replies[key]
	if !ok {
		return Completion{}, &CallError{Err: fmt.Errorf("no reply for %q: %w", key, ErrRefused), Attempts: 2, Cost: 7}
	}
	return Completion{Text: text, In: 10, Out: len(strings.Fields(text)), Finish: FinishStop}, nil
}

// fixed is a Decomposer and an Allocator that say what they were told to, each by a call.
type fixed struct {
	plan   Plan
	models []string
	err    error
}

func (f fixed) call(ctx context.Context, l *Ledger, s Stage, i int) error {
	_, err := l.Complete(ctx, s, i, Model{Card{Name: "base"}, CompleteFunc(func(context.Context, Request) (Completion, error) {
		time.Sleep(time.Second)
		return Completion{In: 5, Out: 3}, f.err
	})}, Request{})
	return err
}

func (f fixed) Decompose(ctx context.Context, l *Ledger, _ string) (Plan, error) {
	return f.plan, f.call(ctx, l, StagePlan, 0)
}

func (f fixed) Allocate(ctx context.Context, l *Ledger, _ string, p Plan, _ []Card) ([]string, error) {
	for i := range p {
		if err := f.call(ctx, l, StageAllocate, i+1); err != nil {
			return nil, err
		}
	}
	return f.models, nil
}

func example() (*Router, *fakePool) {
	pool := &fakePool{
		cards: []Card{
			{Name: "small", Group: SLM, Rank: 1, Limit: 100},
			{Name: "large", Group: LLM, Rank: 2, Limit: 100, Price: Price{2_500_000, 10_000_000}},
		},
		replies: map[string]string{
			"small|Now do step 1 of 2: Count Ann's apples.": "3 + 4 = 7",
			"large|Now do step 2 of 2: Take away two.":      "5 apples",
			"large|Final answer:":                           " 5\n",
			"small|Final answer:":                           "five",
			"large|Given answer: 3 + 4 = 7":                 "CORRECT.",
			"large|Given answer: 5 apples":                  "5",
		},
	}
	f := fixed{plan: Plan{"Count Ann's apples.", "Take away two."}, models: []string{"small", "large"}}
	return &Router{Decomposer: f, Allocator: f, Pool: pool, Limits: DefaultLimits}, pool
}

const question = "Ann has 3 red and 4 green apples and eats two. How many are left?"

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, pool := example()
		tr, err := r.Answer(t.Context(), question)
		if err != nil {
			t.Fatal(err)
		}
		if tr.Answer != "5" {
			t.Errorf("answer %q", tr.Answer)
		}
		// decompose, 2 allocations, 2 subtasks, integration; large twice: 20 in, 2 + 1 out
		if want := (20*2_500_000 + 3*10_000_000) * Money(1); tr.Cost != want {
			t.Errorf("cost %d, want %d", tr.Cost, want)
		}
		if len(tr.Calls) != 6 || tr.Seconds != 6 {
			t.Errorf("%d calls in %g seconds, want 6 in 6", len(tr.Calls), tr.Seconds)
		}
		b, err := json.MarshalIndent(tr, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "answer.json", string(b)+"\n")
		golden(t, "answer.txt", tr.String())
		prompts, _ := json.MarshalIndent(pool.seen, "", "  ")
		golden(t, "prompts.json", string(prompts)+"\n")
	})
}

func TestReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, pool := example()
		r.Reviewer = &Reviewer{Name: "large"}
		tr, err := r.Answer(t.Context(), question)
		if err != nil {
			t.Fatal(err)
		}
		want := []Step{
			{Subtask: "Count Ann's apples.", Model: "small", Answer: "3 + 4 = 7", Done: true},
			{Subtask: "Take away two.", Model: "large", Answer: "5", Done: true, Draft: "5 apples", Changed: true},
		}
		if diff := cmp.Diff(want, tr.Steps); diff != "" {
			t.Error(diff)
		}
		if n := tr.Ledger[StageReview].Calls; n != 2 {
			t.Errorf("%d review calls, want 2", n)
		}
		last := pool.seen[len(pool.seen)-1].Messages[1].Content
		if !strings.Contains(last, "Answer 2: 5\n") {
			t.Errorf("the integrator does not see the reviewed answer:\n%s", last)
		}
	})
}

// Whatever fails, the trace ends where things stopped and still has every call made.
func TestAnswerStops(t *testing.T) {
	cheap := Money(10_000)
	for _, c := range []struct {
		name    string
		change  func(*Router, *fakePool)
		stopped Stage
		calls   int // recorded
		done    int // subtasks answered
		is      error
	}{
		{"decomposer", func(r *Router, _ *fakePool) { r.Decomposer = fixed{err: ErrBusy} }, StagePlan, 1, 0, ErrBusy},
		{"empty plan", func(r *Router, _ *fakePool) { r.Decomposer = fixed{} }, StagePlan, 1, 0, nil},
		{"long plan", func(r *Router, _ *fakePool) { r.Limits.Subtasks = 1 }, StagePlan, 1, 0, ErrLimit},
		{"allocator", func(r *Router, _ *fakePool) { r.Allocator = fixed{err: ErrRefused} }, StageAllocate, 2, 0, ErrRefused},
		{"too few models", func(r *Router, _ *fakePool) { r.Allocator = fixed{models: []string{"small"}} }, StageSolve, 3, 0, ErrRefused},
		{"unknown model", func(r *Router, _ *fakePool) { r.Allocator = fixed{models: []string{"small", "huge"}} }, StageSolve, 3, 0, ErrRefused},
		{"second subtask", func(_ *Router, p *fakePool) { delete(p.replies, "large|Now do step 2 of 2: Take away two.") }, StageSolve, 5, 1, ErrRefused},
		{"reviewer", func(r *Router, p *fakePool) {
			r.Reviewer = &Reviewer{Name: "large"}
			delete(p.replies, "large|Given answer: 5 apples")
		}, StageReview, 7, 2, ErrRefused},
		{"integrator", func(_ *Router, p *fakePool) { delete(p.replies, "large|Final answer:") }, StageIntegrate, 6, 2, ErrRefused},
		{"calls", func(r *Router, _ *fakePool) { r.Limits.Calls = 4 }, StageSolve, 4, 1, ErrLimit},
		{"dollars", func(r *Router, _ *fakePool) { r.Limits.Cost = &cheap }, StageSolve, 4, 1, ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, pool := example()
				c.change(r, pool)
				tr, err := r.Answer(t.Context(), question)
				if err == nil || c.is != nil && !errors.Is(err, c.is) {
					t.Fatalf("error %v, want %v", err, c.is)
				}
				done := 0
				for _, s := range tr.Steps {
					if s.Done {
						done++
					}
				}
				if tr.Stopped != c.stopped || len(tr.Calls) != c.calls || done != c.done || tr.Error == "" {
					t.Errorf("stopped at %q after %d calls and %d subtasks (%q), want %q, %d, %d",
						tr.Stopped, len(tr.Calls), done, tr.Error, c.stopped, c.calls, c.done)
				}
				if last := tr.Calls[len(tr.Calls)-1]; last.Error != "" && c.name == "integrator" && (last.Attempts != 2 || last.Cost != 7) {
					t.Errorf("the failed call's attempts and cost are lost: %+v", last)
				}
				if !strings.Contains(tr.String(), "stopped   "+string(c.stopped)) {
					t.Errorf("text does not say where it stopped:\n%s", tr)
				}
			})
		})
	}
}

func TestExecute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := example()
		r.Decomposer, r.Allocator = nil, nil // not needed
		r.Integrator = Concatenate{}
		plan, models := Plan{"Count Ann's apples.", "Take away two."}, []string{"small", "large"}
		tr, err := r.Execute(t.Context(), question, plan, models)
		if err != nil {
			t.Fatal(err)
		}
		if tr.Answer != "3 + 4 = 7 5 apples" || len(tr.Calls) != 2 {
			t.Errorf("answer %q by %d calls", tr.Answer, len(tr.Calls))
		}
		if !slices.Equal(tr.Plan(), plan) || !slices.Equal(tr.Models(), models) {
			t.Errorf("plan %q, models %q", tr.Plan(), tr.Models())
		}
	})
}

func TestIntegrateByNamedModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := example()
		r.Integrator = ByModel{Name: "small"}
		tr, err := r.Answer(t.Context(), question)
		if err != nil || tr.Answer != "five" {
			t.Errorf("answer %q, %v; want that of small", tr.Answer, err)
		}
	})
}

func TestServiceStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := example()
		ask := Request{Messages: []Message{{"user", question}}}
		var got []string
		for d, err := range (Service{r}).Stream(t.Context(), ask) {
			if err != nil {
				t.Fatal(err)
			}
			if d.Event != nil {
				got = append(got, fmt.Sprintf("%s %d %s", d.Event.Stage, d.Event.Subtask, d.Event.Model))
			}
			if d.Done != nil && (d.Text != "5" || d.Done.Trace == nil || d.Done.Cost == 0) {
				t.Errorf("end: %q, %+v", d.Text, d.Done)
			}
		}
		want := []string{"plan 0 ", "allocate 1 small", "allocate 2 large", "solve 1 small", "solve 2 large", "integrate 0 "}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}

		// leaving after the plan cancels the rest
		r.Allocator = waiter{}
		for d := range (Service{r}).Stream(t.Context(), ask) {
			if d.Event.Stage != StagePlan {
				t.Errorf("event %+v after leaving", d.Event)
			}
			break
		}
	})
}

// waiter allocates when its context ends.
type waiter struct{}

func (waiter) Allocate(ctx context.Context, _ *Ledger, _ string, _ Plan, _ []Card) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestServiceRefuses(t *testing.T) {
	r, _ := example()
	for _, c := range []struct {
		param string
		r     Request
	}{
		{"messages", Request{}},
		{"stop", Request{Prompt: "x", Stop: []string{"a"}}},
		{"logprobs", Request{Prompt: "x", LogProbs: true}},
		{"structured_outputs", Request{Prompt: "x", Choices: []string{"a"}}},
	} {
		_, err := Service{r}.Complete(t.Context(), c.r)
		var pe *ParamError
		if !errors.As(err, &pe) || pe.Param != c.param || !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", c.param, err)
		}
	}
}

// However many calls run at once, a question's dollars are never passed while costs keep to their bound.
func TestLedgerLimitUnderConcurrency(t *testing.T) {
	card := Card{Name: "m", Price: Price{1000, 1000}, Limit: 10}
	worst := card.Worst(Request{})
	limit := 25*worst + worst/2
	l := NewLedger(Limits{Cost: &limit})
	m := Model{card, CompleteFunc(func(context.Context, Request) (Completion, error) {
		return Completion{In: 64, Out: 10}, nil // exactly the bound
	})}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := l.Complete(t.Context(), StageSolve, 1, m, Request{}); err != nil && !errors.Is(err, ErrLimit) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(l.Calls()); n != 25 {
		t.Errorf("%d calls were made, want 25: all that fit in the limit", n)
	}
}

func TestPromptErrors(t *testing.T) {
	for _, text := range []string{"", "hello", `{{define "system"}}x{{end}}`, `{{define "user"}}{{.x`} {
		if _, err := ParsePrompt(text); err == nil {
			t.Errorf("ParsePrompt(%q): no error", text)
		}
	}
	p := MustPrompt(`{{define "user"}}{{.Nothing}}{{end}}`)
	if _, err := p.Messages(&View{}); err == nil {
		t.Error("a field that is not there is not an error")
	}
}

func TestGroupText(t *testing.T) {
	for _, g := range []Group{SLM, MLM, LLM} {
		b, _ := g.MarshalText()
		var h Group
		if err := h.UnmarshalText(b); err != nil || h != g {
			t.Errorf("%v: %v, %v", g, h, err)
		}
	}
	var g Group
	if g.UnmarshalText([]byte("huge")) == nil || g.UnmarshalText(nil) == nil {
		t.Error("an unknown group is not refused")
	}
}
