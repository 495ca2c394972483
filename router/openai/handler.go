package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// A Handler serves models over HTTP: /v1/models, /v1/chat/completions, /v1/completions, /health and /ready.
// The fields are set before the first request and not changed after.
type Handler struct {
	Models  Catalog                     // nil: none
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

// A modelInfo is OpenAI's form of a Card, with vLLM's additions.
type modelInfo struct {
	ID      string  `json:"id"`
	Object  string  `json:"object"`
	Created int64   `json:"created"`
	OwnedBy string  `json:"owned_by"`
	Root    string  `json:"root"`
	Parent  *string `json:"parent"`
	Context int     `json:"max_model_len,omitempty"`
}

func (c Card) info() modelInfo {
	m := modelInfo{ID: c.Name, Object: "model", Created: cmp.Or(c.Created, created), OwnedBy: "r2", Root: cmp.Or(c.Root, c.Name), Context: c.Context}
	if c.Parent != "" {
		m.Parent = &c.Parent
	}
	return m
}

func (h *Handler) cards() []Card {
	if h.Models == nil {
		return nil
	}
	return h.Models.Cards()
}

func (h *Handler) find(name string) (Model, bool) {
	if h.Models == nil {
		return nil, false
	}
	return h.Models.Find(name)
}

func (h *Handler) models(w http.ResponseWriter, _ *http.Request) {
	list := []modelInfo{}
	for _, c := range h.cards() {
		list = append(list, c.info())
	}
	reply(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (h *Handler) model(w http.ResponseWriter, name string) {
	for _, c := range h.cards() {
		if c.Name == name {
			reply(w, http.StatusOK, c.info())
			return
		}
	}
	h.unknown(w, name)
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
	m, ok := h.find(c.Model)
	if !ok {
		h.unknown(w, c.Model)
		return
	}
	f := newFormat(c)
	if c.Stream {
		f.stream(w, r, m.Answer(r.Context(), c))
		return
	}
	f.whole(w, r, m.Answer(r.Context(), c))
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
