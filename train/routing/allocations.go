// Package routing trains the router's policies, graded by running the rest of the router.
package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/train/grpo"
)

// A Question is a task with its known answer and the plan that answers it.
type Question struct {
	Text, Answer string
	Plan         router.Plan
}

// A Decision is one subtask of a question, to be given to a model: the allocator's unit of choice.
type Decision struct {
	Question *Question
	Index    int // of the subtask, from 0
}

// Decisions are those of all questions, a question's together and in order.
func Decisions(qs []*Question) []Decision {
	var ds []Decision
	for _, q := range qs {
		for i := range q.Plan {
			ds = append(ds, Decision{q, i})
		}
	}
	return ds
}

// Allocations grades the allocator. Sample j of all decisions of a question is one allocation; it is
// worth 1 when executing it gives the right answer, less Cost for each US cent it took, and each of its
// decisions is worth what the allocation is, or with Stepwise pays for its own part. An output that is no model's name makes it worth 0; an
// execution that failed is no reward at all.
type Allocations struct {
	Router    *router.Router // executes and integrates
	Allocator *allocate.Model
	Policy    *local.Model // renders the allocator's prompts and reads its answers
	Check     func(answer, known string) bool
	Cost      float64 // λ, reward a US cent; 0: cost does not count
	Stepwise  bool    // each decision pays for the calls of its own subtask alone
	Parallel  int     // executions at once; 0: 8
}

var _ grpo.Scorer[Decision] = (*Allocations)(nil)

// Prompt is what the allocator is asked for a decision.
func (a *Allocations) Prompt(d Decision) []int32 {
	r, err := a.Allocator.Request(d.Question.Text, d.Question.Plan, d.Index, a.Router.Pool.Models())
	if err != nil {
		return nil // the sampler refuses an empty prompt
	}
	ids, err := a.Policy.Render(r)
	if err != nil {
		return nil
	}
	return ids
}

// Score sets the rewards. A question's decisions must stand together, all of them, as Decisions lists
// them.
func (a *Allocations) Score(ctx context.Context, ds []Decision, groups [][]grpo.Rollout) error {
	for at := 0; at < len(ds); {
		q := ds[at].Question
		n := len(q.Plan)
		if n == 0 || at+n > len(ds) || ds[at].Index != 0 || ds[at+n-1] != (Decision{q, n - 1}) {
			return fmt.Errorf("routing: decision %d: the decisions of %q do not stand together", at, q.Text)
		}
		at += n
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	if a.Parallel > 0 {
		g.SetLimit(a.Parallel)
	}
	for at := 0; at < len(ds); {
		q := ds[at].Question
		n := len(q.Plan)
		mine := groups[at : at+n]
		for j := range mine[0] {
			g.Go(func() error { return a.score(ctx, q, mine, j) })
		}
		at += n
	}
	return g.Wait()
}

// score executes allocation j of a question.
func (a *Allocations) score(ctx context.Context, q *Question, groups [][]grpo.Rollout, j int) error {
	models := make([]string, len(groups))
	known := true
	for i, g := range groups {
		models[i] = a.Name(&g[j])
		known = known && slices.ContainsFunc(a.Router.Pool.Models(), func(c router.Card) bool { return c.Name == models[i] })
	}
	value, failed := float32(0), false
	var paid []router.Money // by each decision
	if known {
		t, err := a.Router.Execute(ctx, q.Text, q.Plan, models)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, router.ErrLimit):
			// too dear for one question: a wrong answer
		case err != nil:
			failed = true
		default:
			if a.Check(t.Answer, q.Answer) {
				value = 1
			}
			paid = a.paid(t)
		}
	}
	for i, g := range groups {
		g[j].Reward, g[j].Failed = value, failed
		if paid != nil {
			g[j].Reward -= float32(a.Cost * cents(paid[i]))
		}
	}
	return nil
}

// paid is what each decision of an allocation is charged for: all of it, or what its own subtask cost.
func (a *Allocations) paid(t *router.Trace) []router.Money {
	out := make([]router.Money, len(t.Steps))
	for i := range out {
		if !a.Stepwise {
			out[i] = t.Cost
		}
	}
	for _, c := range t.Calls {
		if a.Stepwise && c.Subtask > 0 && c.Subtask <= len(out) {
			out[c.Subtask-1] = out[c.Subtask-1].Plus(c.Cost)
		}
	}
	return out
}

// Name is the model a rollout names.
func (a *Allocations) Name(r *grpo.Rollout) string {
	return strings.TrimSpace(said(a.Policy, r))
}

// cents are for the reward only: accounts are kept in integers.
func cents(m router.Money) float64 { return float64(m) / 1e10 }
