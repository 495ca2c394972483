package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Router answers questions. Its fields are set before the first call and not changed after; the methods are
// safe for concurrent use when its parts are.
type Router struct {
	Decomposer Decomposer
	Allocator  Allocator
	Pool       Pool
	Integrator Integrator // nil: ByModel{}, the model of the last subtask
	Reviewer   *Reviewer  // nil: no procedural review
	Solve      *Prompt    // of a subtask; nil: SolvePrompt
	Sampling   Sampling   // of the calls that solve and integrate
	Limits     Limits     // of one question

	// Available are the models that may be allocated now, where some of the pool are known to fail: see pool.Available.
	// Nil, or none of them: all may be, and one that fails is the question's failure. That is also what becomes of one
	// that fails after the allocation, which is complete before the first subtask runs.
	Available func() []Card
}

// Sampling is how the answers of subtasks are drawn.
type Sampling struct {
	Limit       int      // most tokens of an answer; 0: the pool's own limit of the model
	Temperature *float64 // nil: 0, the likeliest token
	Seed        *uint64
}

func (s Sampling) request(ms []Message) Request {
	r := Request{Messages: ms, Limit: s.Limit, Temperature: s.Temperature, Seed: s.Seed}
	if r.Temperature == nil {
		r.Temperature = new(0.0)
	}
	return r
}

// An Event is something the router has just done.
type Event struct {
	Stage   Stage  `json:"stage"`
	Subtask int    `json:"subtask,omitempty"` // from 1
	Plan    Plan   `json:"plan,omitempty"`    // after StagePlan
	Model   string `json:"model,omitempty"`   // after StageAllocate and StageSolve

	Confidence *float64 `json:"confidence,omitempty"` // after StageAllocate: see Step

	Text string `json:"text,omitempty"` // the answer, after StageSolve, StageReview and StageIntegrate
}

// Answer answers a question. The trace is never nil: when there is an error it holds what was done and paid up
// to there, and ends where things stopped.
func (r *Router) Answer(ctx context.Context, question string) (*Trace, error) {
	return r.answer(ctx, question, func(Event) {})
}

// Execute answers a question by a given plan and allocation: models[i] solves plan[i]. Its trace is like Answer's.
func (r *Router) Execute(ctx context.Context, question string, plan Plan, models []string) (*Trace, error) {
	x := r.begin(question, func(Event) {})
	return x.finish(x.execute(ctx, plan, models))
}

func (r *Router) answer(ctx context.Context, question string, watch func(Event)) (*Trace, error) {
	x := r.begin(question, watch)
	return x.finish(x.run(ctx))
}

// A run is the work on one question.
type run struct {
	*Router
	ledger *Ledger
	trace  *Trace
	watch  func(Event)
	start  time.Time
}

func (r *Router) begin(question string, watch func(Event)) *run {
	return &run{r, NewLedger(r.Limits), &Trace{Question: question, Steps: []Step{}}, watch, time.Now()}
}

func (x *run) finish(err error) (*Trace, error) {
	t := x.trace
	t.account(x.ledger.Calls())
	t.Seconds = time.Since(x.start).Seconds()
	if err != nil {
		t.Error = err.Error()
		return t, fmt.Errorf("router: %w", err)
	}
	t.Stopped = ""
	return t, nil
}

// run decomposes and allocates, then executes.
func (x *run) run(ctx context.Context) error {
	t := x.trace
	t.Stopped = StagePlan
	plan, err := x.Decomposer.Decompose(ctx, x.ledger, t.Question)
	if err != nil {
		return err
	}
	x.watch(Event{Stage: StagePlan, Plan: plan})
	t.set(plan, nil)
	if err := x.check(plan); err != nil {
		return err
	}
	t.Stopped = StageAllocate
	models, err := x.Allocator.Allocate(ctx, x.ledger, t.Question, plan, x.allocatable())
	if err != nil {
		return err
	}
	for i, m := range models {
		x.watch(Event{Stage: StageAllocate, Subtask: i + 1, Model: m, Confidence: x.ledger.confidence(i + 1)})
	}
	return x.execute(ctx, plan, models)
}

// allocatable are the cards to choose from. The trace holds the names of those that are left out.
func (x *run) allocatable() []Card {
	all := x.Pool.Models()
	if x.Available == nil {
		return all
	}
	list := x.Available()
	if len(list) == 0 {
		return all
	}
	for _, c := range all {
		if !slices.ContainsFunc(list, func(o Card) bool { return o.Name == c.Name }) {
			x.trace.LeftOut = append(x.trace.LeftOut, c.Name)
		}
	}
	return list
}

func (x *run) check(plan Plan) error {
	if len(plan) == 0 {
		return &PlanError{Err: errors.New("no subtasks")}
	}
	if most := x.Limits.Subtasks; most > 0 && len(plan) > most {
		return fmt.Errorf("%w: a plan of %d subtasks, at most %d", ErrLimit, len(plan), most)
	}
	return nil
}

// execute solves the subtasks in order and integrates.
func (x *run) execute(ctx context.Context, plan Plan, models []string) error {
	t := x.trace
	t.Stopped = StageSolve
	t.set(plan, models)
	for i := range t.Steps {
		t.Steps[i].Confidence = x.ledger.confidence(i + 1)
	}
	if err := x.check(plan); err != nil {
		return err
	}
	if len(models) != len(plan) {
		return fmt.Errorf("%d models for %d subtasks: %w", len(models), len(plan), ErrRefused)
	}
	members := make([]Model, len(models))
	for i, name := range models {
		m, err := Member(x.Pool, name)
		if err != nil {
			return fmt.Errorf("subtask %d: %w", i+1, err)
		}
		members[i] = m
	}
	for i, m := range members {
		if err := x.solve(ctx, i, m); err != nil {
			return err
		}
	}
	t.Stopped = StageIntegrate
	in := x.Integrator
	if in == nil {
		in = ByModel{}
	}
	answer, err := in.Integrate(ctx, x.ledger, x.Router, t)
	if err != nil {
		return err
	}
	t.Answer = answer
	x.watch(Event{Stage: StageIntegrate, Text: answer})
	return nil
}

// solve answers subtask i and has it reviewed.
func (x *run) solve(ctx context.Context, i int, m Model) error {
	t, s := x.trace, &x.trace.Steps[i]
	t.Stopped = StageSolve
	p := x.Solve
	if p == nil {
		p = SolvePrompt
	}
	v := &View{Question: t.Question, Earlier: t.Steps[:i], Index: i, Count: len(t.Steps), Subtask: s.Subtask}
	ms, err := p.Messages(v)
	if err != nil {
		return err
	}
	c, err := x.ledger.Complete(ctx, StageSolve, i+1, m, x.Sampling.request(ms))
	if err != nil {
		return err
	}
	s.Answer, s.Done = c.Text, true
	x.watch(Event{Stage: StageSolve, Subtask: i + 1, Model: m.Name, Text: s.Answer})
	if x.Reviewer == nil {
		return nil
	}
	t.Stopped = StageReview
	v.Answer = s.Answer
	right, err := x.Reviewer.review(ctx, x.ledger, x.Router, v)
	if err != nil {
		return err
	}
	if right != s.Answer {
		s.Draft, s.Answer = s.Answer, right
		s.Changed = true
	}
	x.watch(Event{Stage: StageReview, Subtask: i + 1, Text: s.Answer})
	return nil
}
