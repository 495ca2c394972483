// Package allocate names a model of the pool for each subtask of a plan: by a language model's constrained
// choice, by thresholds on the confidence of a baseline model, at random, or always the same.
//
// Each way is a Chooser, one decision a subtask, and each is a router.Allocator too.
package allocate

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/router"
)

// A Chooser names one of the models, of which there is at least one, for subtask i, counted from 0. Its calls go through the ledger, which may be nil.
type Chooser interface {
	Choose(ctx context.Context, l *router.Ledger, question string, p router.Plan, i int, models []router.Card) (string, error)
}

func each(ctx context.Context, c Chooser, l *router.Ledger, question string, p router.Plan, models []router.Card) ([]string, error) {
	if len(models) == 0 {
		return nil, fmt.Errorf("allocate: the pool is empty: %w", router.ErrRefused)
	}
	names := make([]string, len(p))
	for i := range p {
		name, err := c.Choose(ctx, l, question, p, i, models)
		if err != nil {
			return nil, fmt.Errorf("subtask %d: %w", i+1, err)
		}
		names[i] = name
	}
	return names, nil
}

// A View is what the prompts of this package may show.
type View struct {
	Question string
	Plan     router.Plan
	Index    int // of the subtask, from 0
	Subtask  string
	Models   []router.Card // in order of rank
}

//go:embed prompts/*.tmpl
var files embed.FS

// Prompts of this package.
var (
	Instruct   = file("instruct")   // for instruct models
	Compact    = file("compact")    // the bare subtask, for models trained on nothing else
	Confidence = file("confidence") // Threshold's: asks a baseline model to solve the subtask
)

func file(name string) *router.Prompt {
	b, err := files.ReadFile("prompts/" + name + ".tmpl")
	if err != nil {
		panic(err)
	}
	return router.MustPrompt(string(b))
}

// A Model asks a model, whose answer is constrained to the names of the pool: one call, and so one decision, a
// subtask. It is safe for concurrent use when that model is.
type Model struct {
	Model       router.Model
	Prompt      *router.Prompt // nil: Instruct. Rendered with a View
	Fallback    Chooser        // decides when the answer is not a name; nil: that is an error
	Temperature *float64       // nil: 0
	Seed        *uint64
	Confident   bool // ask for the probability of the choice, which the trace then holds
}

// Request is the one that asks for the model of subtask i.
func (m *Model) Request(question string, p router.Plan, i int, models []router.Card) (router.Request, error) {
	prompt := m.Prompt
	if prompt == nil {
		prompt = Instruct
	}
	ms, err := prompt.Messages(View{question, p, i, p[i], models})
	if err != nil {
		return router.Request{}, err
	}
	r := router.Request{Messages: ms, Temperature: m.Temperature, Seed: m.Seed, Limit: 16, LogProbs: m.Confident}
	for _, c := range models {
		r.Choices = append(r.Choices, c.Name)
		r.Limit = max(r.Limit, len(c.Name)+1) // a token is at least a byte; one more ends the text
	}
	if r.Temperature == nil {
		r.Temperature = new(0.0)
	}
	return r, nil
}

// Choose asks.
func (m *Model) Choose(ctx context.Context, l *router.Ledger, question string, p router.Plan, i int, models []router.Card) (string, error) {
	r, err := m.Request(question, p, i, models)
	if err != nil {
		return "", err
	}
	c, err := l.Complete(ctx, router.StageAllocate, i+1, m.Model, r)
	name := strings.TrimSpace(c.Text)
	switch {
	case err != nil && !errors.Is(err, router.ErrAnswer):
		return "", err
	case err == nil && slices.Contains(r.Choices, name):
		if m.Confident {
			l.Confide(i+1, math.Exp(sum(c.LogProbs)))
		}
		return name, nil
	case err == nil:
		err = fmt.Errorf("%w: %s chose %.100q, which is not in the pool", router.ErrAnswer, m.Model.Name, name)
	}
	if m.Fallback == nil {
		return "", err
	}
	return m.Fallback.Choose(ctx, l, question, p, i, models)
}

// sum adds the log-probabilities of a choice's tokens.
func sum(logprobs []float32) (s float64) {
	for _, lp := range logprobs {
		s += float64(lp)
	}
	return s
}

// Allocate asks for each subtask in turn.
func (m *Model) Allocate(ctx context.Context, l *router.Ledger, question string, p router.Plan, models []router.Card) ([]string, error) {
	return each(ctx, m, l, question, p, models)
}

// Fixed always names the same model.
type Fixed string

// Choose names it.
func (f Fixed) Choose(_ context.Context, _ *router.Ledger, _ string, _ router.Plan, _ int, models []router.Card) (string, error) {
	if !slices.ContainsFunc(models, func(c router.Card) bool { return c.Name == string(f) }) {
		return "", fmt.Errorf("model %q is not in the pool: %w", string(f), router.ErrRefused)
	}
	return string(f), nil
}

// Allocate names it for each subtask.
func (f Fixed) Allocate(ctx context.Context, l *router.Ledger, question string, p router.Plan, models []router.Card) ([]string, error) {
	return each(ctx, f, l, question, p, models)
}

// Random names each model with the same probability: a function of the seed, the question, and the subtask's
// place and text, so that the order of questions changes nothing.
type Random struct{ Seed uint64 }

// Choose draws.
func (r Random) Choose(_ context.Context, _ *router.Ledger, question string, p router.Plan, i int, models []router.Card) (string, error) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%s", i, question, p[i])
	return models[rand.New(rand.NewPCG(r.Seed, h.Sum64())).IntN(len(models))].Name, nil
}

// Allocate draws for each subtask.
func (r Random) Allocate(ctx context.Context, l *router.Ledger, question string, p router.Plan, models []router.Card) ([]string, error) {
	return each(ctx, r, l, question, p, models)
}
