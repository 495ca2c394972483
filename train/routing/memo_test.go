package routing

import (
	"context"
	"errors"
	"testing"

	"github.com/r2-reasoner/r2/router"
)

// counter is a pool whose every answer costs and says something else, and that fails when it is told to.
type counter struct {
	router.Pool
	calls int
	fails bool
}

func (c *counter) Complete(context.Context, string, router.Request) (router.Completion, error) {
	c.calls++
	if c.fails {
		return router.Completion{}, errors.New("out of order")
	}
	return router.Completion{Text: "answer", Out: c.calls, Cost: router.Money(c.calls)}, nil
}

// A request that draws nothing is sent to each model once, whatever it costs is what it cost then; one
// that draws is always sent; a failure is not remembered.
func TestMemo(t *testing.T) {
	p := &counter{}
	m := NewMemo(p)
	ask := func(model, prompt string, temperature *float64, stop ...string) int {
		t.Helper()
		c, err := m.Complete(t.Context(), model, router.Request{Prompt: prompt, Temperature: temperature, Stop: stop})
		if err == nil && c.Cost != router.Money(c.Out) {
			t.Errorf("%+v", c)
		}
		if (err != nil) != p.fails {
			t.Errorf("error %v", err)
		}
		return c.Out
	}
	zero, half := new(0.0), new(0.5)
	for i, c := range []struct {
		model, prompt string
		temperature   *float64
		stop          []string
		want, sent    int // the call that the answer is of; calls remembered or failed to be
	}{
		{"a", "x", zero, nil, 1, 1},
		{"a", "x", new(0.0), nil, 1, 1},
		{"b", "x", zero, nil, 2, 2},
		{"a", "y", zero, nil, 3, 3},
		{"a", "x", zero, []string{"."}, 4, 4},
		{"a", "x", half, nil, 5, 4},
		{"a", "x", half, nil, 6, 4},
		{"a", "x", nil, nil, 7, 4}, // the server's own temperature
		{"a", "x", zero, nil, 1, 4},
	} {
		if got := ask(c.model, c.prompt, c.temperature, c.stop...); got != c.want || m.Sent() != c.sent {
			t.Errorf("request %d: answer of call %d, want %d; %d sent, want %d", i, got, c.want, m.Sent(), c.sent)
		}
	}
	p.fails = true
	ask("a", "z", zero)
	p.fails = false
	if got := ask("a", "z", zero); got != 9 {
		t.Errorf("after a failure the answer is of call %d, want 9", got)
	}
}
