package router

import (
	"context"
	"fmt"
	"strings"
)

// An Integrator makes the final answer from a trace whose steps are all solved.
type Integrator interface {
	Integrate(ctx context.Context, l *Ledger, r *Router, t *Trace) (string, error)
}

// ByModel asks a model of the pool for the final answer.
type ByModel struct {
	Name   string  // "": the model of the last subtask
	Prompt *Prompt // nil: IntegratePrompt
}

// Integrate makes one call.
func (b ByModel) Integrate(ctx context.Context, l *Ledger, r *Router, t *Trace) (string, error) {
	p, name := b.Prompt, b.Name
	if p == nil {
		p = IntegratePrompt
	}
	if name == "" {
		name = t.Steps[len(t.Steps)-1].Model
	}
	m, err := Member(r.Pool, name)
	if err != nil {
		return "", fmt.Errorf("integrate: %w", err)
	}
	ms, err := p.Messages(&View{Question: t.Question, Earlier: t.Steps, Count: len(t.Steps)})
	if err != nil {
		return "", err
	}
	c, err := l.Complete(ctx, StageIntegrate, 0, m, r.Sampling.request(ms))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(c.Text), nil
}

// Concatenate joins the answers with single spaces: the rule of SCAN, whose command's actions are its parts'
// actions in order. It makes no call.
type Concatenate struct{}

// Integrate joins.
func (Concatenate) Integrate(_ context.Context, _ *Ledger, _ *Router, t *Trace) (string, error) {
	var words []string
	for _, s := range t.Steps {
		words = append(words, strings.Fields(s.Answer)...)
	}
	return strings.Join(words, " "), nil
}

// A Reviewer has each answer of a subtask checked by a strong model of the pool, and replaced when wrong.
type Reviewer struct {
	Name   string
	Prompt *Prompt // nil: ReviewPrompt
}

// review returns v.Answer when it is right, else the answer that is.
func (w *Reviewer) review(ctx context.Context, l *Ledger, r *Router, v *View) (string, error) {
	p := w.Prompt
	if p == nil {
		p = ReviewPrompt
	}
	m, err := Member(r.Pool, w.Name)
	if err != nil {
		return "", fmt.Errorf("review: %w", err)
	}
	ms, err := p.Messages(v)
	if err != nil {
		return "", err
	}
	c, err := l.Complete(ctx, StageReview, v.Index+1, m, r.Sampling.request(ms))
	if err != nil {
		return "", err
	}
	reply := strings.TrimSpace(c.Text)
	if reply == "" || strings.EqualFold(strings.TrimRight(reply, "."), "correct") {
		return v.Answer, nil
	}
	return reply, nil
}
