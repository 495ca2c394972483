package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

// A host is a model opened to be asked: its weights on a device, its adapters, its tokenizer and an
// engine that runs until Close.
type host struct {
	be       kernels.Backend
	name     string
	config   weights.Config
	defaults weights.Generation
	dec      *model.Decoder
	run      *runner.Runner
	eng      *engine.Engine
	tok      *tokenizer.Tokenizer // nil: token ids only
	forms    *local.Forms
	context  int      // most tokens of a sequence
	adapters []string // adapter i+1 is of this name
	loaded   []*model.Adapter

	files   *weights.Model
	stop    context.CancelFunc
	done    chan error
	ended   chan struct{} // closed once the engine has; failure says why, unless it was Close
	failure error
}

// hostOptions size the engine.
type hostOptions struct {
	context   int // most tokens of a sequence; 0: 8192; never more than the model's
	sequences int // under way at once; 0: 64
	tokens    int // of a step; 0: 512
	positions int // of the cache; 0: sequences × context, at most a gibibyte
	rank      int // largest of adapters that come later
}

const (
	pageSize   = 16
	cacheBytes = 1 << 30 // of keys and values, unless one sequence needs more
)

// openHost loads a model and its adapters and starts its engine.
func openHost(path string, adapters []string, f deviceFlags, o hostOptions) (*host, error) {
	be, err := f.open()
	if err != nil {
		return nil, err
	}
	h, err := openModel(be, path, adapters, f)
	if err != nil {
		return nil, err
	}
	if err := h.start(o); err != nil {
		h.files.Close()
		return nil, err
	}
	return h, nil
}

// openModel loads a model and its adapters; start gives it an engine.
func openModel(be kernels.Backend, path string, adapters []string, f deviceFlags) (*host, error) {
	opts, err := f.options()
	if err != nil {
		return nil, err
	}
	files, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	h := &host{be: be, files: files, config: files.Config, defaults: files.Generation, done: make(chan error, 1), ended: make(chan struct{})}
	h.name = strings.TrimSuffix(filepath.Base(filepath.Clean(path)), ".gguf")
	err = weightsFit(be, files, opts)
	if err == nil {
		err = h.load(adapters, f, opts)
	}
	if err != nil {
		files.Close()
		return nil, err
	}
	return h, nil
}

func (h *host) load(adapters []string, f deviceFlags, opts model.Options) (err error) {
	if err := h.be.Attach(); err != nil {
		return err
	}
	defer h.be.Detach()
	if h.tok, err = openTokenizer(h.files); err != nil {
		return err
	}
	if h.tok != nil {
		h.forms = local.NewForms(h.tok, h.config.Vocab, h.eos())
	}
	if h.dec, err = f.load(h.be, h.files, opts); err != nil {
		return err
	}
	for _, a := range adapters {
		name, dir, err := splitPair("adapter", a)
		if err != nil {
			return err
		}
		w, err := weights.OpenAdapter(dir)
		if err != nil {
			return err
		}
		ad, err := h.dec.LoadAdapter(w)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		h.adapters, h.loaded = append(h.adapters, name), append(h.loaded, ad)
	}
	return nil
}

// start makes the engine and runs it.
func (h *host) start(o hostOptions) (err error) {
	if o.context == 0 {
		o.context = 8192
	}
	h.context = min(o.context, h.dec.Context)
	rank := o.rank
	for _, ad := range h.loaded {
		rank = max(rank, ad.Rank)
	}
	if o.sequences == 0 {
		o.sequences = 64
	}
	if o.tokens == 0 {
		o.tokens = 512
	}
	o.tokens = max(o.tokens, o.sequences)
	pages := (h.context + pageSize - 1) / pageSize
	if o.positions == 0 {
		o.positions = min(o.sequences*pages*pageSize, cacheRoom(h.be)/h.dec.CacheBytes())
	}
	total := max(pages, (o.positions+pageSize-1)/pageSize)
	size := model.Size{Tokens: o.tokens, Sequences: o.sequences, Wanted: o.tokens, Slice: min(o.tokens, 64), Pages: pages,
		PageSize: pageSize, Rank: rank, Masks: true}
	if h.run, err = runner.New(h.dec, size, total); err != nil {
		return err
	}
	for i, ad := range h.loaded {
		h.run.SetAdapter(i+1, ad)
	}
	h.eng = engine.New(h.run, kvcache.New(total, pageSize), engine.Options{Vocab: h.config.Vocab, Context: h.context,
		Adapters: len(h.loaded), TokensPerStep: o.tokens, MaxSequences: o.sequences})
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() {
		h.failure = h.eng.Run(ctx)
		close(h.ended)
		h.done <- h.failure
	}()
	return nil
}

// watch waits until the engine ends, and passes on why if it was not to: the device is lost, say.
func (h *host) watch(lose context.CancelCauseFunc) {
	if <-h.ended; h.failure != nil {
		lose(fmt.Errorf("%s: %w", h.name, h.failure))
	}
}

// Close stops the engine and gives the files back.
func (h *host) Close() error {
	h.stop()
	err := <-h.done
	if e := h.files.Close(); err == nil {
		err = e
	}
	return err
}

// adapter is the number of an adapter by its name; "" is the base.
func (h *host) adapter(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	for i, a := range h.adapters {
		if a == name {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("there is no adapter %q; there are %q", name, h.adapters)
}

// only is the adapter to use where one is named or not: the only one there is, else the base.
func (h *host) only(use string) (string, error) {
	switch {
	case use != "" || len(h.adapters) == 0:
		return use, nil
	case len(h.adapters) > 1:
		return "", usage("several adapters are given: say with --use NAME which one")
	}
	return h.adapters[0], nil
}

// eos are the ids that end a text.
func (h *host) eos() []int32 {
	var ids []int32
	for _, id := range h.defaults.EOS {
		ids = append(ids, int32(id))
	}
	return ids
}

// sampling are generation_config.json's defaults, as vLLM takes them: what it does not say is
// temperature 1 without truncation; do_sample false is greedy.
func (h *host) sampling() sample.Params {
	p := sample.Params{Temperature: 1}
	g := h.defaults
	if g.Temperature != nil {
		p.Temperature = float32(*g.Temperature)
	}
	if g.TopP != nil {
		p.TopP = float32(*g.TopP)
	}
	if g.TopK != nil {
		p.TopK = max(0, *g.TopK)
	}
	if g.MinP != nil {
		p.MinP = float32(*g.MinP)
	}
	if g.DoSample != nil && !*g.DoSample {
		p.Temperature = 0
	}
	return p
}

// text is the policy of an adapter number as something text can be sent to.
func (h *host) text(adapter int) (*local.Model, error) {
	if h.tok == nil {
		return nil, fmt.Errorf("%s has no tokenizer (tokenizer.json), so it takes no text", h.name)
	}
	return &local.Model{Engine: h.eng, Tokenizer: h.tok, Adapter: adapter, Defaults: h.sampling(), EOS: h.eos(), Context: h.context, Forms: h.forms}, nil
}

func (h *host) vocabulary() *vocabulary {
	return &vocabulary{text: h.tok, size: h.config.Vocab, eos: h.eos()}
}
