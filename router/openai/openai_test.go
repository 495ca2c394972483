package openai

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/r2-reasoner/r2/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with its last message's words, one token each, whose log-probabilities are -1/8, -2/8, …; it streams
// them one by one. The word "fail" fails with err, and "hang" waits for the context's end.
type echo struct {
	err error

	mu   sync.Mutex
	seen []router.Request
	gone chan struct{} // closed when a hang has ended, where there is one
}

func (e *echo) Stream(ctx context.Context, r router.Request) iter.Seq2[router.Delta, error] {
	return func(yield func(router.Delta, error) bool) {
		e.mu.Lock()
		e.seen = append(e.seen, r)
		e.mu.Unlock()
		text := r.Prompt
		if n := len(r.Messages); n > 0 {
			text = r.Messages[n-1].Content
		}
		words := strings.SplitAfter(text, " ")
		c := router.Completion{In: len(words), Finish: router.FinishStop}
		for i, w := range words {
			switch strings.TrimSpace(w) {
			case "fail":
				yield(router.Delta{Done: &c}, e.err)
				return
			case "hang":
				<-ctx.Done()
				close(e.gone)
				yield(router.Delta{}, ctx.Err())
				return
			}
			if r.Limit > 0 && i == r.Limit {
				c.Finish = router.FinishLength
				break
			}
			d := router.Delta{Text: w}
			if r.LogProbs {
				d.LogProbs, d.Pieces = []float32{-float32(i+1) / 8}, []string{w}
			}
			c.Text += w
			c.Out++
			c.LogProbs, c.Pieces = append(c.LogProbs, d.LogProbs...), append(c.Pieces, d.Pieces...)
			if !yield(d, nil) {
				return
			}
		}
		yield(router.Delta{Done: &c}, nil)
	}
}

func (e *echo) Complete(ctx context.Context, r router.Request) (router.Completion, error) {
	for d, err := range e.Stream(ctx, r) {
		if err != nil {
			return router.Completion{}, err
		}
		if d.Done != nil {
			return *d.Done, nil
		}
	}
	panic("no end")
}

// serve runs a handler over the models until the test ends.
func serve(t *testing.T, models map[string]router.Completer) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(&Handler{Models: Completers(models)})
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, url, model string) *Client {
	t.Helper()
	c, err := NewClient(Options{URL: url + "/v1", Model: model, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func user(text string) []router.Message { return []router.Message{{Role: "user", Content: text}} }

// Whatever a request says reaches the model on the other side of the wire, and whatever it answers comes back.
func TestClientAgainstHandler(t *testing.T) {
	e := &echo{}
	c := client(t, serve(t, map[string]router.Completer{"m": e}).URL, "m")
	want := router.Request{
		Messages: []router.Message{{Role: "system", Content: "Be <b>brief</b>.\u2028"}, {Role: "user", Content: "one two “three”"}},
		Limit:    7, Temperature: new(0.5), TopP: new(0.25), TopK: new(3), MinP: new(0.125), Seed: new(uint64(1<<63 + 5)),
		Stop: []string{"\n\n", "end"}, LogProbs: true, IgnoreEOS: true,
	}
	got, err := c.Complete(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, e.seen[0]); diff != "" {
		t.Errorf("request (-sent +arrived):\n%s", diff)
	}
	answer := router.Completion{
		Text: "one two “three”", In: 3, Out: 3, Finish: router.FinishStop,
		LogProbs: []float32{-0.125, -0.25, -0.375}, Pieces: []string{"one ", "two ", "“three”"},
	}
	if diff := cmp.Diff(answer, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}

	var parts []string
	for d, err := range c.Stream(t.Context(), want) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Done == nil {
			parts = append(parts, d.Text)
		} else if diff := cmp.Diff(answer, *d.Done); diff != "" {
			t.Errorf("streamed answer (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff([]string{"one ", "two ", "“three”"}, parts); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, e.seen[1]); diff != "" {
		t.Errorf("streamed request (-sent +arrived):\n%s", diff)
	}
}

// Nothing is sent for a field that is not set, so that the model's own defaults hold.
func TestDefaultsStayOpen(t *testing.T) {
	e := &echo{}
	c := client(t, serve(t, map[string]router.Completer{"m": e}).URL, "m")
	r := router.Request{Messages: user("hi")}
	got, err := c.Complete(t.Context(), r)
	if err != nil || got.LogProbs != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if diff := cmp.Diff(r, e.seen[0]); diff != "" {
		t.Errorf("request (-sent +arrived):\n%s", diff)
	}
}

func TestChoices(t *testing.T) {
	e := &echo{}
	c := client(t, serve(t, map[string]router.Completer{"m": e}).URL, "m")
	got, err := c.Complete(t.Context(), router.Request{Messages: user("small "), Choices: []string{"small", "large"}})
	if err != nil || got.Text != "small" {
		t.Errorf("%q, %v", got.Text, err)
	}
	if diff := cmp.Diff([]string{"small", "large"}, e.seen[0].Choices); diff != "" {
		t.Error(diff)
	}
	got, err = c.Complete(t.Context(), router.Request{Messages: user("medium"), Choices: []string{"small", "large"}})
	if !errors.Is(err, router.ErrAnswer) || got.In != 1 {
		t.Errorf("an answer that is no choice: %v, with usage %+v", err, got)
	}
}

func TestFinishAndLimit(t *testing.T) {
	c := client(t, serve(t, map[string]router.Completer{"m": &echo{}}).URL, "m")
	got, err := c.Complete(t.Context(), router.Request{Messages: user("a b c"), Limit: 2})
	if err != nil || got.Finish != router.FinishLength || got.Text != "a b " || got.Out != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The errors of a model keep their meaning across the wire.
func TestErrorsCross(t *testing.T) {
	for _, c := range []struct {
		err   error
		is    error
		after time.Duration
	}{
		{fmt.Errorf("full: %w", router.ErrBusy), router.ErrBusy, 0},
		{&router.CallError{Err: router.ErrBusy, RetryAfter: 1500 * time.Millisecond}, router.ErrBusy, 2 * time.Second},
		{&router.ParamError{Param: "max_tokens", Reason: "the context holds 100"}, router.ErrRefused, 0},
		{router.ErrRefused, router.ErrRefused, 0},
		{router.ErrBudget, router.ErrRefused, 0},
		{router.ErrLimit, router.ErrRefused, 0},
		{&router.PlanError{Text: "no", Err: errors.New("not JSON")}, router.ErrRefused, 0},
		{errors.New("anything else"), router.ErrBusy, 0},
	} {
		cl := client(t, serve(t, map[string]router.Completer{"m": &echo{err: c.err}}).URL, "m")
		_, err := cl.Complete(t.Context(), router.Request{Messages: user("fail")})
		var ce *router.CallError
		if !errors.Is(err, c.is) || !errors.As(err, &ce) || ce.RetryAfter != c.after || ce.Worked {
			t.Errorf("%v arrives as %v (%+v), want %v after %v", c.err, err, ce, c.is, c.after)
		}
		if !strings.Contains(err.Error(), c.err.Error()) {
			t.Errorf("%v arrives as %v, without its words", c.err, err)
		}
		// in a stream that has begun there is no status any more
		var last error
		for _, last = range cl.Stream(t.Context(), router.Request{Messages: user("well, fail")}) {
		}
		if !errors.Is(last, router.ErrAnswer) || !strings.Contains(last.Error(), c.err.Error()) {
			t.Errorf("%v arrives in a stream as %v", c.err, last)
		}
	}
}

// A client that leaves cancels the work, streamed or not.
// A fresh connection is one that no call had before.
func TestFresh(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		var made atomic.Int32
		s := httptest.NewUnstartedServer(&Handler{Models: Completers{"m": &echo{}}})
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				made.Add(1)
			}
		}
		s.Start()
		defer s.Close()
		c, err := NewClient(Options{URL: s.URL + "/v1", Model: "m", Fresh: fresh})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 4 {
			if _, err := c.Complete(t.Context(), router.Request{Messages: user("x")}); err != nil {
				t.Fatal(err)
			}
		}
		if n := made.Load(); fresh && n != 4 || !fresh && n != 1 {
			t.Errorf("fresh %v: %d connections for 4 calls", fresh, n)
		}
	}
}

func TestCancellation(t *testing.T) {
	for _, streamed := range []bool{false, true} {
		e := &echo{gone: make(chan struct{})}
		c := client(t, serve(t, map[string]router.Completer{"m": e}).URL, "m")
		ctx, cancel := context.WithCancel(t.Context())
		if streamed {
			for d, err := range c.Stream(ctx, router.Request{Messages: user("wait hang")}) {
				if err != nil || d.Text != "wait " {
					t.Fatalf("%+v, %v", d, err)
				}
				break // leave the stream
			}
		} else {
			time.AfterFunc(50*time.Millisecond, cancel)
			if _, err := c.Complete(ctx, router.Request{Messages: user("hang")}); !errors.Is(err, context.Canceled) || errors.Is(err, router.ErrBusy) {
				t.Errorf("error %v, want the caller's own end", err)
			}
		}
		select {
		case <-e.gone:
		case <-time.After(5 * time.Second):
			t.Errorf("streamed %v: the model still works for a client that left", streamed)
		}
		cancel()
	}
}

func TestTimeout(t *testing.T) {
	e := &echo{gone: make(chan struct{})}
	s := serve(t, map[string]router.Completer{"m": e})
	c, err := NewClient(Options{URL: s.URL + "/v1/", Model: "m", Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Complete(t.Context(), router.Request{Messages: user("hang")})
	var ce *router.CallError
	if !errors.Is(err, router.ErrBusy) || !errors.As(err, &ce) || !ce.Worked {
		t.Errorf("error %v, want ErrBusy of a call that may have been worked on", err)
	}
}

func TestNewClientRefuses(t *testing.T) {
	t.Setenv("R2_TEST_EMPTY", "")
	for _, o := range []Options{
		{Model: "m"},
		{URL: "ftp://x/v1", Model: "m"},
		{URL: "http://", Model: "m"},
		{URL: "http://user:secret@x/v1", Model: "m"},
		{URL: "http://x/v1?key=secret", Model: "m"},
		{URL: "http://x/v1"},
		{URL: "http://x/v1", Model: "m", KeyEnv: "R2_TEST_EMPTY"},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%+v: no error", o)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: the error tells the secret: %v", o, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-3": 0, "soon": 0, "1.5": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"99999999999999":                (1 << 30) * time.Second,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("Retry-After: %q is %v, want %v", h, got, want)
		}
	}
}
