package openai

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/router/pool"
)

// A member that fails time after time fails its questions by name and at once; where the allocation is free it goes to
// another, and the trace says so; where it is not, and in a plan that is given, it is the failure.
func TestRouterBesideOpenBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.router.Available = w.pool.Available
	w.down.Store(true)
	hard := []string{"large"}
	for w.pool.Breaker("large") == pool.Closed {
		if _, err := w.router.Execute(t.Context(), "q", router.Plan{"jump"}, hard); !errors.Is(err, router.ErrBusy) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	asked := w.asked.Load()
	if asked < 5 {
		t.Errorf("%d requests opened it", asked)
	}
	tr, err := w.router.Execute(t.Context(), "q", router.Plan{"jump"}, hard)
	if !errors.Is(err, router.ErrOpen) || tr.Stopped != router.StageSolve || tr.Calls[0].Attempts != 0 || tr.Cost != 0 {
		t.Errorf("%v after %+v", err, tr.Calls)
	}
	tr, err = w.router.Answer(t.Context(), "walk left and jump")
	if err != nil || tr.Answer != "WALK LEFT JUMP" || strings.Join(tr.Models(), " ") != "small small" || !slices.Equal(tr.LeftOut, hard) {
		t.Errorf("%q by %q, left out %q: %v", tr.Answer, tr.Models(), tr.LeftOut, err)
	}
	w.router.Available = nil // the allocator's own choice
	if tr, err = w.router.Answer(t.Context(), "walk left and jump"); !errors.Is(err, router.ErrOpen) || strings.Join(tr.Models(), " ") != "small large" || tr.LeftOut != nil {
		t.Errorf("by %q, left out %q: %v", tr.Models(), tr.LeftOut, err)
	}
	if n := w.asked.Load(); n != asked {
		t.Errorf("%d requests were sent to it", n-asked)
	}
}

// Over HTTP the failure has a name of its own, and a time to come again.
func TestOpenBreakerOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.down.Store(true)
	w.router.Allocator = allocate.Fixed("large")
	h := &Handler{Models: Completers{"r2": router.Service{Router: w.router}}}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(`{"model":"r2","messages":[{"role":"user","content":"walk"}],"r2":{"trace":true}}`))
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if w.pool.Breaker("large") == pool.Closed {
			continue
		}
		var f failed
		if err := json.Unmarshal(rec.Body.Bytes(), &f); err != nil {
			t.Fatal(err)
		}
		after, err := strconv.Atoi(rec.Header().Get("Retry-After"))
		if *f.Error.Code != "unavailable" || err != nil || after < 1 || after > 10 || f.R2.Trace.Stopped != router.StageSolve {
			t.Errorf("Retry-After %q, %s", rec.Header().Get("Retry-After"), rec.Body)
		}
		return
	}
	t.Error("it has not opened")
}
