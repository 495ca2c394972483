package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/serve"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/weights"
)

type serveCmd struct {
	Model       string   `placeholder:"PATH" help:"A folder in the Hugging Face layout, or a .gguf file."`
	Adapter     []string `placeholder:"NAME=DIR" sep:"none" help:"A LoRA adapter on it; may be repeated."`
	AdapterRoot string   `placeholder:"DIR" help:"Adapters below this folder may be loaded and replaced while serving, by /v1/load_lora_adapter."`
	MaxLoraRank int      `default:"64" placeholder:"64" help:"Room for adapters of this rank."`
	Config      string   `placeholder:"r2.yaml" help:"A router and its pool, served as the model r2."`
	serverFlags
	deviceFlags
	outputFlags
}

func (c *serveCmd) Help() string {
	return `Example:

  r2 serve --model models/smollm2
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \
      -d '{"model":"smollm2","messages":[{"role":"user","content":"Hello"}]}'`
}

// Run serves until it is interrupted.
func (c *serveCmd) Run(ctx context.Context) error {
	if c.Model == "" && c.Config == "" {
		return usage("say what to serve: --model or --config")
	}
	if c.LogPrompts && c.Quiet {
		return usage("--log-prompts with -q: there is no log")
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	l, err := c.listen(len(keys) > 0)
	if err != nil {
		return err
	}
	models := &serve.Catalog{}
	hosts, err := c.open(ctx, models)
	for _, h := range hosts.all {
		defer h.Close()
	}
	if err != nil {
		l.Close()
		return err
	}
	var names []string
	for _, card := range models.Cards() {
		names = append(names, card.Name)
	}
	c.note("serving %v at http://%s/v1 and a page at http://%s/", names, l.Addr(), l.Addr())
	h := &openai.Handler{Models: models, Ready: hosts.ready, Most: c.Queue, Texts: c.LogPrompts,
		Metrics: promhttp.HandlerFor(hosts.metrics.Registry(), promhttp.HandlerOpts{})}
	guarded := &openai.Guard{Next: h, Keys: keys, Told: c.log()}
	return hosts.whileWell(ctx, func(ctx context.Context) error {
		return listenAndServe(ctx, l, withPage(guarded, hosts.pool), h.Drain, c.Drain)
	})
}

// whileWell calls serve with a context that ends when an engine does, as when its device is lost: what is asked
// from then on is answered by 503, until serve has returned. Then that is the error.
func (o *opened) whileWell(ctx context.Context, serve func(context.Context) error) error {
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	for _, c := range o.all {
		switch c := c.(type) {
		case *host:
			go c.watch(lose)
		case *stack:
			for _, h := range c.hosts {
				go h.watch(lose)
			}
		}
	}
	err := serve(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, engine.ErrFatal) {
		return cause
	}
	return err
}

// opened is what a server stands on.
type opened struct {
	all   []io.Closer
	hosts map[string]*serve.Host // by the name of the base
	pool  []router.Card          // the router's, weakest first

	metrics *serve.Metrics
}

// open loads what is to be served and lists it.
func (c *serveCmd) open(ctx context.Context, models *serve.Catalog) (o opened, err error) {
	o.hosts, o.metrics = map[string]*serve.Host{}, serve.NewMetrics()
	if c.Model != "" {
		h, err := openHost(c.Model, nil, c.deviceFlags, hostOptions{rank: c.rank()})
		if err != nil {
			return o, err
		}
		o.all = append(o.all, h)
		if err := o.add(models, h, c.Model, c.Seed); err != nil {
			return o, err
		}
		if err := c.adapters(ctx, models, h, o.hosts[h.name]); err != nil {
			return o, err
		}
	}
	if c.Config == "" {
		return o, nil
	}
	cfg, err := readConfig(c.Config)
	if err != nil {
		return o, err
	}
	s, err := openStack(cfg, c.deviceFlags)
	if err != nil {
		return o, err
	}
	s.detour()
	o.all, o.pool = append(o.all, s), s.pool.Models()
	for _, m := range o.pool {
		o.metrics.Breaker(m.Name, func() int { return int(s.pool.Breaker(m.Name)) })
	}
	if err := models.Add(openai.Card{Name: "r2", Root: c.Config}, o.metrics.Router(openai.Text(router.Service{Router: s.router}))); err != nil {
		return o, err
	}
	for path, h := range s.hosts {
		if _, taken := models.Find(h.name); !taken && h.tok != nil {
			if err := o.add(models, h, path, c.Seed); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

// add lists a base under its name.
func (o *opened) add(models *serve.Catalog, h *host, path string, seed uint64) error {
	s, err := h.serving()
	if err != nil {
		return err
	}
	s.Defaults.Seed, s.Metrics = seed, o.metrics
	o.metrics.Watch(h.name, s.Engine)
	o.hosts[h.name] = s
	return models.Add(openai.Card{Name: h.name, Root: path, Context: h.context}, &serve.Model{Host: s})
}

// rank is the largest that adapters of the base may have; 0 where there will be none.
func (c *serveCmd) rank() int {
	if len(c.Adapter) == 0 && c.AdapterRoot == "" {
		return 0
	}
	return c.MaxLoraRank
}

// adapters loads those that are given, and lets more come.
func (c *serveCmd) adapters(ctx context.Context, models *serve.Catalog, h *host, to *serve.Host) error {
	open := func(dir string) (engine.Adapter, error) {
		w, err := weights.OpenAdapter(dir)
		if err != nil {
			return engine.Adapter{}, err
		}
		return h.run.Adapter(w), nil
	}
	models.Source = &serve.Source{Host: to, Parent: h.name, Open: open}
	if c.AdapterRoot != "" {
		root, err := filepath.Abs(c.AdapterRoot)
		if err != nil {
			return err
		}
		if models.Source.Root, err = os.OpenRoot(root); err != nil {
			return fmt.Errorf("--adapter-root: %w", err)
		}
	}
	for _, given := range c.Adapter {
		name, dir, err := splitPair("adapter", given)
		if err != nil {
			return err
		}
		a, err := open(dir)
		if err == nil {
			err = models.AddAdapter(ctx, name, dir, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", given, err)
		}
	}
	return nil
}

// ready is a real forward pass of each model in this process.
func (o *opened) ready(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(o.hosts)) {
		if err := o.hosts[name].Ready(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// serving is a host behind the wire.
func (h *host) serving() (*serve.Host, error) {
	if h.tok == nil {
		return nil, fmt.Errorf("%s has no tokenizer (tokenizer.json), so it takes no text", h.name)
	}
	p := h.sampling()
	if r := h.defaults.RepetitionPenalty; r != nil {
		p.Repetition = *r
	}
	most := 0
	if n := h.defaults.MaxNewTokens; n != nil {
		most = *n
	}
	return &serve.Host{MaxTokens: most, Engine: h.eng, Tokenizer: h.tok, Forms: h.forms, Defaults: p, EOS: h.eos(), Vocab: h.config.Vocab, Context: h.context}, nil
}
