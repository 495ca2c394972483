package openai

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// answered is a whole good answer, but for its message.
const answered = `{"choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`

// What goes wrong on the other side arrives as the sentinel that says what to do, and says whether it may have to be
// paid for.
func TestFaults(t *testing.T) {
	const key = "sk-0123456789"
	t.Setenv("R2_TEST_KEY", key)
	status := func(code int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set("Retry-After", header)
			}
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	text := func(body string) http.HandlerFunc { return status(200, "", body) }
	logprobs := router.Request{Messages: user("?"), LogProbs: true}
	plain := router.Request{Messages: user("?")}
	for _, c := range []struct {
		name    string
		serve   http.HandlerFunc
		request router.Request
		is      error
		after   time.Duration
		worked  bool
		says    string
	}{
		{"429", status(429, "3", `{"error":{"message":"slow down"}}`), plain, router.ErrBusy, 3 * time.Second, false, "429: slow down"},
		{"500", status(500, "", "oops"), plain, router.ErrBusy, 0, false, "500: oops"},
		{"503 with a date", status(503, "Fri, 02 Jan 1970 03:05:05 GMT", ""), plain, router.ErrBusy, 0, false, "503"},
		{"504", status(504, "", ""), plain, router.ErrBusy, 0, true, "504"},
		{"400", status(400, "", `{"error":{"message":"bad value","param":"top_k"}}`), plain, router.ErrRefused, 0, false, "top_k: bad value"},
		{"401 repeats the key", status(401, "", `{"error":{"message":"wrong key `+key+`"}}`), plain, router.ErrRefused, 0, false, "wrong key [key]"},
		{"404", status(404, "", "<html>"), plain, router.ErrRefused, 0, false, "404"},
		{"408", status(408, "", ""), plain, router.ErrRefused, 0, false, "408"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, plain, router.ErrRefused, 0, false, "redirects to /elsewhere"},
		{"long error", status(400, "", strings.Repeat("é", 1<<20)), plain, router.ErrRefused, 0, false, "é…"},
		{"hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, plain, router.ErrBusy, 0, true, "no answer in"},
		{"hang in the body", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, answered[:20])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, plain, router.ErrBusy, 0, true, "no answer in"},
		{"reset in the body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, answered[:20])
			w.(http.Flusher).Flush()
			reset(w)
		}, plain, router.ErrBusy, 0, true, ""},
		{"reset at once", func(w http.ResponseWriter, _ *http.Request) { reset(w) }, plain, router.ErrBusy, 0, true, ""},
		{"garbage", text("<html>hello"), plain, router.ErrAnswer, 0, true, "not a chat completion"},
		{"empty", text(""), plain, router.ErrAnswer, 0, true, "not a chat completion"},
		{"cut off", text(answered[:60]), plain, router.ErrAnswer, 0, true, "not a chat completion"},
		{"another object", text(`{"data":[]}`), plain, router.ErrAnswer, 0, true, "no message"},
		{"no choices", text(`{"choices":[]}`), plain, router.ErrAnswer, 0, true, "no message"},
		{"wrong type", text(`{"choices":[{"message":{"content":7}}]}`), plain, router.ErrAnswer, 0, true, "not a chat completion"},
		{"error with 200", text(`{"error":{"message":"no GPU"}}`), plain, router.ErrAnswer, 0, true, "no GPU"},
		{"filtered", text(`{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}`), plain, router.ErrAnswer, 0, true, "content_filter"},
		{"no log-probabilities", text(answered), logprobs, router.ErrAnswer, 0, true, "no log-probabilities"},
		{"huge", func(w http.ResponseWriter, _ *http.Request) {
			block := strings.Repeat(" ", 1<<16)
			for range 1024 {
				if _, err := fmt.Fprint(w, block); err != nil {
					return
				}
			}
		}, plain, router.ErrAnswer, 0, true, "longer than 100000 bytes"},
		{"good", text(answered), plain, nil, 0, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var auth atomic.Value
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				auth.Store(r.Header.Get("Authorization"))
				r.Body.Read(make([]byte, 4096))
				c.serve(w, r)
			}))
			defer s.Close()
			timeout := 5 * time.Second
			if strings.HasPrefix(c.name, "hang") {
				timeout = 50 * time.Millisecond
			}
			cl, err := NewClient(Options{URL: s.URL, Model: "m", KeyEnv: "R2_TEST_KEY", Timeout: timeout, MaxBody: 100_000})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			got, err := cl.Complete(t.Context(), c.request)
			if got := auth.Load(); got != "Bearer "+key {
				t.Errorf("Authorization: %q", got)
			}
			if c.is == nil {
				if err != nil || got.Text != "yes" || got.In != 5 || got.Out != 1 {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			var ce *router.CallError
			if !errors.Is(err, c.is) || !errors.As(err, &ce) {
				t.Fatalf("error %v, want %v", err, c.is)
			}
			if ce.RetryAfter != c.after || ce.Worked != c.worked {
				t.Errorf("retry after %v, worked %v; want %v, %v", ce.RetryAfter, ce.Worked, c.after, c.worked)
			}
			switch msg := err.Error(); {
			case !strings.Contains(msg, c.says):
				t.Errorf("%q does not say %q", msg, c.says)
			case strings.Contains(msg, key):
				t.Errorf("the key is in the error: %q", msg)
			case len(msg) > 1000:
				t.Errorf("an error of %d bytes", len(msg))
			}
		})
	}
}

// reset closes the connection under a response.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// Nobody there: nothing was sent, so nothing can cost.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := client(t, "http://"+l.Addr().String(), "m")
	_, err = c.Complete(t.Context(), router.Request{Messages: user("?")})
	var ce *router.CallError
	if !errors.Is(err, router.ErrBusy) || !errors.As(err, &ce) || ce.Worked || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("%v (%+v)", err, ce)
	}
}

func TestStreamFaults(t *testing.T) {
	chunk := func(text string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
	}
	for _, c := range []struct {
		name, body string
		text       string
		is         error
		says       string
		most       int64
	}{
		{"good", ": comment\n\nevent: message\r\n" + chunk("a") + "data:" + strings.TrimPrefix(chunk("b"), "data: ") + "data: [DONE]\n\n", "ab", nil, "", 0},
		{"ends without its mark", chunk("a"), "a", router.ErrBusy, "unexpected EOF", 0},
		{"garbage", chunk("a") + "data: {\n\n", "a", router.ErrAnswer, "not a chunk", 0},
		{"error", chunk("a") + `data: {"error":{"message":"broke"}}` + "\n\n", "a", router.ErrAnswer, "broke", 0},
		{"long line", "data: " + strings.Repeat("x", 2<<20), "", router.ErrAnswer, "longer than 1 MiB", 0},
		{"endless", strings.Repeat(chunk("a"), 6000), "", router.ErrAnswer, "longer than allowed", 100_000},
		{"ends in a line", chunk("a") + `data: {"choices":[{"ind`, "a", router.ErrBusy, "unexpected EOF", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, c.body) }))
			defer s.Close()
			cl, err := NewClient(Options{URL: s.URL, Model: "m", MaxBody: c.most})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			text, last := "", error(nil)
			for d, err := range cl.Stream(t.Context(), router.Request{Messages: user("?")}) {
				text += d.Text
				last = err
			}
			if !errors.Is(last, c.is) || c.is != nil && !strings.Contains(last.Error(), c.says) {
				t.Errorf("error %v, want %v: %s", last, c.is, c.says)
			}
			if c.name != "endless" && text != c.text {
				t.Errorf("text %q, want %q", text, c.text)
			}
		})
	}
}
