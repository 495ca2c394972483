package router

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// A Service is a Router as a Completer: the conversation is the question, the answer is the final answer, and the
// Completion carries the trace, beside an error too. Of a Request's fields it honours Limit, Temperature and Seed,
// for the calls that solve and integrate, and Limits, and refuses the others where they would change something.
type Service struct{ *Router }

// Complete answers.
func (s Service) Complete(ctx context.Context, r Request) (Completion, error) {
	return s.complete(ctx, r, func(Event) {})
}

// Stream answers, and yields an Event for each thing done on the way.
func (s Service) Stream(ctx context.Context, r Request) iter.Seq2[Delta, error] {
	return func(yield func(Delta, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		more := true
		c, err := s.complete(ctx, r, func(e Event) {
			if more && !yield(Delta{Event: &e}, nil) {
				more = false
				cancel()
			}
		})
		switch {
		case !more:
		case err != nil:
			yield(Delta{Done: &c}, err)
		default:
			yield(Delta{Text: c.Text, Done: &c}, nil)
		}
	}
}

func (s Service) complete(ctx context.Context, r Request, watch func(Event)) (Completion, error) {
	question, err := conversation(r)
	if err != nil {
		return Completion{}, err
	}
	rt := *s.Router
	if r.Limit > 0 {
		rt.Sampling.Limit = r.Limit
	}
	if r.Temperature != nil {
		rt.Sampling.Temperature = r.Temperature
	}
	if r.Seed != nil {
		rt.Sampling.Seed = r.Seed
	}
	rt.Limits = rt.Limits.and(r.Limits)
	t, err := rt.answer(ctx, question, watch)
	return Completion{Text: t.Answer, In: t.In, Out: t.Out, Cost: t.Cost, Finish: FinishStop, Trace: t}, err
}

// conversation is the question a request asks: its prompt or single user message as it is, else the turns by role.
func conversation(r Request) (string, error) {
	for _, p := range []struct {
		name string
		set  bool
	}{
		{"top_p", r.TopP != nil && *r.TopP != 1}, {"top_k", r.TopK != nil && *r.TopK > 0}, {"min_p", r.MinP != nil && *r.MinP != 0},
		{"stop", len(r.Stop) > 0}, {"structured_outputs", len(r.Choices) > 0},
		{"response_format", r.Schema != "" || r.JSONObject}, {"structured_outputs", r.Pattern != ""},
		{"logprobs", r.LogProbs}, {"ignore_eos", r.IgnoreEOS},
	} {
		if p.set {
			return "", &ParamError{p.name, "the router does not take it: it is for one model's answer"}
		}
	}
	q := r.Prompt
	if len(r.Messages) == 1 && r.Messages[0].Role == "user" {
		q = r.Messages[0].Content
	} else {
		for _, m := range r.Messages {
			q += fmt.Sprintf("%s: %s\n", m.Role, m.Content)
		}
	}
	if q = strings.TrimSpace(q); q == "" {
		return "", &ParamError{"messages", "there is no question"}
	}
	return q, nil
}
