package reward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serve answers the nth request (from 1) by f.
func serve(t *testing.T, f func(n int, w http.ResponseWriter, r *http.Request)) (*URL, *atomic.Int32) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(int(n.Add(1)), w, r) }))
	t.Cleanup(s.Close)
	return &URL{Address: s.URL, Timeout: 20 * time.Second, Client: s.Client()}, &n
}

func TestServerGetsTheCommandsLines(t *testing.T) {
	u, n := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if want := `{"answer":"yes","completion":"a<","prompt":"p"}` + "\n" + `{"answer":"yes","completion":"b","prompt":"p"}` + "\n"; err != nil || string(b) != want || r.Method != http.MethodPost {
			t.Errorf("%s %q %v", r.Method, b, err)
		}
		fmt.Fprint(w, "{\"reward\":0.5,\"why\":1}\n{\"error\":\"no judge\"}\n")
	})
	got, x, err := u.Score(t.Context(), rows("a<", "b"))
	if d := cmp.Diff([]Reward{{Value: 0.5}, {Failure: "no judge"}}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if line, err := rows("b")[0].Line(); err != nil || !strings.HasSuffix(string(x.Request), "\n"+string(line)+"\n") {
		t.Errorf("%q %v", x.Request, err)
	}
	if got, _, err := u.Score(t.Context(), nil); got != nil || err != nil || n.Load() != 1 {
		t.Errorf("no rows: %v %v", got, err)
	}
}

// Trouble that passes is tried again; the answer is then that of the last try.
func TestTriedAgain(t *testing.T) {
	for name, trouble := range map[string]func(w http.ResponseWriter){
		"429": func(w http.ResponseWriter) { w.Header().Set("Retry-After", "1"); w.WriteHeader(429) },
		"503": func(w http.ResponseWriter) { w.WriteHeader(503) },
		"hung up": func(w http.ResponseWriter) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				c.Close()
			}
		},
		"cut short": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"reward":1}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, n := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n < 3 {
					trouble(w)
					return
				}
				fmt.Fprintln(w, `{"reward":1}`)
			})
			got, _, err := u.Score(t.Context(), rows("a"))
			if d := cmp.Diff([]Reward{{Value: 1}}, got); err != nil || d != "" || n.Load() != 3 {
				t.Error(err, d, n.Load())
			}
		})
	}
}

// What does not pass is an error of the batch.
func TestServerErrors(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		tries  int32
		want   string
	}{
		"refused":    {"who are you", 401, 1, `401 Unauthorized: "who are you"`},
		"always 500": {"broken", 500, 3, "given up after 3 tries: status 500"},
		"too few":    {`{"reward":1}`, 200, 1, "1 lines of output for 2 completions"},
		"none":       {"", 200, 1, "0 lines of output for 2 completions"},
		"NaN":        {"{\"reward\":NaN}\n{\"reward\":1}", 200, 1, "output line 1"},
		"null":       {"{\"reward\":1}\n{\"reward\":null}", 200, 1, "output line 2"},
		"missing":    {"{\"reward\":1}\n{}", 200, 1, "output line 2"},
		"flood":      {strings.Repeat("x", 2<<20), 200, 1, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, n := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.answer)
			})
			u.Tries = 3
			got, _, err := u.Score(t.Context(), rows("a", "b"))
			if err == nil || got != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), u.Address) || n.Load() != c.tries {
				t.Errorf("%v after %d requests: %v; want %q after %d", got, n.Load(), err, c.want, c.tries)
			}
		})
	}
}

func TestServerDeadline(t *testing.T) {
	u, _ := serve(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	u.Timeout = 200 * time.Millisecond
	if _, _, err := u.Score(t.Context(), rows("a")); err == nil || !strings.Contains(err.Error(), "no answer within 200ms") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := u.Score(ctx, rows("a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nobody := &URL{Address: "http://127.0.0.1:1/", Tries: 2}
	if _, _, err := nobody.Score(t.Context(), rows("a")); err == nil || !strings.Contains(err.Error(), "given up after 2 tries") {
		t.Error(err)
	}
}
