package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
)

type serveCmd struct {
	Model   string   `placeholder:"PATH" help:"A folder in the Hugging Face layout, or a .gguf file."`
	Adapter []string `placeholder:"NAME=DIR" sep:"none" help:"A LoRA adapter on it; may be repeated."`
	Config  string   `placeholder:"r2.yaml" help:"A router and its pool, served as the model r2."`
	Listen  string   `default:"127.0.0.1:8000" placeholder:"HOST:PORT" help:"Where to listen; without keys only on loopback."`
	deviceFlags
	outputFlags
}

func (c *serveCmd) Help() string {
	return `Example:

  r2 serve --model models/smollm2
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \
      -d '{"model":"smollm2","messages":[{"role":"user","content":"Hello"}]}'`
}

// How long a client may take, and the service to stop.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = time.Minute
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 30 * time.Second
)

// Run serves until it is interrupted.
func (c *serveCmd) Run(ctx context.Context) error {
	if c.Model == "" && c.Config == "" {
		return usage("say what to serve: --model or --config")
	}
	l, err := c.listen()
	if err != nil {
		return err
	}
	models := map[string]router.Completer{}
	if c.Model != "" {
		h, err := openHost(c.Model, c.Adapter, c.deviceFlags, hostOptions{})
		if err != nil {
			l.Close()
			return err
		}
		defer h.Close()
		if err := h.policies(models); err != nil {
			l.Close()
			return err
		}
	}
	if c.Config != "" {
		s, err := c.router(models)
		if err != nil {
			l.Close()
			return err
		}
		defer s.Close()
	}
	c.note("serving %v at http://%s/v1", slices.Sorted(maps.Keys(models)), l.Addr())
	return serve(ctx, l, &openai.Handler{Models: models, Ready: ready(models)})
}

// listen takes the port before anything is loaded. There are no keys yet, so only loopback will do.
func (c *serveCmd) listen() (net.Listener, error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, usage("--listen %s: want HOST:PORT", c.Listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage("--listen %s: keys are not there yet, so only a loopback address may be served", c.Listen)
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another with --listen", err)
	}
	return l, nil
}

// policies adds the base and its adapters, each under its name.
func (h *host) policies(models map[string]router.Completer) error {
	for i, name := range append([]string{h.name}, h.adapters...) {
		if models[name] != nil {
			return fmt.Errorf("two models are named %q", name)
		}
		m, err := h.text(i)
		if err != nil {
			return err
		}
		models[name] = m
	}
	return nil
}

// router adds r2 and the models of its configuration.
func (c *serveCmd) router(models map[string]router.Completer) (*stack, error) {
	cfg, err := readConfig(c.Config)
	if err != nil {
		return nil, err
	}
	s, err := openStack(cfg, c.deviceFlags)
	if err != nil {
		return nil, err
	}
	models["r2"] = router.Service{Router: s.router}
	for _, h := range s.hosts {
		if models[h.name] == nil {
			if m, err := h.text(0); err == nil {
				models[h.name] = m
			}
		}
	}
	return s, nil
}

// ready is a real forward pass of each model in this process.
func ready(models map[string]router.Completer) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range slices.Sorted(maps.Keys(models)) {
			if _, ok := models[name].(router.Service); ok {
				continue // its answer would cost money
			}
			q := router.Request{Messages: []router.Message{{Role: "user", Content: "a"}}, Limit: 1, Temperature: new(0.0)}
			_, err := models[name].Complete(ctx, q)
			if errors.Is(err, router.ErrRefused) { // a base without a chat template
				_, err = models[name].Complete(ctx, router.Request{Prompt: "a", Limit: 1, Temperature: new(0.0)})
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
}

// serve answers until ctx is done, then lets what is under way finish.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.Shutdown(drain); err != nil {
		return errors.Join(err, s.Close())
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
	go func() { done <- serve(ctx, l, &openai.Handler{Models: models}) }()
	return fmt.Sprintf("http://%s/v1", l.Addr()), func() error {
		cancel()
		return <-done
	}, nil
}
