// Package local is a Completer on an engine in this process: messages are rendered and encoded,
// tokens generated, decoded and cut at stop strings. It is the last place with text.
package local

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/tokenizer"
)

// A Model is one policy of an engine: the base, or an adapter on it. It is safe for concurrent use.
type Model struct {
	Engine    *engine.Engine
	Tokenizer *tokenizer.Tokenizer
	Adapter   int
	Defaults  sample.Params // of what a request leaves open
	EOS       []int32       // ids that end a text
	Context   int           // most tokens of a prompt and its completion
	Forms     *Forms        // nil: schemas and regular expressions are refused
}

var _ router.Streamer = (*Model)(nil)

// Complete answers r.
func (m *Model) Complete(ctx context.Context, r router.Request) (router.Completion, error) {
	for d, err := range m.Stream(ctx, r) {
		if err != nil || d.Done != nil {
			return completion(d), err
		}
	}
	return router.Completion{}, errors.New("local: the engine gave no answer")
}

func completion(d router.Delta) router.Completion {
	if d.Done == nil {
		return router.Completion{}
	}
	return *d.Done
}

// Stream answers r as it is written.
func (m *Model) Stream(ctx context.Context, r router.Request) iter.Seq2[router.Delta, error] {
	return func(yield func(router.Delta, error) bool) {
		q, err := m.request(r)
		if err != nil {
			yield(router.Delta{}, err)
			return
		}
		a := &answer{m: m, r: r, text: NewText(m.Tokenizer, Ends{Stops: r.Stop}), out: router.Completion{In: len(q.Prompt), Finish: router.FinishLength}}
		for e, err := range m.Engine.Generate(ctx, q) {
			if err != nil {
				yield(router.Delta{Done: &a.out}, err)
				return
			}
			d, done := a.add(e)
			if (d.Text != "" || len(d.LogProbs) > 0) && !yield(d, nil) {
				return
			}
			if done {
				break
			}
		}
		yield(router.Delta{Done: &a.out}, nil)
	}
}

// Render gives the prompt's token ids of a request: its messages by the chat template, or its prompt.
func (m *Model) Render(r router.Request) ([]int32, error) {
	switch {
	case len(r.Messages) > 0 && r.Prompt != "":
		return nil, &router.ParamError{Param: "prompt", Reason: "give messages or a prompt, not both"}
	case len(r.Messages) == 0:
		return m.Tokenizer.Encode(r.Prompt, true), nil
	}
	var turns []string
	for _, msg := range r.Messages {
		turns = append(turns, msg.Role, msg.Content)
	}
	text, err := m.Tokenizer.Chat(tokenizer.Chat{Messages: tokenizer.Turns(turns...), AddGenerationPrompt: true})
	if err != nil {
		return nil, &router.ParamError{Param: "messages", Reason: err.Error()}
	}
	return m.Tokenizer.Encode(text, false), nil
}

// request is the engine's form of r.
func (m *Model) request(r router.Request) (q engine.Request, err error) {
	q = engine.Request{Samples: 1, Adapter: m.Adapter, Sampling: m.sampling(r)}
	if q.Prompt, err = m.Render(r); err != nil {
		return q, err
	}
	room := m.Context - len(q.Prompt)
	if len(q.Prompt) == 0 {
		return q, &router.ParamError{Param: "prompt", Reason: "it is empty"}
	}
	if room < 1 {
		return q, &router.ParamError{Param: "prompt", Reason: fmt.Sprintf("%d tokens leave no room in the context of %d", len(q.Prompt), m.Context)}
	}
	if q.Limit = room; r.Limit > 0 {
		q.Limit = min(r.Limit, room)
	}
	if !r.IgnoreEOS {
		q.Stop = m.EOS
	}
	if r.Schema != "" || r.Pattern != "" || r.JSONObject {
		if m.Forms == nil {
			return q, &router.ParamError{Param: "structured_outputs", Reason: "this model takes neither schemas nor regular expressions"}
		}
		if q.Form, err = m.Forms.Form(r); err != nil {
			return q, err
		}
	}
	for _, c := range r.Choices {
		q.Choices = append(q.Choices, m.Tokenizer.Encode(c, false))
	}
	return q, nil
}

func (m *Model) sampling(r router.Request) sample.Params {
	p := m.Defaults
	if r.Temperature != nil {
		p.Temperature = float32(*r.Temperature)
	}
	if r.TopP != nil {
		p.TopP = float32(*r.TopP)
	}
	if r.TopK != nil {
		p.TopK = max(0, *r.TopK)
	}
	if r.MinP != nil {
		p.MinP = float32(*r.MinP)
	}
	if r.Seed != nil {
		p.Seed = *r.Seed
	}
	return p
}

// answer is a text being written.
type answer struct {
	m    *Model
	r    router.Request
	text *Text
	out  router.Completion
}

// add takes one event and returns what is new, and whether the answer is over.
func (a *answer) add(e engine.Event) (d router.Delta, done bool) {
	if e.Token.ID >= 0 {
		a.out.Out++
		if ended := e.Done == engine.Stop && slices.Contains(a.m.EOS, e.Token.ID) && !a.r.IgnoreEOS; !ended {
			d.Text = a.text.Push(e.Token.ID)
			if a.r.LogProbs {
				d.LogProbs, d.Pieces = []float32{e.Token.LogProb}, []string{string(a.m.Tokenizer.Bytes(e.Token.ID))}
				a.out.LogProbs, a.out.Pieces = append(a.out.LogProbs, d.LogProbs...), append(a.out.Pieces, d.Pieces...)
			}
		}
	}
	if e.Done != engine.Running {
		d.Text += a.text.Flush()
	}
	if e.Done == engine.Stop || a.text.Stopped() {
		a.out.Finish = router.FinishStop
	}
	a.out.Text = a.text.String()
	return d, e.Done != engine.Running || a.text.Stopped()
}
