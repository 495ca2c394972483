package openai

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
)

const oneChat = `{"model":"m","messages":[{"role":"user","content":"a secret"}]}`

func TestKeys(t *testing.T) {
	keys, err := ReadKeys("sk-first-key, sk-second-key # two\n\n# none\nsk-third-key")
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, bad := range []string{"", "# nothing", "sk-tiny", "long-enough sk-tiny"} {
		if _, err := ReadKeys(bad); err == nil || strings.Contains(err.Error(), "sk-tiny") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var told []Record
	g := &Guard{Next: &Handler{Models: Completers{"m": &echo{}}}, Keys: keys, Told: func(r Record) { told = append(told, r) }}
	for _, c := range []struct {
		path, header string
		status       int
	}{
		{"/v1/models", "", 401}, {"/v1/models", "Bearer sk-first-kex", 401}, {"/v1/models", "Bearer ", 401}, {"/v1/models", "Basic sk-first-key", 401},
		{"/v1/models", "Bearer sk-first-key", 200}, {"/v1/models", "bearer  sk-third-key", 200}, {"/v1/models", "Bearer sk-first-key, sk-second-key", 401},
		{"/health", "", 200}, {"/ready", "", 200}, {"/tokenize", "", 401}, {"/metrics", "", 401}, {"/v1/load_lora_adapter", "", 401},
	} {
		r := httptest.NewRequest("GET", c.path, nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s with %q: %d, want %d", c.path, c.header, w.Code, c.status)
		}
		if w.Code == 401 {
			wireError(t, w.Body.String())
			if w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Error("no challenge")
			}
		}
		if rec := told[len(told)-1]; rec.Status != c.status || rec.Path != c.path || (c.status == 401) != (rec.Error == "invalid_api_key") {
			t.Errorf("told %+v", rec)
		}
	}
}

// What is told of a request has its numbers, and neither its text nor its key.
func TestRecord(t *testing.T) {
	var told Record
	g := &Guard{Next: &Handler{Models: Completers{"m": &echo{}}}, Told: func(r Record) { told = r }}
	for body, want := range map[string]Record{
		oneChat: {Model: "m", Status: 200, Answers: 1, In: 2, Out: 2},
		strings.Replace(oneChat, "{", `{"stream":true,"n":3,`, 1):    {Model: "m", Status: 200, Answers: 3, Stream: true, In: 2, Out: 6},
		strings.Replace(oneChat, "{", `{"user":"me",`, 1):            {Model: "m", User: "me", Status: 200, Answers: 1, In: 2, Out: 2},
		strings.Replace(oneChat, `"m"`, `"x"`, 1):                    {Status: 404, Error: "model_not_found"},
		strings.Replace(oneChat, "{", `{"a secret parameter":1,`, 1): {Status: 400, Error: "invalid_parameter"},
	} {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Request-Id", "mine-7")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if told.Time <= 0 || (want.Model != "") != (told.First > 0) || w.Header().Get("X-Request-Id") != "mine-7" {
			t.Errorf("%+v", told)
		}
		if want.Model != "" && !strings.Contains(w.Body.String(), `"id":"chatcmpl-mine-7"`) {
			t.Errorf("%s", w.Body)
		}
		want.ID, want.Method, want.Path, want.Time, want.First = "mine-7", "POST", "/v1/chat/completions", told.Time, told.First
		if !reflect.DeepEqual(told, want) {
			t.Errorf("told %+v, want %+v", told, want)
		}
	}
	r := httptest.NewRequest("GET", "/health", nil)
	r.Header.Set("X-Request-Id", "line\nbreak")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if id := w.Header().Get("X-Request-Id"); len(id) < 20 || id != told.ID || strings.Contains(id, "\n") {
		t.Errorf("id %q, told %q", id, told.ID)
	}
}

// A gate is a model that answers when it is let.
type gate struct {
	entered chan struct{}
	let     chan struct{}
}

func (g gate) Complete(ctx context.Context, _ router.Request) (router.Completion, error) {
	g.entered <- struct{}{}
	select {
	case <-g.let:
		return router.Completion{Text: "done", Finish: router.FinishStop}, nil
	case <-ctx.Done():
		return router.Completion{}, context.Cause(ctx)
	}
}

// Where there is no room for another answer, the call is told to come later, and those under way are not disturbed.
func TestOverload(t *testing.T) {
	g := gate{make(chan struct{}, 10), make(chan struct{})}
	h := &Handler{Models: Completers{"m": g}, Most: 2}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if status, body := do(h, "POST", "/v1/chat/completions", oneChat); status != 200 || !strings.Contains(body, "done") {
				t.Errorf("%d %s", status, body)
			}
		})
		<-g.entered
	}
	for _, body := range []string{oneChat, strings.Replace(oneChat, "{", `{"n":3,`, 1), strings.Replace(oneChat, "{", `{"stream":true,`, 1)} {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if e := wireError(t, w.Body.String()); w.Code != 429 || w.Header().Get("Retry-After") != "1" || e.Type != "rate_limit_error" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
	if status, _ := do(h, "GET", "/health", ""); status != 200 {
		t.Errorf("health under load: %d", status)
	}
	close(g.let)
	wg.Wait()
	if status, body := do(h, "POST", "/v1/chat/completions", oneChat); status != 200 {
		t.Errorf("after the load: %d %s", status, body)
	}
}

// A server that stops takes nothing more, lets what is under way finish, and tells what takes too long why it ends.
func TestDrain(t *testing.T) {
	g := gate{make(chan struct{}, 10), make(chan struct{})}
	h := &Handler{Models: Completers{"m": g}}
	base, end := context.WithCancelCause(t.Context())
	bodies := make(chan string, 2)
	for _, body := range []string{oneChat, strings.Replace(oneChat, "{", `{"stream":true,`, 1)} {
		go func() {
			r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)).WithContext(base)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			bodies <- w.Body.String()
		}()
		<-g.entered
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Drain(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two calls are under way, and draining says %v", err)
	}
	if status, body := do(h, "GET", "/ready", ""); status != 503 || !strings.Contains(body, "stopping") {
		t.Errorf("ready: %d %s", status, body)
	}
	if status, body := do(h, "POST", "/v1/chat/completions", oneChat); status != 503 || !strings.Contains(body, `"code":"stopping"`) {
		t.Errorf("a new call: %d %s", status, body)
	}
	if status, _ := do(h, "GET", "/health", ""); status != 200 {
		t.Errorf("health: %d", status)
	}
	g.let <- struct{}{}
	if body := <-bodies; !strings.Contains(body, "done") {
		t.Errorf("the one that finished: %s", body)
	}
	end(ErrDraining)
	if body := <-bodies; !strings.Contains(body, `"code":"stopping"`) || strings.Contains(body, "[DONE]") {
		t.Errorf("the one that did not: %s", body)
	}
	if err := h.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// Another site's page cannot talk to the server from a browser: nothing allows it to.
func TestNoCORS(t *testing.T) {
	g := &Guard{Next: &Handler{Models: Completers{"m": &echo{}}}}
	for _, method := range []string{"OPTIONS", "GET"} {
		r := httptest.NewRequest(method, "/v1/models", nil)
		r.Header.Set("Origin", "https://example.org")
		r.Header.Set("Access-Control-Request-Method", "POST")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control") {
				t.Errorf("%s: %s", method, name)
			}
		}
		if method == "OPTIONS" && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("preflight: %d", w.Code)
		}
	}
	var m map[string]any
	if status, body := do(g, "GET", "/v1/models", ""); status != 200 || json.Unmarshal([]byte(body), &m) != nil {
		t.Errorf("%d %s", status, body)
	}
}
