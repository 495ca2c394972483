package allocate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/r2-reasoner/r2/router"
)

// DefaultAlpha is the quantile of token probabilities that is a subtask's confidence.
const DefaultAlpha = 0.4

// A Threshold has a baseline model answer the subtask once, and takes the middle model of the group that its
// confidence p points to: SLM for p ≥ Easy, MLM for p ≥ Hard, else LLM.
type Threshold struct {
	Model      router.Model   // the baseline; it must give log-probabilities
	Prompt     *router.Prompt // nil: Confidence. Rendered with a View
	Alpha      float64        // 0: DefaultAlpha
	Easy, Hard float64        // Easy ≥ Hard
	Limit      int            // most tokens of the baseline's answer; 0: the model's own limit
}

// Measure is the baseline's confidence in subtask i, by one call.
func (t *Threshold) Measure(ctx context.Context, l *router.Ledger, question string, p router.Plan, i int, models []router.Card) (float64, error) {
	prompt, alpha := t.Prompt, t.Alpha
	if prompt == nil {
		prompt = Confidence
	}
	if alpha == 0 {
		alpha = DefaultAlpha
	}
	ms, err := prompt.Messages(View{question, p, i, p[i], models})
	if err != nil {
		return 0, err
	}
	r := router.Request{Messages: ms, Limit: t.Limit, Temperature: new(0.0), LogProbs: true}
	c, err := l.Complete(ctx, router.StageAllocate, i+1, t.Model, r)
	if err != nil {
		return 0, err
	}
	if len(c.LogProbs) == 0 {
		return 0, fmt.Errorf("%w: %s gave no log-probabilities, which confidence is made of", router.ErrAnswer, t.Model.Name)
	}
	return Quantile(c.LogProbs, alpha), nil
}

// Choose measures and takes a model of the group.
func (t *Threshold) Choose(ctx context.Context, l *router.Ledger, question string, p router.Plan, i int, models []router.Card) (string, error) {
	conf, err := t.Measure(ctx, l, question, p, i, models)
	if err != nil {
		return "", err
	}
	l.Confide(i+1, conf)
	return Middle(models, t.Group(conf))
}

// Allocate chooses for each subtask in turn.
func (t *Threshold) Allocate(ctx context.Context, l *router.Ledger, question string, p router.Plan, models []router.Card) ([]string, error) {
	return each(ctx, t, l, question, p, models)
}

// Group is the group for a confidence.
func (t *Threshold) Group(conf float64) router.Group {
	switch {
	case conf >= t.Easy:
		return router.SLM
	case conf >= t.Hard:
		return router.MLM
	}
	return router.LLM
}

// Quantile is the α-quantile of the probabilities of an answer's tokens, given their natural logs: with
// p₍₀₎ ≤ … ≤ p₍ₙ₋₁₎, it is p₍min(⌊αn⌋, n−1)₎ (R2-Reasoner). There must be at least one token.
func Quantile(logprobs []float32, alpha float64) float64 {
	s := slices.Sorted(slices.Values(logprobs))
	n := len(s)
	// α is a decimal number: the product's rounding must not take ⌊0.29·100⌋ to 28
	k := int(math.Floor(alpha*float64(n) + 1e-9))
	return math.Exp(float64(s[max(0, min(k, n-1))]))
}

// Middle is the name of the middle model of a group by rank (of two, the lesser). When the group is empty it is
// that of the next stronger group that is not, else of the next weaker.
func Middle(models []router.Card, g router.Group) (string, error) {
	order := []router.Group{g}
	for h := g + 1; h <= router.LLM; h++ {
		order = append(order, h)
	}
	for h := g - 1; h >= router.SLM; h-- {
		order = append(order, h)
	}
	for _, h := range order {
		var in []router.Card
		for _, c := range models {
			if c.Group == h {
				in = append(in, c)
			}
		}
		if len(in) > 0 {
			slices.SortStableFunc(in, func(a, b router.Card) int { return cmp.Compare(a.Rank, b.Rank) })
			return in[(len(in)-1)/2].Name, nil
		}
	}
	return "", fmt.Errorf("no model of the pool is in a group: %w", router.ErrRefused)
}
