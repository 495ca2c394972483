package pool

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// A member over HTTP that breaks, in each way a server can, is left alone, tried once after the cool-down, and used
// again. The clock is the test's.
func TestBreakerOverHTTP(t *testing.T) {
	for name, breaks := range map[string]http.HandlerFunc{
		"fails": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"hangs up": func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			var well atomic.Bool
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body.Read(make([]byte, 4096)) // or the server does not see that a client leaves
				requests.Add(1)
				if !well.Load() {
					breaks(w, r)
					return
				}
				fmt.Fprint(w, `{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`)
			}))
			defer s.Close()
			c, err := openai.NewClient(openai.Options{URL: s.URL, Model: "m", Timeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p := one(t, c, Options{}, func(m *Member) {
				once(m)
				if name == "hangs" {
					m.Timeout = 50 * time.Millisecond
				}
			})
			var clock atomic.Int64
			p.now = func() time.Time { return time.Unix(clock.Load(), 0) }
			call := func(is error, sent int32, state State) {
				t.Helper()
				before := requests.Load()
				_, err := p.Complete(t.Context(), "m", ask)
				if !errors.Is(err, is) || requests.Load()-before != sent || p.Breaker("m") != state {
					t.Fatalf("%v, %d requests sent, breaker %v; want %v, %d, %v", err, requests.Load()-before, p.Breaker("m"), is, sent, state)
				}
				if is == router.ErrOpen && sent == 0 && !strings.Contains(err.Error(), " attempts in a row failed") {
					t.Errorf("it does not say what failed: %v", err)
				}
			}
			for range mostFailures - 1 {
				call(router.ErrBusy, 1, Closed)
				clock.Add(1)
			}
			call(router.ErrOpen, 1, Open) // told that nothing more will be tried
			call(router.ErrOpen, 0, Open)
			clock.Add(int64(coolDown/time.Second) - 1)
			call(router.ErrOpen, 0, Open)
			clock.Add(1)
			call(router.ErrOpen, 1, Open) // the probe
			call(router.ErrOpen, 0, Open)
			well.Store(true)
			call(router.ErrOpen, 0, Open) // nobody knows yet
			clock.Add(int64(coolDown / time.Second))
			call(nil, 1, Closed)
			call(nil, 1, Closed)
		})
	}
}
