package openai

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"

	"github.com/r2-reasoner/r2/router"
)

// A Loader is a Catalog whose adapters come and go while it serves.
type Loader interface {
	// Load brings an adapter in, or replaces one, and returns its generation: how often its name has been loaded. After
	// an error everything is as it was.
	Load(ctx context.Context, l AdapterLoad) (generation int, err error)
	// Unload takes one away. Calls that have begun finish on it.
	Unload(ctx context.Context, name string) error
}

// An AdapterLoad is the body of /v1/load_lora_adapter.
type AdapterLoad struct {
	Name, Path string
	InPlace    bool // load_inplace: replace the one of that name
	Expected   *int // expected_generation: load only if this is the present one's; 0: there has been none
}

// What a Loader's errors are about.
var (
	ErrNotFound  = errors.New("not here")
	ErrConflict  = errors.New("conflict")
	ErrForbidden = errors.New("not allowed")
)

// fields reads a body whose members are known, and names the one that is wrong.
func fields(body []byte, known map[string]func(json.RawMessage) error, required ...string) error {
	values, err := envelope(body)
	if err != nil {
		return err
	}
	for name, raw := range values {
		set, ok := known[name]
		if !ok {
			return &router.ParamError{Param: name, Reason: "this parameter is not supported here"}
		}
		if err := set(raw); err != nil {
			return &router.ParamError{Param: name, Reason: err.Error()}
		}
	}
	for _, name := range required {
		if values[name] == nil {
			return &router.ParamError{Param: name, Reason: "this parameter is required"}
		}
	}
	return nil
}

func (h *Handler) loader() (Loader, error) {
	if l, ok := h.Models.(Loader); ok {
		return l, nil
	}
	return nil, &loadError{ErrForbidden}
}

type loadError struct{ err error }

func (e *loadError) Error() string {
	return "adapters are not loaded and unloaded here: " + e.err.Error()
}
func (e *loadError) Unwrap() error { return e.err }

func (h *Handler) load(w http.ResponseWriter, r *http.Request, body []byte) {
	var l AdapterLoad
	err := fields(body, map[string]func(json.RawMessage) error{
		"lora_name":           func(raw json.RawMessage) error { return name(raw, &l.Name) },
		"lora_path":           func(raw json.RawMessage) error { return name(raw, &l.Path) },
		"load_inplace":        func(raw json.RawMessage) error { return boolean(raw, &l.InPlace) },
		"expected_generation": func(raw json.RawMessage) error { return counted(raw, &l.Expected, 0, math.MaxInt32) },
	}, "lora_name", "lora_path")
	var to Loader
	if err == nil {
		to, err = h.loader()
	}
	generation := 0
	if err == nil {
		generation, err = to.Load(r.Context(), l)
	}
	if err != nil {
		fail(w, err, nil)
		return
	}
	reply(w, http.StatusOK, map[string]any{"lora_name": l.Name, "generation": generation})
}

func (h *Handler) unload(w http.ResponseWriter, r *http.Request, body []byte) {
	adapter := ""
	err := fields(body, map[string]func(json.RawMessage) error{
		"lora_name": func(raw json.RawMessage) error { return name(raw, &adapter) },
	}, "lora_name")
	var from Loader
	if err == nil {
		from, err = h.loader()
	}
	if err == nil {
		err = from.Unload(r.Context(), adapter)
	}
	if err != nil {
		fail(w, err, nil)
		return
	}
	reply(w, http.StatusOK, map[string]any{"lora_name": adapter})
}
