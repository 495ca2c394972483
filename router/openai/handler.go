package openai

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// A Handler serves models over HTTP: /v1/models, /v1/chat/completions, /v1/completions, /health and /ready.
// A model that is a router.Streamer is streamed as its text comes, another one in one piece. A model that is a
// router.Service can be asked for its trace ("r2": {"trace": true}), and streams its events.
// The fields are set before the first request and not changed after.
type Handler struct {
	Models  map[string]router.Completer
	Ready   func(context.Context) error // of /ready; nil: always
	MaxBody int64                       // most bytes of a request; 0: 4 MiB
}

var created = time.Now().Unix() // of every model, as far as a client can tell

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method, serve := http.MethodGet, h.health
	switch path := r.URL.Path; {
	case path == "/v1/chat/completions":
		method, serve = http.MethodPost, func(w http.ResponseWriter, r *http.Request) { h.complete(w, r, true) }
	case path == "/v1/completions":
		method, serve = http.MethodPost, func(w http.ResponseWriter, r *http.Request) { h.complete(w, r, false) }
	case path == "/v1/models":
		serve = h.models
	case strings.HasPrefix(path, "/v1/models/"):
		serve = func(w http.ResponseWriter, _ *http.Request) { h.model(w, strings.TrimPrefix(path, "/v1/models/")) }
	case path == "/ready":
		serve = h.ready
	case path == "/health":
	default:
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %s", path), "", "not_found")
		return
	}
	if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
		w.Header().Set("Allow", method)
		refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s, not %s", r.URL.Path, method, r.Method), "", "method_not_allowed")
		return
	}
	serve(w, r)
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	if h.Ready != nil {
		if err := h.Ready(r.Context()); err != nil {
			refuse(w, http.StatusServiceUnavailable, "not ready: "+err.Error(), "", "not_ready")
			return
		}
	}
	reply(w, http.StatusOK, map[string]string{"status": "ready"})
}

type modelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (h *Handler) models(w http.ResponseWriter, _ *http.Request) {
	list := []modelInfo{}
	for _, name := range slices.Sorted(maps.Keys(h.Models)) {
		list = append(list, modelInfo{name, "model", created, "r2"})
	}
	reply(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (h *Handler) model(w http.ResponseWriter, name string) {
	if h.Models[name] == nil {
		h.unknown(w, name)
		return
	}
	reply(w, http.StatusOK, modelInfo{name, "model", created, "r2"})
}

func (h *Handler) unknown(w http.ResponseWriter, name string) {
	refuse(w, http.StatusNotFound, fmt.Sprintf("model %q is not here; GET /v1/models lists those that are", name), "model", "model_not_found")
}

// complete answers a request for text.
func (h *Handler) complete(w http.ResponseWriter, r *http.Request, chat bool) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json", "", "content_type")
		return
	}
	limit := h.MaxBody
	if limit == 0 {
		limit = 4 << 20
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit), "", "too_large")
		}
		return // else the client is gone
	}
	c, err := decode(body, chat)
	if err != nil {
		fail(w, err, nil)
		return
	}
	m := h.Models[c.model]
	if m == nil {
		h.unknown(w, c.model)
		return
	}
	if _, ok := m.(router.Service); c.trace && !ok {
		fail(w, &router.ParamError{Param: "r2", Reason: "only the router has a trace"}, nil)
		return
	}
	f := newFormat(c)
	if c.stream {
		f.stream(w, r, m)
		return
	}
	f.whole(w, r, m)
}

// A format writes the answers of one call.
type format struct {
	*call
	id      string
	created int64
}

func newFormat(c *call) *format {
	id := "cmpl-" + rand.Text()
	if c.chat {
		id = "chat" + id
	}
	return &format{c, id, time.Now().Unix()}
}

// whole makes all requests at once and writes one response.
func (f *format) whole(w http.ResponseWriter, r *http.Request, m router.Completer) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rs := f.requests()
	got, errs := make([]router.Completion, len(rs)), make([]error, len(rs))
	var wg sync.WaitGroup
	for i, q := range rs {
		wg.Go(func() {
			if got[i], errs[i] = m.Complete(ctx, q); errs[i] != nil {
				cancel() // the others are of no use
			}
		})
	}
	wg.Wait()
	if i := first(errs); i >= 0 {
		fail(w, errs[i], f.extension(got[i]))
		return
	}
	resp := f.response("chat.completion")
	for i, c := range got {
		ch := Choice{Index: i, LogProbs: f.logProbs(c.LogProbs, c.Pieces, 0), Finish: new(string(c.Finish))}
		if f.chat {
			ch.Message = &Turn{Role: "assistant", Content: &c.Text}
		} else {
			ch.Text = &c.Text
		}
		resp.Choices = append(resp.Choices, ch)
	}
	resp.Usage = f.total(got)
	resp.R2 = f.extension(got[0])
	reply(w, http.StatusOK, resp)
}

// first is the index of the error that made the others: the first that is not a cancellation.
func first(errs []error) int {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil && !errors.Is(err, context.Canceled) })
	if i < 0 {
		i = slices.IndexFunc(errs, func(err error) bool { return err != nil })
	}
	return i
}

// response is an empty one, or an empty chunk.
func (f *format) response(object string) *Response {
	if !f.chat {
		object = "text_completion"
	}
	return &Response{ID: f.id, Object: object, Created: f.created, Model: f.model, Choices: []Choice{}}
}

// extension is the trace where it was asked for.
func (f *format) extension(c router.Completion) *Extension {
	if !f.trace || c.Trace == nil {
		return nil
	}
	return &Extension{Trace: c.Trace}
}

// total adds up the usage of all answers. The n answers to one prompt read it once.
func (f *format) total(got []router.Completion) *Usage {
	var u Usage
	var cost router.Money
	priced := false
	for i, c := range got {
		if i%f.n == 0 || c.Trace != nil {
			u.Prompt += c.In
		}
		u.Completion += c.Out
		cost = cost.Plus(c.Cost)
		priced = priced || c.Cost > 0 || c.Trace != nil
	}
	u.Total = u.Prompt + u.Completion
	if priced {
		u.Cost = &cost
	}
	return &u
}

// logProbs writes log-probabilities, of text that starts after offset characters; nil when none were asked for.
func (f *format) logProbs(lps []float32, pieces []string, offset int) *LogProbs {
	if !f.request.LogProbs {
		return nil
	}
	out := &LogProbs{}
	for i, lp := range lps {
		lp = max(lp, -9999) // JSON has no infinity; NaN stays and fails
		piece := ""
		if i < len(pieces) {
			piece = pieces[i]
		}
		if !f.chat {
			out.Tokens = append(out.Tokens, piece)
			out.TokenLogProbs = append(out.TokenLogProbs, lp)
			out.TextOffset = append(out.TextOffset, offset)
			offset += len([]rune(piece))
			continue
		}
		t := TokenLogProb{Token: piece, LogProb: lp, Bytes: []int{}, Top: []struct{}{}}
		for _, b := range []byte(piece) {
			t.Bytes = append(t.Bytes, int(b))
		}
		out.Content = append(out.Content, t)
	}
	return out
}

// fail writes the error of a model.
func fail(w http.ResponseWriter, err error, x *Extension) {
	status, e := shape(err)
	if ce := (*router.CallError)(nil); errors.As(err, &ce) && ce.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(ce.RetryAfter.Seconds()))))
	}
	reply(w, status, failed{e, x})
}

// shape is the status and the form of an error.
func shape(err error) (int, Error) {
	status, kind, code := http.StatusInternalServerError, "server_error", "internal_error"
	var pe *router.ParamError
	var plan *router.PlanError
	e := Error{Message: err.Error()}
	switch {
	case errors.As(err, &pe):
		status, kind, code = http.StatusBadRequest, "invalid_request_error", "invalid_parameter"
		e.Param = &pe.Param
	case errors.Is(err, router.ErrBudget):
		status, kind, code = http.StatusPaymentRequired, "insufficient_quota", "budget_reached"
	case errors.Is(err, router.ErrLimit):
		status, kind, code = http.StatusUnprocessableEntity, "router_error", "limit_reached"
	case errors.As(err, &plan):
		status, kind, code = http.StatusUnprocessableEntity, "router_error", "no_plan"
	case errors.Is(err, router.ErrAnswer):
		status, kind, code = http.StatusUnprocessableEntity, "router_error", "unusable_answer"
	case errors.Is(err, context.DeadlineExceeded):
		status, code = http.StatusGatewayTimeout, "timeout"
	case errors.Is(err, router.ErrBusy):
		status, code = http.StatusServiceUnavailable, "busy"
	case errors.Is(err, router.ErrRefused):
		status, kind, code = http.StatusBadRequest, "invalid_request_error", "refused"
	}
	e.Type, e.Code = kind, &code
	return status, e
}

func refuse(w http.ResponseWriter, status int, message, param, code string) {
	e := Error{Message: message, Type: "invalid_request_error", Code: &code}
	if param != "" {
		e.Param = &param
	}
	if status >= 500 {
		e.Type = "server_error"
	}
	reply(w, status, failed{Error: e})
}

// reply writes a value as JSON. What JSON cannot hold (NaN) is an error of the server, not a broken body.
func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer holds a number that JSON cannot: `+
			`not a number, or infinite","type":"server_error","param":null,"code":"not_finite"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
