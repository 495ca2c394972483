package openai

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/router/decompose"
	"github.com/r2-reasoner/r2/router/pool"
)

// A world is a router whose own models and whose pool are reached over HTTP on loopback.
type world struct {
	router *router.Router
	pool   *pool.Pool
	busy   atomic.Int32 // answers 429 to so many more requests
	down   atomic.Bool  // the large model is not there: 502
	asked  atomic.Int32 // requests of the large model
}

// planner writes a plan, the second time it is asked; allocator gives the step with "hard" in it to large; a solver
// upper-cases what comes after the last colon, and one token is a word.
func planner(_ context.Context, r router.Request) (router.Completion, error) {
	text := `["easy: walk left", "hard: jump"]`
	if !strings.Contains(last(r), "cannot be used") {
		text = "First walk, then jump."
	}
	return router.Completion{Text: text, In: 20, Out: 7, Finish: router.FinishStop}, nil
}

func allocator(_ context.Context, r router.Request) (router.Completion, error) {
	name := r.Choices[0]
	if strings.Contains(last(r), "hard") {
		name = r.Choices[len(r.Choices)-1]
	}
	return router.Completion{Text: name, In: 9, Out: 1, Finish: router.FinishStop}, nil
}

func solver(_ context.Context, r router.Request) (router.Completion, error) {
	text := strings.ToUpper(strings.TrimSpace(last(r)[strings.LastIndex(last(r), ":")+1:]))
	return router.Completion{Text: text, In: 10, Out: len(strings.Fields(text)), Finish: router.FinishStop}, nil
}

func last(r router.Request) string { return r.Messages[len(r.Messages)-1].Content }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	h := &Handler{Models: Completers{
		"planner": router.CompleteFunc(planner), "allocator": router.CompleteFunc(allocator), "solver": router.CompleteFunc(solver),
	}}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.busy.Add(-1) >= 0 {
			rw.Header().Set("Retry-After", "0")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/large") {
			w.asked.Add(1)
			if w.down.Load() {
				rw.WriteHeader(http.StatusBadGateway)
				return
			}
		}
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/large")
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	named := func(name string) router.Model {
		return router.Model{Card: router.Card{Name: name, Limit: 512}, Completer: client(t, s.URL, name)}
	}
	var err error
	w.pool, err = pool.New([]pool.Member{
		{Card: router.Card{Name: "small", Group: router.SLM, Rank: 1}, Completer: client(t, s.URL, "solver")},
		{Card: router.Card{Name: "large", Group: router.LLM, Rank: 2, Price: router.Price{Input: 2_500_000, Output: 10_000_000}},
			Completer: client(t, s.URL+"/large", "solver"), Concurrency: 2},
	}, pool.Options{Backoff: time.Millisecond, Budget: new(router.Dollar)})
	if err != nil {
		t.Fatal(err)
	}
	w.router = &router.Router{
		Decomposer: &decompose.Model{Model: named("planner")},
		Allocator:  &allocate.Model{Model: named("allocator"), Prompt: allocate.Compact},
		Pool:       w.pool,
		Integrator: router.Concatenate{},
		Solve:      router.SolveCompact,
		Limits:     router.DefaultLimits,
	}
	return w
}

// large reads 10 tokens and writes one: 10·2.5 + 1·10 microdollars.
const largeCost = 35 * router.Dollar / 1_000_000

func TestRouterOverLoopback(t *testing.T) {
	w := newWorld(t)
	tr, err := w.router.Answer(t.Context(), "walk left and jump")
	if err != nil {
		t.Fatal(err)
	}
	if tr.Answer != "WALK LEFT JUMP" || strings.Join(tr.Models(), " ") != "small large" {
		t.Errorf("answer %q by %q", tr.Answer, tr.Models())
	}
	if tr.Cost != largeCost || w.pool.Spent() != largeCost {
		t.Errorf("cost %v, the pool spent %v, want %v", tr.Cost, w.pool.Spent(), largeCost)
	}
	if p := tr.Ledger[router.StagePlan]; p.Calls != 2 || p.In != 40 || len(tr.Calls) != 6 {
		t.Errorf("planning: %+v in %d calls; want two calls (one repair) of six", p, len(tr.Calls))
	}
}

func TestRouterRetriesOverLoopback(t *testing.T) {
	w := newWorld(t)
	w.busy.Store(2)
	tr, err := w.router.Execute(t.Context(), "q", router.Plan{"walk"}, []string{"large"})
	if err != nil || tr.Answer != "WALK" {
		t.Fatalf("%q, %v", tr.Answer, err)
	}
	if c := tr.Calls[0]; c.Attempts != 3 || c.Cost != largeCost {
		t.Errorf("%+v, want 3 attempts, and those refused at no cost", c)
	}
	w.busy.Store(100)
	tr, err = w.router.Execute(t.Context(), "q", router.Plan{"walk"}, []string{"large"})
	if !errors.Is(err, router.ErrBusy) || tr.Calls[0].Attempts != 4 || tr.Cost != 0 {
		t.Errorf("%v after %+v", err, tr.Calls)
	}
}

// The router is itself a model over HTTP: OpenAI's client gets its answer, its cost and its trace.
func TestServiceOverLoopback(t *testing.T) {
	w := newWorld(t)
	c := dial(t, map[string]router.Completer{"r2": router.Service{Router: w.router}})
	p := sdk.ChatCompletionNewParams{
		Model: "r2", Messages: []sdk.ChatCompletionMessageParamUnion{sdk.UserMessage("walk left and jump")},
	}
	trace := option.WithJSONSet("r2", map[string]bool{"trace": true})
	got, err := c.Chat.Completions.New(t.Context(), p, trace)
	if err != nil {
		t.Fatal(err)
	}
	if got.Choices[0].Message.Content != "WALK LEFT JUMP" {
		t.Errorf("answer %q", got.Choices[0].Message.Content)
	}
	var wire struct {
		R2 struct {
			Trace router.Trace `json:"trace"`
		} `json:"r2"`
		Usage struct {
			Cost router.Money `json:"cost"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(got.RawJSON()), &wire); err != nil {
		t.Fatal(err)
	}
	if wire.Usage.Cost != largeCost || wire.R2.Trace.Cost != largeCost || len(wire.R2.Trace.Steps) != 2 {
		t.Errorf("%s", got.RawJSON())
	}
	if got, err = c.Chat.Completions.New(t.Context(), p); err != nil || strings.Contains(got.RawJSON(), `"r2":{`) {
		t.Errorf("a trace that nobody asked for: %s, %v", got.RawJSON(), err)
	}

	s := c.Chat.Completions.NewStreaming(t.Context(), p, trace)
	var events []string
	text := ""
	for s.Next() {
		chunk := s.Current()
		text += chunk.Choices[0].Delta.Content
		var x struct{ R2 Extension }
		if err := json.Unmarshal([]byte(chunk.RawJSON()), &x); err != nil {
			t.Fatal(err)
		}
		if x.R2.Event != nil {
			events = append(events, string(x.R2.Event.Stage))
		}
		if x.R2.Trace != nil {
			events = append(events, "trace")
		}
	}
	if want := "plan allocate allocate solve solve integrate trace"; s.Err() != nil || strings.Join(events, " ") != want || text != "WALK LEFT JUMP" {
		t.Errorf("%q, events %q, %v", text, events, s.Err())
	}
}

// An error carries the trace up to where things stopped.
func TestServiceErrorHasTrace(t *testing.T) {
	w := newWorld(t)
	w.router.Limits.Calls = 4
	h := &Handler{Models: Completers{"r2": router.Service{Router: w.router}}}
	status, body := do(h, "POST", "/v1/chat/completions", `{"model":"r2","messages":[{"role":"user","content":"walk"}],"r2":{"trace":true}}`)
	var f failed
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		t.Fatal(err)
	}
	if status != 422 || *f.Error.Code != "limit_reached" || f.R2 == nil || f.R2.Trace.Stopped != router.StageSolve || len(f.R2.Trace.Calls) != 4 {
		t.Errorf("%d %s", status, body)
	}
	status, body = do(h, "POST", "/v1/chat/completions", `{"model":"r2","messages":[{"role":"user","content":"walk"}],"top_p":0.5}`)
	if e := wireError(t, body); status != 400 || *e.Param != "top_p" {
		t.Errorf("%d %s", status, body)
	}
	h = &Handler{Models: Completers{"r2": router.Service{Router: newWorld(t).router}}}
	if status, body = do(h, "POST", "/v1/chat/completions", `{"model":"r2","messages":[{"role":"user","content":"walk"}],"top_p":1,"top_k":-1,"min_p":0}`); status != 200 {
		t.Errorf("what changes nothing: %d %s", status, body)
	}
}
