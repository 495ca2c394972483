package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/train/routing"
	"github.com/r2-reasoner/r2/train/tasks"
	"github.com/r2-reasoner/r2/weights"
)

// A moduleRun trains one of the router's two policies by what the rest of the router makes of it.
type moduleRun struct {
	c         *grpoCmd
	s         *stack
	policy    *local.Model
	learner   *train.Learner
	src       *rollout.Source
	check     tasks.Checker
	questions []*routing.Question
	planned   map[*routing.Question]bool // its plan has been asked for
	place     map[*routing.Question]string
	kept
}

// places are where questions come from.
func (m *moduleRun) places(qs []*routing.Question) (names []string) {
	for _, q := range qs {
		names = append(names, m.place[q])
	}
	return names
}

// numbered are questions by their numbers.
func (m *moduleRun) numbered(numbers []int) (qs []*routing.Question) {
	for _, i := range numbers {
		qs = append(qs, m.questions[i])
	}
	return qs
}

// runModule trains.
func (c *grpoCmd) runModule(ctx context.Context, cfg grpo.Config, opt train.Optimizer, schedule train.Schedule) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	run, err := openRun(c.Out, settings)
	if err != nil {
		return err
	}
	defer run.close()
	m, err := c.openModule(run, opt)
	if err != nil {
		return err
	}
	defer m.s.Close()
	if m.journal, err = journal.Open(run.file("journal.db")); err != nil {
		return err
	}
	defer m.journal.Close()
	t := &grpoRun{c: c, run: run, learner: m.learner, schedule: schedule, kept: &m.kept}
	step := m.decomposer(cfg)
	if c.Module == allocatorName {
		step = m.allocator(cfg)
	}
	order := &shuffle{seed: c.Seed, n: len(m.questions)}
	t.take = func(ctx context.Context, n int, lr float32) (grpo.Stats, error) {
		m.src.Begin(n)
		m.begin(n)
		picked, spare := c.draw(order, n)
		batch := m.numbered(picked)
		t.names = m.places(batch)
		return step(ctx, batch, m.numbered(spare), lr)
	}
	return t.train(ctx)
}

// openModule opens the router with the adapter to train in its place.
func (c *grpoCmd) openModule(run *runDir, opt train.Optimizer) (m *moduleRun, err error) {
	m = &moduleRun{c: c, planned: map[*routing.Question]bool{}, place: map[*routing.Question]string{}}
	b, err := tasks.Open(c.Task)
	if err != nil {
		return nil, usageError{err}
	}
	if m.check = b.Check; m.check == nil {
		return nil, usage("--task %s: its answers are programs that have to be run; a router's module is trained on answers of text", c.Task)
	}
	all, err := m.load(b)
	if err != nil {
		return nil, err
	}
	for i, t := range all {
		q := &routing.Question{Text: t.Question, Answer: t.Answer}
		m.questions, m.place[q] = append(m.questions, q), fmt.Sprintf("%s:%d", c.Task, i+1)
	}
	cfg, err := readConfig(c.Config)
	if err != nil {
		return nil, err
	}
	if err := cfg.remember(run.file("pool.db")); err != nil {
		return nil, err
	}
	begin, err := c.beginAt(cfg, run)
	if err != nil {
		return nil, err
	}
	if m.s, err = openStack(cfg, c.deviceFlags); err != nil {
		return nil, err
	}
	if err := m.open(begin, opt); err != nil {
		m.s.Close()
		return nil, err
	}
	return m, nil
}

// load gives the questions to train on.
func (m *moduleRun) load(b tasks.Benchmark) ([]tasks.Task, error) {
	if m.c.Data != "" {
		return b.Read(m.c.Data)
	}
	all, err := b.Load("train")
	if err != nil {
		err = usageError{err}
	}
	return all, err
}

// beginAt makes the configuration's adapter of the module the one training begins from: that of
// --init-adapter, its own, or a fresh one that is written into the run's directory.
func (c *grpoCmd) beginAt(cfg *routerConfig, run *runDir) (path string, err error) {
	mod := &cfg.Router.Decomposer
	if c.Module == allocatorName {
		mod = &cfg.Router.Allocator
	}
	switch {
	case mod.By != "" && mod.By != "model":
		return "", fmt.Errorf("%s: allocator.by is %s: there is no policy to train", c.Config, mod.By)
	case c.InitAdapter != "":
		path, err = filepath.Abs(c.InitAdapter)
	case mod.Adapter != "":
		path = cfg.path(mod.Adapter)
		path, err = filepath.Abs(path)
	default:
		path, err = c.fresh(cfg.path(cfg.Router.Model), run.file("start"))
	}
	mod.Adapter = path
	return path, err
}

// fresh writes the adapter that --lora describes, unless it is there.
func (c *grpoCmd) fresh(base, to string) (string, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	w, err := weights.Open(base)
	if err != nil {
		return "", err
	}
	defer w.Close()
	f := trainFlags{model: base, lora: c.LoRA, deviceFlags: c.deviceFlags}
	a, err := f.adapter(w.Config)
	if err != nil {
		return "", err
	}
	return to, weights.WriteAdapter(to, a)
}

// open makes the policy, its learner over the same tensors, and what draws from it.
func (m *moduleRun) open(begin string, opt train.Optimizer) error {
	h := m.s.base
	n, err := h.adapter(m.c.Module)
	if err != nil {
		return err
	}
	if m.policy, err = h.text(n); err != nil {
		return err
	}
	var ref *model.Adapter
	if m.c.KL != 0 && m.c.KLRef == "start" {
		a, err := weights.OpenAdapter(begin)
		if err != nil {
			return err
		}
		if err := h.be.Attach(); err != nil {
			return err
		}
		ref, err = h.dec.LoadAdapter(a)
		h.be.Detach()
		if err != nil {
			return err
		}
	}
	tokens := min(m.c.MaxTokens, h.context-1) // of a completion; a longer prompt leaves less
	size := trainSize(grpo.Rows(h.context-tokens, tokens, m.c.Samples), m.c.MicroTokens)
	size.Masks = m.c.Module == allocatorName
	size, err = plan(m.c.outputFlags, h.dec, h.loaded[n-1], size)
	if err != nil {
		return err
	}
	if m.learner, err = train.New(h.dec, h.loaded[n-1], ref, size, opt); err != nil {
		return err
	}
	m.src = &rollout.Source{Engine: h.eng, Adapter: n, Limit: m.c.MaxTokens, Temperature: float32(m.c.Temperature),
		Stop: m.policy.EOS, Vocab: h.config.Vocab, Seed: m.c.Seed}
	return nil
}

// A moduleStep takes a training step on questions, with spare ones to draw in place of those that teach nothing.
type moduleStep func(ctx context.Context, picked, spare []*routing.Question, lr float32) (grpo.Stats, error)

// allocator takes a step on the allocations of a step's questions, planned by the decomposer.
func (m *moduleRun) allocator(cfg grpo.Config) moduleStep {
	rt := *m.s.router
	rt.Pool = routing.NewMemo(m.s.members())
	limit := 0
	for _, c := range rt.Pool.Models() {
		ids := m.policy.Tokenizer.Encode(c.Name, false)
		m.src.Choices = append(m.src.Choices, ids)
		limit = max(limit, len(ids)+1) // one more ends the text
	}
	m.src.Limit = limit
	env := &journaled[routing.Decision]{kept: &m.kept, Scorer: &routing.Allocations{Router: &rt, Allocator: m.s.allocate,
		Policy: m.policy, Check: m.check, Cost: m.c.Cost, Stepwise: m.c.Stepwise}}
	t := moduleTrainer[routing.Decision](m, cfg, env)
	return func(ctx context.Context, picked, _ []*routing.Question, lr float32) (grpo.Stats, error) {
		qs, err := m.plan(ctx, picked)
		if err != nil {
			return grpo.Stats{}, err
		}
		return t.Step(ctx, routing.Decisions(qs), nil, lr)
	}
}

// plan has the decomposer plan the questions; one without a usable plan is left out. A question that
// was picked twice stands there once.
func (m *moduleRun) plan(ctx context.Context, picked []*routing.Question) (qs []*routing.Question, err error) {
	var last error
	seen := map[*routing.Question]bool{}
	for _, q := range picked {
		if !m.planned[q] {
			if q.Plan, err = m.s.decompose.Decompose(ctx, nil, q.Text); err != nil {
				last = err
			}
			m.planned[q] = true
		}
		if q.Plan != nil && !seen[q] {
			seen[q] = true
			qs = append(qs, q)
		}
	}
	if len(qs) == 0 {
		return nil, fmt.Errorf("none of the %d questions has a plan: %w", len(picked), last)
	}
	return qs, nil
}

// decomposer takes a step on plans of a step's questions, carried out by the rest of the router.
func (m *moduleRun) decomposer(cfg grpo.Config) moduleStep {
	rt := *m.s.router
	rt.Pool = routing.NewMemo(m.s.members())
	env := &journaled[*routing.Question]{kept: &m.kept, Scorer: &routing.Plans{Router: &rt, Decompose: m.s.decompose,
		Policy: m.policy, Check: m.check, Cost: m.c.Cost}}
	t := moduleTrainer[*routing.Question](m, cfg, env)
	return func(ctx context.Context, picked, spare []*routing.Question, lr float32) (grpo.Stats, error) {
		return t.Step(ctx, picked, spare, lr)
	}
}

func moduleTrainer[T any](m *moduleRun, cfg grpo.Config, env grpo.Scorer[T]) *grpo.Trainer[T] {
	return &grpo.Trainer[T]{Config: cfg, Sampler: m.src, Scorer: env, Policy: m.learner, Device: m.s.base.eng,
		Group: m.c.Samples, TokensPerBatch: m.c.MicroTokens, Updates: m.c.Updates}
}
