package routing

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/r2-reasoner/r2/router"
)

// A Memo is a pool that remembers: a request that draws nothing at random (temperature 0) is sent to a
// model once, and answered, and charged in traces, from memory after that. It is safe for concurrent
// use; two equal requests at the same moment may both be sent.
type Memo struct {
	router.Pool

	mu    sync.Mutex
	known map[string]router.Completion
	sent  int
}

// NewMemo remembers what a pool answers.
func NewMemo(p router.Pool) *Memo { return &Memo{Pool: p, known: map[string]router.Completion{}} }

// Complete answers from memory where it can.
func (m *Memo) Complete(ctx context.Context, model string, r router.Request) (router.Completion, error) {
	if r.Temperature == nil || *r.Temperature != 0 {
		return m.Pool.Complete(ctx, model, r)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return router.Completion{}, err
	}
	key := model + "\x00" + string(b)
	m.mu.Lock()
	c, ok := m.known[key]
	m.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err = m.Pool.Complete(ctx, model, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent++
	if err == nil {
		m.known[key] = c
	}
	return c, err
}

// Sent is how many requests the pool has really had.
func (m *Memo) Sent() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}
