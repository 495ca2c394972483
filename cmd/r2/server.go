package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

// serverFlags say how the service meets its clients.
type serverFlags struct {
	Listen     string        `default:"127.0.0.1:8000" placeholder:"HOST:PORT" help:"Where to listen; without keys only on loopback."`
	APIKeys    string        `name:"api-keys" placeholder:"FILE" help:"Keys that let clients in, one a line; left out: those of the variable R2_API_KEYS."`
	Insecure   bool          `help:"Listen beyond loopback without keys."`
	Queue      int           `default:"1024" placeholder:"1024" help:"Answers that may be under way or wait; further ones are refused with 429."`
	Drain      time.Duration `default:"30s" placeholder:"30s" help:"Time that answers under way have to end once the service is told to stop; told twice, it stops at once."`
	LogPrompts bool          `help:"Log what is asked and answered too. Keys are never logged."`
}

// lastTimeout is how long those have to be told that did not end in time.
const lastTimeout = 2 * time.Second

// newServer is a service with the time that clients have for their headers, for all of a request, and between two.
func newServer(h http.Handler, header, body, idle time.Duration) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: header, ReadTimeout: body, IdleTimeout: idle, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.NewJSONHandler(os.Stderr, nil), slog.LevelWarn)}
}

// keysVariable holds keys where no file does.
const keysVariable = "R2_API_KEYS"

// keys are what clients have to show; none: nothing.
func (c *serverFlags) keys() (openai.Keys, error) {
	if c.APIKeys != "" {
		b, err := os.ReadFile(c.APIKeys)
		if err != nil {
			return nil, fmt.Errorf("--api-keys: %w", err)
		}
		keys, err := openai.ReadKeys(string(b))
		if err != nil {
			return nil, fmt.Errorf("--api-keys %s: %w", c.APIKeys, err)
		}
		return keys, nil
	}
	text, there := os.LookupEnv(keysVariable)
	if !there {
		return nil, nil
	}
	keys, err := openai.ReadKeys(text)
	if err != nil {
		return nil, fmt.Errorf("the variable %s: %w; unset it to serve without keys", keysVariable, err)
	}
	return keys, nil
}

// listen takes the port before anything is loaded. Where no key is needed, only loopback will do.
func (c *serverFlags) listen(keys bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, usage("--listen %s: want HOST:PORT", c.Listen)
	}
	if c.Queue < 1 {
		return nil, usage("--queue %d: want at least 1", c.Queue)
	}
	if c.Drain < 0 {
		return nil, usage("--drain %v: want no less than 0", c.Drain)
	}
	if ip := net.ParseIP(host); !keys && !c.Insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage("--listen %s: anybody could use it; give keys (--api-keys FILE, or %s), listen on 127.0.0.1, or say --insecure", c.Listen, keysVariable)
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with --listen", err)
	}
	return l, nil
}

// log writes a line for each request, with what was asked and answered where the record has it: see --log-prompts.
func (c *serveCmd) log() func(openai.Record) {
	if c.Quiet {
		return nil
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	return func(r openai.Record) {
		attrs := []slog.Attr{slog.String("id", r.ID), slog.String("method", r.Method), slog.String("path", r.Path),
			slog.Int("status", r.Status), slog.Float64("seconds", r.Time.Seconds())}
		if r.Model != "" {
			attrs = append(attrs, slog.String("model", r.Model), slog.Bool("stream", r.Stream), slog.Int("answers", r.Answers),
				slog.Int("prompt_tokens", r.In), slog.Int("completion_tokens", r.Out), slog.Float64("first_seconds", r.First.Seconds()))
		}
		if r.User != "" {
			attrs = append(attrs, slog.String("user", r.User))
		}
		if r.Error != "" {
			attrs = append(attrs, slog.String("error", r.Error))
		}
		if r.Asked != nil {
			attrs = append(attrs, slog.Any("asked", r.Asked), slog.Any("answered", r.Answered))
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
	}
}

// listenAndServe answers until ctx is done, then lets what is under way finish, as drain says it has; what takes longer
// than patience is told so.
func listenAndServe(ctx context.Context, l net.Listener, h http.Handler, drain func(context.Context) error, patience time.Duration) error {
	base, end := context.WithCancelCause(context.Background())
	defer end(nil)
	s := newServer(h, 10*time.Second, time.Minute, 2*time.Minute)
	s.BaseContext = func(net.Listener) context.Context { return base }
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	wait := func(long time.Duration, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		return f(ctx)
	}
	if wait(patience, drain) != nil {
		end(openai.ErrDraining)
		wait(lastTimeout, drain) // whether they have been told or not, it is over
	}
	if err := wait(lastTimeout, s.Shutdown); err != nil {
		return errors.Join(fmt.Errorf("answers were cut off, for their clients did not read them: %w", err), s.Close())
	}
	return nil
}

// serveLoopback serves models on a free port of loopback and returns the API's URL.
func serveLoopback(models map[string]router.Completer) (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h := &openai.Handler{Models: openai.Completers(models)}
	go func() { done <- listenAndServe(ctx, l, h, h.Drain, lastTimeout) }()
	return fmt.Sprintf("http://%s/v1", l.Addr()), func() error {
		cancel()
		return <-done
	}, nil
}
