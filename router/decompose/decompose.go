// Package decompose has a language model write the plan of a question.
//
// A plan is strict JSON: an array of strings, one a subtask, in order, and nothing around it. An answer that is
// not one is shown to the model again with the error, once; then it is a router.PlanError with the text.
package decompose

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/r2-reasoner/r2/router"
)

// A Model decomposes by asking a model. It is safe for concurrent use when that is.
type Model struct {
	Model       router.Model
	Prompt      *router.Prompt // nil: Instruct. Rendered with a View; a prompt without the part "repair" makes no second attempt
	Max         int            // most subtasks; 0: as the method says, 8
	Limit       int            // most tokens of a plan; 0: 512
	Temperature *float64       // nil: 0
	Seed        *uint64
}

// A View is what a prompt may show.
type View struct {
	Question string
	Max      int    // most subtasks
	Error    string // in the part "repair": what was wrong with the answer before
}

//go:embed prompts/*.tmpl
var files embed.FS

// Prompts of this package.
var (
	Instruct = file("instruct") // for instruct models
	Compact  = file("compact")  // the bare question, for models trained on nothing else; no repair
)

func file(name string) *router.Prompt {
	b, err := files.ReadFile("prompts/" + name + ".tmpl")
	if err != nil {
		panic(err)
	}
	return router.MustPrompt(string(b))
}

const (
	defaultMax   = 8
	defaultLimit = 512
)

func (m *Model) prompt() *router.Prompt {
	if m.Prompt == nil {
		return Instruct
	}
	return m.Prompt
}

func (m *Model) most() int {
	if m.Max == 0 {
		return defaultMax
	}
	return m.Max
}

// Request is the one that asks for a plan of the question.
func (m *Model) Request(question string) (router.Request, error) {
	ms, err := m.prompt().Messages(View{Question: question, Max: m.most()})
	if err != nil {
		return router.Request{}, err
	}
	r := router.Request{Messages: ms, Limit: m.Limit, Temperature: m.Temperature, Seed: m.Seed}
	if r.Limit == 0 {
		r.Limit = defaultLimit
	}
	if r.Temperature == nil {
		r.Temperature = new(0.0)
	}
	return r, nil
}

// Decompose asks, and once more when the answer is not a plan.
func (m *Model) Decompose(ctx context.Context, l *router.Ledger, question string) (router.Plan, error) {
	r, err := m.Request(question)
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		c, err := l.Complete(ctx, router.StagePlan, 0, m.Model, r)
		if err != nil {
			return nil, err
		}
		plan, err := Parse(c.Text, m.most())
		if err == nil {
			return plan, nil
		}
		if c.Finish == router.FinishLength {
			err = fmt.Errorf("cut off at %d tokens (%w)", c.Out, err)
		}
		if attempt > 0 || !m.prompt().Has("repair") {
			return nil, &router.PlanError{Text: c.Text, Err: err}
		}
		again, perr := m.prompt().Part("repair", View{Question: question, Max: m.most(), Error: err.Error()})
		if perr != nil {
			return nil, perr
		}
		r.Messages = append(r.Messages,
			router.Message{Role: "assistant", Content: c.Text}, router.Message{Role: "user", Content: again})
	}
}

// Parse reads a plan of at most most subtasks (0: any number) from a model's answer.
func Parse(text string, most int) (router.Plan, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("it is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	var items []any
	switch err := d.Decode(&items); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty, not a JSON array of strings")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the JSON ends too early")
	case err != nil:
		return nil, fmt.Errorf("it is not a JSON array of strings: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is more text after the JSON array, at byte %d", d.InputOffset())
	}
	if len(items) == 0 {
		return nil, errors.New("there are no subtasks in it")
	}
	if most > 0 && len(items) > most {
		return nil, fmt.Errorf("it has %d subtasks, and at most %d are allowed", len(items), most)
	}
	plan := make(router.Plan, len(items))
	for i, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("item %d of the JSON array is not a string", i+1)
		}
		if plan[i] = strings.TrimSpace(s); plan[i] == "" {
			return nil, fmt.Errorf("subtask %d is empty", i+1)
		}
	}
	return plan, nil
}

// Format writes a plan as Parse reads it: what a decomposer is trained to write.
func Format(p router.Plan) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode([]string(p)); err != nil {
		panic(err) // strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}
