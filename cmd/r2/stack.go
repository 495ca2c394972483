package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/router/decompose"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/router/pool"
	"github.com/r2-reasoner/r2/router/replay"
)

// A stack is a router with everything it stands on: models that several of its parts use are loaded
// once.
type stack struct {
	config *routerConfig
	be     kernels.Backend
	flags  deviceFlags
	hosts  map[string]*host // by path
	pool   *pool.Pool
	router *router.Router
	record *replay.Journal // nil: nothing is recorded

	base      *host // of the two router modules
	decompose *decompose.Model
	allocate  *allocate.Model // nil when allocation is not by a model
}

// The names of the router's adapters on their base.
const (
	decomposerName = "decomposer"
	allocatorName  = "allocator"
)

// openStack loads what a configuration names and wires it.
func openStack(c *routerConfig, f deviceFlags) (*stack, error) {
	be, err := f.open()
	if err != nil {
		return nil, err
	}
	return openStackOn(be, c, f)
}

func openStackOn(be kernels.Backend, c *routerConfig, f deviceFlags) (s *stack, err error) {
	s = &stack{config: c, be: be, flags: f, hosts: map[string]*host{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if c.Record != "" {
		if s.record, err = replay.Open(c.path(c.Record), cmp.Or(c.Replay, replay.Off)); err != nil {
			return s, err
		}
	}
	if err = s.openModels(); err != nil {
		return s, err
	}
	if err = s.openPool(); err != nil {
		return s, err
	}
	return s, s.openRouter()
}

// openModels loads each model once, with every adapter that some part of the router uses on it.
func (s *stack) openModels() error {
	adapters := map[string][]string{}
	use := func(path, name, dir string) {
		if path == "" {
			return
		}
		path = s.config.path(path)
		if _, ok := adapters[path]; !ok {
			adapters[path] = nil
		}
		if dir != "" {
			adapters[path] = append(adapters[path], name+"="+s.config.path(dir))
		}
	}
	r := &s.config.Router
	use(r.Model, decomposerName, r.Decomposer.Adapter)
	use(r.Model, allocatorName, r.Allocator.Adapter)
	for _, m := range s.config.Pool {
		use(m.Model, m.Name, m.Adapter)
	}
	for path, list := range adapters {
		h, err := openModel(s.be, path, list, s.flags)
		if err != nil {
			return err
		}
		s.hosts[path] = h
		if err := h.start(hostOptions{}); err != nil {
			return err
		}
	}
	s.base = s.hosts[s.config.path(r.Model)]
	return nil
}

// text is a policy of a loaded model: of one of its adapters, or the base when the adapter is not there.
func (s *stack) text(path, adapter string, has bool) (*local.Model, error) {
	h := s.hosts[s.config.path(path)]
	if !has {
		adapter = ""
	}
	n, err := h.adapter(adapter)
	if err != nil {
		return nil, err
	}
	return h.text(n)
}

func (s *stack) openPool() error {
	var members []pool.Member
	for _, m := range s.config.Pool {
		p := pool.Member{Card: router.Card{Name: m.Name, Group: m.Group, Rank: m.Rank, Price: m.Price, Limit: m.Limit},
			Concurrency: m.Concurrency, Timeout: m.Timeout}
		if m.Model != "" {
			t, err := s.text(m.Model, m.Name, m.Adapter != "")
			if err != nil {
				return fmt.Errorf("pool: %s: %w", m.Name, err)
			}
			p.Completer = t
		} else {
			c, err := m.client()
			if err != nil {
				return fmt.Errorf("pool: %s: %w", m.Name, err)
			}
			p.Completer = c
		}
		members = append(members, p)
	}
	var err error
	s.pool, err = pool.New(members, pool.Options{Budget: s.config.Budget.USD, Seed: s.flags.Seed})
	return err
}

// client reaches a member over HTTP.
func (m *memberConfig) client() (router.Completer, error) {
	name := m.Remote
	if name == "" {
		name = m.Name
	}
	return openai.NewClient(openai.Options{URL: m.URL, Model: name, KeyEnv: m.KeyEnv, Timeout: m.Timeout})
}

func (s *stack) openRouter() error {
	c := s.config
	prompts := map[string]map[string]*router.Prompt{
		"decomposer": {"": decompose.Instruct, "instruct": decompose.Instruct, "compact": decompose.Compact},
		"allocator":  {"": allocate.Instruct, "instruct": allocate.Instruct, "compact": allocate.Compact},
		"solve":      {"": router.SolvePrompt, "instruct": router.SolvePrompt, "compact": router.SolveCompact},
	}
	prompt := func(kind, name string) (*router.Prompt, error) {
		if p, ok := prompts[kind][name]; ok {
			return p, nil
		}
		b, err := os.ReadFile(c.path(name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s: prompt %q is neither instruct nor compact nor a file", kind, name)
		}
		if err != nil {
			return nil, err
		}
		p, err := router.ParsePrompt(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return p, nil
	}
	dp, err := prompt("decomposer", c.Router.Decomposer.Prompt)
	if err != nil {
		return err
	}
	ap, err := prompt("allocator", c.Router.Allocator.Prompt)
	if err != nil {
		return err
	}
	sp, err := prompt("solve", c.Router.Solve)
	if err != nil {
		return err
	}
	planner, err := s.text(c.Router.Model, decomposerName, c.Router.Decomposer.Adapter != "")
	if err != nil {
		return err
	}
	s.decompose = &decompose.Model{Model: router.Model{Card: router.Card{Name: decomposerName}, Completer: s.recorded(decomposerName, planner)}, Prompt: dp, Max: c.Limits.Subtasks}
	allocator, err := s.openAllocator(ap)
	if err != nil {
		return err
	}
	s.router = &router.Router{Decomposer: s.decompose, Allocator: allocator, Pool: s.members(), Solve: sp,
		Limits: router.Limits{Subtasks: cmp.Or(c.Limits.Subtasks, router.DefaultLimits.Subtasks),
			Calls: cmp.Or(c.Limits.Calls, router.DefaultLimits.Calls), Cost: c.Limits.USD}}
	switch {
	case c.Integrate.Rule == "concatenate":
		s.router.Integrator = router.Concatenate{}
	case c.Integrate.Model != "":
		s.router.Integrator = router.ByModel{Name: c.Integrate.Model}
	}
	if c.Review.Model != "" {
		s.router.Reviewer = &router.Reviewer{Name: c.Review.Model}
	}
	return s.checkNames()
}

// detour keeps members that fail out of the allocation, unless it is always the same. It is for a service: where models
// are trained or compared, the allocation is the allocator's own, and a member that fails is a failure.
func (s *stack) detour() {
	if _, fixed := s.router.Allocator.(allocate.Fixed); !fixed {
		s.router.Available = s.pool.Available
	}
}

// recorded is a model whose exchanges go into the record, where there is one.
func (s *stack) recorded(name string, c router.Completer) router.Completer {
	if s.record == nil {
		return c
	}
	return s.record.Completer(name, c)
}

// members is the pool, its exchanges recorded where there is a record.
func (s *stack) members() router.Pool {
	if s.record == nil {
		return s.pool
	}
	return s.record.Pool(s.pool)
}

// checkNames reports a name that is not in the pool before the first question does.
func (s *stack) checkNames() error {
	for key, name := range map[string]string{"integrate.model": s.config.Integrate.Model, "review.model": s.config.Review.Model} {
		if name == "" {
			continue
		}
		if _, err := router.Member(s.pool, name); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (s *stack) openAllocator(prompt *router.Prompt) (router.Allocator, error) {
	m := &s.config.Router.Allocator
	switch m.By {
	case "", "model":
	case "threshold":
		return s.threshold()
	case "random":
		return allocate.Random{Seed: s.flags.Seed}, nil
	default:
		if _, err := router.Member(s.pool, m.By); err != nil {
			return nil, fmt.Errorf("allocator.by: want model, threshold, random or a name of the pool: %w", err)
		}
		return allocate.Fixed(m.By), nil
	}
	t, err := s.text(s.config.Router.Model, allocatorName, m.Adapter != "")
	if err != nil {
		return nil, err
	}
	s.allocate = &allocate.Model{Model: router.Model{Card: router.Card{Name: allocatorName}, Completer: s.recorded(allocatorName, t)}, Prompt: prompt, Confident: true}
	switch m.Fallback {
	case "":
	case "threshold":
		th, err := s.threshold()
		if err != nil {
			return nil, err
		}
		s.allocate.Fallback = th
	default:
		return nil, fmt.Errorf("allocator.fallback %q is not known: there is threshold", m.Fallback)
	}
	return s.allocate, nil
}

func (s *stack) threshold() (*allocate.Threshold, error) {
	c := s.config.Router.Confidence
	if c == nil {
		return nil, errors.New("allocation by threshold needs router.confidence: {model, easy, hard}")
	}
	if !(c.Easy >= c.Hard && c.Hard >= 0 && c.Easy <= 1) || !(c.Alpha >= 0 && c.Alpha <= 1) {
		return nil, fmt.Errorf("router.confidence: want 0 ≤ hard ≤ easy ≤ 1 and alpha in 0..1, have easy %v, hard %v, alpha %v", c.Easy, c.Hard, c.Alpha)
	}
	m, err := router.Member(s.members(), c.Model)
	if err != nil {
		return nil, fmt.Errorf("router.confidence.model: %w", err)
	}
	return &allocate.Threshold{Model: m, Alpha: c.Alpha, Easy: c.Easy, Hard: c.Hard}, nil
}

// Close stops every engine.
func (s *stack) Close() error {
	var errs []error
	for _, h := range s.hosts {
		if h.stop != nil {
			errs = append(errs, h.Close())
		}
	}
	if s.record != nil {
		errs = append(errs, s.record.Close())
	}
	return errors.Join(errs...)
}
