package routing

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/decompose"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/train/grpo"
)

// Plans grades the decomposer: a plan is worth 1 when the router, its allocator as it is, reaches the
// right answer by it, less Cost for each US cent that took. Text that is no plan is worth 0 and is not
// repaired; an execution that failed is no reward at all.
type Plans struct {
	Router    *router.Router // allocates, executes and integrates
	Decompose *decompose.Model
	Policy    *local.Model // renders the decomposer's prompts and reads its answers
	Check     func(answer, known string) bool
	Cost      float64 // λ, reward a US cent; 0: cost does not count
	Parallel  int     // executions at once; 0: 8
}

var _ grpo.Scorer[*Question] = (*Plans)(nil)

// Prompt is what the decomposer is asked for a question. Its Plan is not looked at.
func (p *Plans) Prompt(q *Question) []int32 {
	r, err := p.Decompose.Request(q.Text)
	if err != nil {
		return nil // the sampler refuses an empty prompt
	}
	ids, err := p.Policy.Render(r)
	if err != nil {
		return nil
	}
	return ids
}

// Score sets the rewards. Equal plans of a question are executed once.
func (p *Plans) Score(ctx context.Context, qs []*Question, groups [][]grpo.Rollout) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	if p.Parallel > 0 {
		g.SetLimit(p.Parallel)
	}
	for i, q := range qs {
		same := map[string][]*grpo.Rollout{}
		var order []string
		for j := range groups[i] {
			text := said(p.Policy, &groups[i][j])
			if same[text] == nil {
				order = append(order, text)
			}
			same[text] = append(same[text], &groups[i][j])
		}
		for _, text := range order {
			g.Go(func() error {
				value, failed, err := p.value(ctx, q, text)
				for _, r := range same[text] {
					r.Reward, r.Failed = value, failed
				}
				return err
			})
		}
	}
	return g.Wait()
}

// value is what a decomposer's text is worth.
func (p *Plans) value(ctx context.Context, q *Question, text string) (value float32, failed bool, err error) {
	most := p.Decompose.Max
	if n := p.Router.Limits.Subtasks; most == 0 || n > 0 && n < most {
		most = n
	}
	plan, err := decompose.Parse(text, most)
	if err != nil {
		return 0, false, nil
	}
	rt := *p.Router
	rt.Decomposer = given(plan)
	t, err := rt.Answer(ctx, q.Text)
	switch {
	case ctx.Err() != nil:
		return 0, true, ctx.Err()
	case errors.Is(err, router.ErrLimit):
		return 0, false, nil // too dear for one question: a wrong answer
	case err != nil:
		return 0, true, nil
	}
	value = -float32(p.Cost * cents(t.Cost))
	if p.Check(t.Answer, q.Answer) {
		value++
	}
	return value, false, nil
}

// given is a plan that is there already.
type given router.Plan

func (g given) Decompose(context.Context, *router.Ledger, string) (router.Plan, error) {
	return router.Plan(g), nil
}

// said is the text of a rollout's completion, without its end-of-text token.
func said(m *local.Model, r *grpo.Rollout) string {
	ids := r.Tokens[r.Prompt:]
	if n := len(ids); n > 0 && slices.Contains(m.EOS, ids[n-1]) {
		ids = ids[:n-1]
	}
	return m.Tokenizer.Decode(ids, true)
}
