package openai

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/r2-reasoner/r2/router"
)

// do sends a request to a handler and returns the status and the body.
func do(h http.Handler, method, path, body string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// wireError is the error of a body; every body of ours has all four fields.
func wireError(t *testing.T, body string) Error {
	t.Helper()
	var m map[string]map[string]any
	var f failed
	if json.Unmarshal([]byte(body), &m) != nil || json.Unmarshal([]byte(body), &f) != nil {
		t.Fatalf("not an error: %s", body)
	}
	for _, k := range []string{"message", "type", "param", "code"} {
		if _, ok := m["error"][k]; !ok {
			t.Errorf("no %s in %s", k, body)
		}
	}
	return f.Error
}

// Every parameter is honoured or refused by its name.
func TestParametersRefused(t *testing.T) {
	h := &Handler{Models: Completers{"m": &echo{}}}
	const ms = `"messages":[{"role":"user","content":"hi"}]`
	for _, c := range []struct{ body, param, says string }{
		{``, "body", "want a JSON object"},
		{`[]`, "body", "want a JSON object"},
		{`{"model":"m",` + ms, "body", "want a JSON object"},
		{`{"model":"m",` + ms + `} {}`, "body", "more after"},
		{`{"model":"m","model":"m",` + ms + `}`, "body", `"model" is there twice`},
		{`{"model":"m"}`, "messages", "required"},
		{`{"model":"m","messages":null}`, "messages", "required"},
		{`{"model":"m","messages":[]}`, "messages", "at least one"},
		{`{"model":"m","messages":"hi"}`, "messages", "array"},
		{`{` + ms + `}`, "model", "required"},
		{`{"model":3,` + ms + `}`, "model", "want a string"},
		{`{"model":"m","messages":[{"role":"user"}]}`, "messages", "message 0: content is missing"},
		{`{"model":"m","messages":[{"role":"bot","content":"x"}]}`, "messages", `"bot" is none of`},
		{`{"model":"m","messages":[{"role":"user","content":"x","nick":"me"}]}`, "messages", "nick is not supported"},
		{`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, "messages", "part 0: text is missing"},
		{`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":1}]}]}`, "messages", "want a string"},
		{`{"model":"m",` + ms + `,"functions":[]}`, "functions", "not supported"},
		{`{"model":"m",` + ms + `,"Temperature":0}`, "Temperature", "not supported"},
		{`{"model":"m",` + ms + `,"prompt":"x"}`, "prompt", "not supported"},
		{`{"model":"m",` + ms + `,"temperature":2.1}`, "temperature", "from 0 to 2, got 2.1"},
		{`{"model":"m",` + ms + `,"temperature":"hot"}`, "temperature", "want a number"},
		{`{"model":"m",` + ms + `,"top_p":0}`, "top_p", "want a number"},
		{`{"model":"m",` + ms + `,"top_k":-2}`, "top_k", "from -1"},
		{`{"model":"m",` + ms + `,"min_p":1.5}`, "min_p", "want a number"},
		{`{"model":"m",` + ms + `,"max_tokens":0}`, "max_tokens", "from 1"},
		{`{"model":"m",` + ms + `,"max_tokens":1.5}`, "max_tokens", "whole number"},
		{`{"model":"m",` + ms + `,"max_tokens":5,"max_completion_tokens":6}`, "max_completion_tokens", "differs"},
		{`{"model":"m",` + ms + `,"n":0}`, "n", "from 1 to 128"},
		{`{"model":"m",` + ms + `,"n":1000000}`, "n", "from 1 to 128"},
		{`{"model":"m",` + ms + `,"seed":1.5}`, "seed", "whole number"},
		{`{"model":"m",` + ms + `,"stop":[""]}`, "stop", "empty"},
		{`{"model":"m",` + ms + `,"stop":7}`, "stop", "want a string"},
		{`{"model":"m",` + ms + `,"user":"` + strings.Repeat("u", 257) + `"}`, "user", "at most 256"},
		{`{"model":"m",` + ms + `,"logprobs":1}`, "logprobs", "true or false"},
		{`{"model":"m",` + ms + `,"logprobs":true,"top_logprobs":3}`, "top_logprobs", "text alone"},
		{`{"model":"m",` + ms + `,"presence_penalty":0.5}`, "presence_penalty", "text alone"},
		{`{"model":"m",` + ms + `,"response_format":{"type":"grammar"}}`, "response_format", "json_schema"},
		{`{"model":"m",` + ms + `,"logit_bias":{"5":1}}`, "logit_bias", "text alone"},
		{`{"model":"m",` + ms + `,"structured_outputs":{"grammar":"a"}}`, "structured_outputs", "grammar is not supported"},
		{`{"model":"m",` + ms + `,"structured_outputs":{"choice":[]}}`, "structured_outputs", "1 to"},
		{`{"model":"m",` + ms + `,"stream_options":{"include_usage":true}}`, "stream_options", "only with stream"},
		{`{"model":"m",` + ms + `,"r2":{"trace":true}}`, "r2", "only the router"},
		{`{"model":"m",` + ms + `,"n":2,"r2":{"trace":true}}`, "n", "one answer only"},
	} {
		status, body := do(h, "POST", "/v1/chat/completions", c.body)
		e := wireError(t, body)
		if status != 400 || e.Param == nil || *e.Param != c.param || !strings.Contains(e.Message, c.says) || e.Type != "invalid_request_error" {
			t.Errorf("%s: %d %s; want 400 naming %s: %s", c.body, status, body, c.param, c.says)
		}
	}
	for _, c := range []struct{ body, param, says string }{
		{`{"model":"m"}`, "prompt", "required"},
		{`{"model":"m","prompt":""}`, "prompt", "empty"},
		{`{"model":"m","prompt":[1,2]}`, "prompt", "text alone"},
		{`{"model":"m","prompt":["a","b"],"n":100}`, "prompt", "more than 128 answers"},
		{`{"model":"m","prompt":"a","logprobs":2}`, "logprobs", "text alone"},
		{`{"model":"m","prompt":"a","echo":true}`, "echo", "text alone"},
		{`{"model":"m","prompt":"a","best_of":2}`, "best_of", "text alone"},
		{`{"model":"m","prompt":"a","suffix":"b"}`, "suffix", "not supported"},
		{`{"model":"m","prompt":"a","messages":[]}`, "messages", "not supported"},
	} {
		status, body := do(h, "POST", "/v1/completions", c.body)
		e := wireError(t, body)
		if status != 400 || e.Param == nil || *e.Param != c.param || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %s; want 400 naming %s: %s", c.body, status, body, c.param, c.says)
		}
	}
}

// Values that change nothing are taken, and so are null and content in parts.
func TestParametersTaken(t *testing.T) {
	e := &echo{}
	h := &Handler{Models: Completers{"m": e}}
	status, body := do(h, "POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a "},
		{"type":"text","text":"b"}]}],"top_k":-1,"frequency_penalty":0,"presence_penalty":0.0,"repetition_penalty":1,"logit_bias":{},
		"response_format":{"type":"text"},"tools":null,"user":null,"top_logprobs":0,"stop":[],"stream":false,"max_tokens":5,"max_completion_tokens":5}`)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	want := router.Request{Messages: user("a b"), TopK: new(-1), Limit: 5}
	if !reflect.DeepEqual(e.seen[0], want) {
		t.Errorf("the model saw %+v, want %+v", e.seen[0], want)
	}
}

func TestRoutes(t *testing.T) {
	h := &Handler{Models: Completers{"m": &echo{}}}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/health", 200}, {"HEAD", "/health", 200}, {"GET", "/ready", 200}, {"GET", "/v1/models", 200},
		{"GET", "/", 404}, {"GET", "/v1", 404}, {"GET", "/v1/models/other", 404}, {"POST", "/v1/embeddings", 404},
		{"GET", "/v1/chat/completions", 405}, {"POST", "/v1/models", 405}, {"DELETE", "/v1/models/m", 405},
	} {
		status, body := do(h, c.method, c.path, "")
		if status != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, status, body, c.status)
		}
		if status >= 400 {
			wireError(t, body)
		}
	}
}

func TestReady(t *testing.T) {
	h := &Handler{Ready: func(context.Context) error { return errors.New("the weights are being read") }}
	status, body := do(h, "GET", "/ready", "")
	if e := wireError(t, body); status != 503 || !strings.Contains(e.Message, "being read") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := do(h, "GET", "/health", ""); status != 200 {
		t.Errorf("alive, but health is %d", status)
	}
}

func TestBodyLimits(t *testing.T) {
	h := &Handler{Models: Completers{"m": &echo{}}, MaxBody: 100}
	status, body := do(h, "POST", "/v1/completions", `{"model":"m","prompt":"`+strings.Repeat("x", 100)+`"}`)
	if e := wireError(t, body); status != 413 || !strings.Contains(e.Message, "100 bytes") {
		t.Errorf("%d %s", status, body)
	}
	r := httptest.NewRequest("POST", "/v1/completions", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "text/plain") // what a web page elsewhere may send unasked
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 415 {
		t.Errorf("%d for text/plain", w.Code)
	}
}

// huge is a body of ten megabytes that begins like a request.
func huge() io.Reader {
	return io.MultiReader(strings.NewReader(`{"model":"m","prompt":"`), io.LimitReader(rand.NewChaCha8([32]byte{}), 10<<20), strings.NewReader(`"}`))
}

// Many bodies of ten megabytes at once, told ahead or in chunks, are refused before they are read whole, and disturb
// nobody.
func TestHugeBodies(t *testing.T) {
	s := serve(t, map[string]router.Completer{"m": &echo{}})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r, err := http.NewRequest("POST", s.URL+"/v1/completions", huge())
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 0 {
				r.ContentLength = 10<<20 + int64(len(`{"model":"m","prompt":""}`))
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := s.Client().Do(r)
			if err != nil {
				var op *net.OpError
				if !errors.As(err, &op) { // the server hung up before all was sent, which is as good
					t.Error(err)
				}
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 413 || !strings.Contains(string(b), "4194304 bytes") {
				t.Errorf("%d %s, %v", resp.StatusCode, b, err)
			}
		})
	}
	c := client(t, s.URL, "m")
	for range 20 {
		if got, err := c.Complete(t.Context(), router.Request{Messages: user("well?")}); err != nil || got.Text != "well?" {
			t.Errorf("another's answer: %+v, %v", got, err)
		}
	}
	wg.Wait()
}

// whole is a Completer that cannot stream.
type whole struct{ c router.Completion }

func (w whole) Complete(context.Context, router.Request) (router.Completion, error) { return w.c, nil }

func TestStreamOfOneThatCannot(t *testing.T) {
	h := &Handler{Models: Completers{"m": whole{router.Completion{Text: "all", Finish: router.FinishStop}}}}
	status, body := do(h, "POST", "/v1/completions", `{"model":"m","prompt":"x","stream":true}`)
	events := strings.Split(strings.TrimSpace(body), "\n\n")
	if status != 200 || len(events) != 3 || !strings.Contains(events[0], `"text":"all"`) || !strings.Contains(events[1], `"finish_reason":"stop"`) || events[2] != "data: [DONE]" {
		t.Errorf("%d %s", status, body)
	}
}

// A stream that just stops is not a good end.
func TestStreamWithoutEnd(t *testing.T) {
	h := &Handler{Models: Completers{"m": stopper{}}}
	_, body := do(h, "POST", "/v1/completions", `{"model":"m","prompt":"x","stream":true}`)
	if strings.Contains(body, "[DONE]") || !strings.Contains(body, `"error"`) {
		t.Errorf("%s", body)
	}
}

type stopper struct{ whole }

func (stopper) Stream(context.Context, router.Request) iter.Seq2[router.Delta, error] {
	return func(yield func(router.Delta, error) bool) { yield(router.Delta{Text: "a"}, nil) }
}

// What JSON cannot hold: an impossible token is written as OpenAI does, and not-a-number is an error.
func TestLogProbsThatJSONCannotHold(t *testing.T) {
	for _, c := range []struct {
		lp     float64
		status int
		says   string
	}{
		{math.Inf(-1), 200, `"logprob":-9999,`}, {math.NaN(), 500, "not_finite"},
	} {
		h := &Handler{Models: Completers{"m": whole{router.Completion{Text: "a", LogProbs: []float32{float32(c.lp)}}}}}
		status, body := do(h, "POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"x"}],"logprobs":true}`)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%v: %d %s", c.lp, status, body)
		}
	}
}

// Pieces of a rune keep their bytes over the wire.
func TestPiecesKeepTheirBytes(t *testing.T) {
	pieces := []string{"\xe2\x82", "\xac", " <b>"}
	answer := router.Completion{Text: "€ <b>", LogProbs: []float32{-1, -2, -3}, Pieces: pieces, In: 1, Out: 3, Finish: router.FinishStop}
	c := client(t, serve(t, map[string]router.Completer{"m": whole{answer}}).URL, "m")
	got, err := c.Complete(t.Context(), router.Request{Messages: user("x"), LogProbs: true})
	if err != nil || !reflect.DeepEqual(got, answer) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Any body gives a call or one error that names a parameter, and the same whenever it is read.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"stop":["a"],"seed":-1,"structured_outputs":{"choice":["a"]}}`,
		`{"model":"m","prompt":["a","b"],"logprobs":0,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"r2":{"trace":true}}`,
		`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"x","tool_call_id":"1"}],"tools":[{"type":"function","function":{"name":"f","strict":true}}],"tool_choice":"required"}`,
		`{"model":"m","prompt":[[1,2],[3]],"logit_bias":{"7":1.5},"stop_token_ids":[1],"best_of":3,"truncate_prompt_tokens":-1,"echo":true,"max_tokens":0,"r2":{"limits":{"usd":0.5}}}`,
		`{"a":{"b":[}}`, `{"model":null}`, "\xff", `{"n":1e3}`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, chat bool) {
		c, err := decode(body, chat)
		again, err2 := decode(body, chat)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() || !reflect.DeepEqual(c, again) {
			t.Fatalf("%q: %+v, %v, then %+v, %v", body, c, err, again, err2)
		}
		if err != nil {
			var pe *router.ParamError
			if !errors.As(err, &pe) || pe.Param == "" {
				t.Fatalf("%q: %v names no parameter", body, err)
			}
			return
		}
		// what is taken is an object in which every member that is not null was known
		var m map[string]json.RawMessage
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatalf("%q was taken, but: %v", body, err)
		}
		for name, raw := range m {
			_, a := common[name]
			_, b := map[bool]map[string]setter{true: chatOnly, false: textOnly}[chat][name]
			if !a && !b && string(raw) != "null" {
				t.Fatalf("%q was taken with %q in it", body, name)
			}
		}
		if n := c.Draws(); n < 1 || n > mostAnswers {
			t.Fatalf("%q: %d answers", body, n)
		}
	})
}
