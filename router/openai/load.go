package openai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// ErrDraining is what calls end with, and are refused with, when the server stops.
var ErrDraining = errors.New("the server is stopping")

// A crowd is the calls under way.
type crowd struct {
	mu       sync.Mutex
	calls    int
	answers  int // that they draw
	draining bool
	empty    chan struct{} // closed when draining and nobody is left
}

// enter takes room for n answers, of which there are at most most at once (0: any number); leave gives it back.
func (c *crowd) enter(n, most int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.draining:
		return ErrDraining
	case most > 0 && n > most:
		return &crowdedError{fmt.Sprintf("%d answers are more than the %d that may wait here at once", n, most)}
	case most > 0 && c.answers+n > most:
		return &crowdedError{fmt.Sprintf("%d answers are under way or wait, and there is room for %d: try again later", c.answers, most)}
	}
	c.calls++
	c.answers += n
	return nil
}

func (c *crowd) leave(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	c.answers -= n
	if c.draining && c.calls == 0 {
		close(c.empty)
	}
}

// A crowdedError is a call there is no room for.
type crowdedError struct{ reason string }

func (e *crowdedError) Error() string { return e.reason }

// later is what Retry-After says where nothing better is known.
const later = time.Second

// Drain refuses further calls and /ready, and waits until those under way are over, or ctx is.
func (h *Handler) Drain(ctx context.Context) error {
	c := &h.crowd
	c.mu.Lock()
	if !c.draining {
		c.draining, c.empty = true, make(chan struct{})
		if c.calls == 0 {
			close(c.empty)
		}
	}
	c.mu.Unlock()
	select {
	case <-c.empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *crowd) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	err := error(nil)
	if h.crowd.isDraining() {
		err = ErrDraining
	} else if h.Ready != nil {
		err = h.Ready(r.Context())
	}
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "not ready: "+err.Error(), "", "not_ready")
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "ready"})
}
