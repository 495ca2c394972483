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
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// A Handler serves models over HTTP: /v1/completions, /v1/chat/completions, /v1/models, /tokenize, /detokenize,
// /v1/load_lora_adapter, /v1/unload_lora_adapter, /health, /ready and /metrics.
// The fields are set before the first request and not changed after.
type Handler struct {
	Models  Catalog                     // nil: none
	Ready   func(context.Context) error // of /ready; nil: always
	Metrics http.Handler                // of /metrics; nil: there is none
	Most    int                         // answers that may be under way or wait at once, further ones are refused; 0: any number
	MaxBody int64                       // most bytes of a request; 0: 4 MiB
	Texts   bool                        // records hold what is asked and answered

	crowd crowd
}

var created = time.Now().Unix() // of every model, as far as a client can tell

// A route is what a path takes and who answers.
type route struct {
	method string
	get    func(w http.ResponseWriter, r *http.Request)
	post   func(w http.ResponseWriter, r *http.Request, body []byte)
}

func (h *Handler) route(path string) (route, bool) {
	get := func(f func(w http.ResponseWriter, r *http.Request)) (route, bool) {
		return route{method: http.MethodGet, get: f}, true
	}
	post := func(f func(w http.ResponseWriter, r *http.Request, body []byte)) (route, bool) {
		return route{method: http.MethodPost, post: f}, true
	}
	switch path {
	case "/v1/chat/completions":
		return post(func(w http.ResponseWriter, r *http.Request, body []byte) { h.complete(w, r, body, true) })
	case "/v1/completions":
		return post(func(w http.ResponseWriter, r *http.Request, body []byte) { h.complete(w, r, body, false) })
	case "/tokenize":
		return post(h.tokenize)
	case "/detokenize":
		return post(h.detokenize)
	case "/v1/load_lora_adapter":
		return post(h.load)
	case "/v1/unload_lora_adapter":
		return post(h.unload)
	case "/v1/models":
		return get(h.models)
	case "/ready":
		return get(h.ready)
	case "/health":
		return get(h.health)
	case "/metrics":
		if h.Metrics != nil {
			return get(h.Metrics.ServeHTTP)
		}
	}
	if name, ok := strings.CutPrefix(path, "/v1/models/"); ok {
		return get(func(w http.ResponseWriter, _ *http.Request) { h.model(w, name) })
	}
	return route{}, false
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to, ok := h.route(r.URL.Path)
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %.200s", r.URL.Path), "", "not_found")
	case r.Method != to.method && (r.Method != http.MethodHead || to.method != http.MethodGet):
		w.Header().Set("Allow", to.method)
		refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s, not %s", r.URL.Path, to.method, r.Method), "", "method_not_allowed")
	case to.get != nil:
		to.get(w, r)
	default:
		if body, ok := h.body(w, r); ok {
			to.post(w, r, body)
		}
	}
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
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
	fail(w, &unknownModel{name}, nil)
}

// An unknownModel is a name that is not in the catalog.
type unknownModel struct{ name string }

func (e *unknownModel) Error() string {
	return fmt.Sprintf("model %.200q is not here; GET /v1/models lists those that are", e.name)
}

// body reads a request's, or refuses it.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json", "", "content_type")
		return nil, false
	}
	limit := cmp.Or(h.MaxBody, 4<<20)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit), "", "too_large")
	case errors.Is(err, os.ErrDeadlineExceeded):
		refuse(w, http.StatusRequestTimeout, "the body did not come in time", "", "too_slow")
	}
	return body, err == nil // any other error: the client is gone
}

// complete answers a request for text.
func (h *Handler) complete(w http.ResponseWriter, r *http.Request, body []byte, chat bool) {
	c, err := decode(body, chat)
	if err != nil {
		fail(w, err, nil)
		return
	}
	m, ok := h.find(c.Model)
	if !ok {
		fail(w, &unknownModel{c.Model}, nil)
		return
	}
	rec := record(r)
	rec.Model, rec.User, rec.Stream, rec.Answers = c.Model, c.User, c.Stream, c.answers()
	if h.Texts {
		rec.keepTexts(c)
	}
	if err := h.crowd.enter(c.Draws(), h.Most); err != nil {
		fail(w, err, nil)
		return
	}
	defer h.crowd.leave(c.Draws())
	f := newFormat(c, rec)
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
	} else if status == http.StatusTooManyRequests || errors.Is(err, ErrDraining) {
		w.Header().Set("Retry-After", strconv.Itoa(int(later.Seconds())))
	}
	failedWith(w, e.Code)
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
	case errors.As(err, new(*unknownModel)):
		status, kind, code = http.StatusNotFound, "invalid_request_error", "model_not_found"
		e.Param = new("model")
	case errors.As(err, new(*crowdedError)):
		status, kind, code = http.StatusTooManyRequests, "rate_limit_error", "overloaded"
	case errors.Is(err, ErrDraining):
		status, code = http.StatusServiceUnavailable, "stopping"
	case errors.Is(err, ErrNotFound):
		status, kind, code = http.StatusNotFound, "invalid_request_error", "not_found"
	case errors.Is(err, ErrConflict):
		status, kind, code = http.StatusConflict, "invalid_request_error", "conflict"
	case errors.Is(err, ErrForbidden):
		status, kind, code = http.StatusForbidden, "invalid_request_error", "forbidden"
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
	case errors.Is(err, router.ErrOpen):
		status, code = http.StatusServiceUnavailable, "unavailable"
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
	failedWith(w, e.Code)
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
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(slowest)) // a writer that has none waits for nobody
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
