package openai

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"github.com/r2-reasoner/r2/router"
)

// Text is a Completer as a Model: what a router.Request cannot hold it refuses by name. One that is a
// router.Streamer is streamed as its text comes, another one in one piece; one that is a router.Service has a
// trace.
func Text(c router.Completer) Model { return completer{c} }

type completer struct{ router.Completer }

// Answer makes all requests at once.
func (m completer) Answer(ctx context.Context, c *Call) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		if err := m.check(c); err != nil {
			yield(Part{}, err)
			return
		}
		_, service := m.Completer.(router.Service)
		rs := requests(c)
		ended := 0
		for p := range partsOf(ctx, m.Completer, rs) {
			if p.delta.Done != nil && p.err == nil {
				ended++
			}
			if !yield(p.part(c, service), p.err) || p.err != nil {
				return
			}
		}
		switch {
		case ctx.Err() != nil:
			yield(Part{}, context.Cause(ctx))
		case ended < len(rs):
			yield(Part{}, errors.New("the model stopped without an end to its answer"))
		}
	}
}

// check refuses what a router.Request has no place for.
func (m completer) check(c *Call) error {
	refuse := func(param, reason string) error { return &router.ParamError{Param: param, Reason: reason} }
	if _, ok := m.Completer.(router.Service); !ok && (c.Trace || c.Limits != router.Limits{}) {
		return refuse("r2", "only the router has a trace and limits")
	}
	for _, p := range []struct {
		given bool
		param string
	}{
		{c.BestOf != c.N, "best_of"}, {c.Limit != nil && *c.Limit == 0, "max_tokens"}, {c.Least > 0, "min_tokens"},
		{c.Repetition != nil && *c.Repetition != 1, "repetition_penalty"}, {c.Presence != nil && *c.Presence != 0, "presence_penalty"},
		{c.Frequency != nil && *c.Frequency != 0, "frequency_penalty"}, {len(c.Bias) > 0, "logit_bias"},
		{c.Allowed != nil, "allowed_token_ids"}, {len(c.BadWords) > 0, "bad_words"}, {len(c.StopIDs) > 0, "stop_token_ids"},
		{c.IncludeStop, "include_stop_str_in_output"}, {c.KeepSpecial, "skip_special_tokens"},
		{c.LogProbs && c.Top > 0 && c.Chat != nil, "top_logprobs"}, {c.LogProbs && c.Top > 0, "logprobs"}, {c.Raw, "raw_logprobs"},
		{c.PromptLogProbs != nil, "prompt_logprobs"}, {c.Echo, "echo"}, {c.Priority != 0, "priority"}, {c.Salt != "", "cache_salt"},
		{c.Truncate != nil, "truncate_prompt_tokens"}, {c.SpecialTokens != nil, "add_special_tokens"}, {c.ReturnIDs, "return_token_ids"}, {c.SpellIDs, "return_tokens_as_token_ids"},
		{slices.ContainsFunc(c.Prompts, func(p Prompt) bool { return p.IDs != nil }), "prompt"},
	} {
		if p.given {
			return refuse(p.param, "this model takes text alone, and does not know it")
		}
	}
	if c.Chat == nil {
		return nil
	}
	for _, p := range []struct {
		given bool
		param string
	}{
		{len(c.Chat.Tools) > 0, "tools"}, {c.Chat.Continue, "continue_final_message"}, {c.Chat.NoPrompt, "add_generation_prompt"},
		{c.Chat.Variables != nil, "chat_template_kwargs"},
		{slices.ContainsFunc(c.Chat.Messages, func(m Message) bool {
			return !slices.Contains([]string{"system", "user", "assistant"}, m.Role) || m.Name != "" || m.Reasoning != "" || len(m.Calls) > 0
		}), "messages"},
	} {
		if p.given {
			return refuse(p.param, "this model takes messages of system, user and assistant with a text, and nothing besides")
		}
	}
	return nil
}

// requests are those to be made: n for each prompt, with seeds that follow one another.
func requests(c *Call) []router.Request {
	r := router.Request{
		Temperature: c.Temperature, TopP: c.TopP, TopK: c.TopK, MinP: c.MinP, Seed: c.Seed, Stop: c.Stop, IgnoreEOS: c.IgnoreEOS,
		Choices: c.Form.Choices, Schema: c.Form.Schema, Pattern: c.Form.Pattern, JSONObject: c.Form.Object,
		LogProbs: c.LogProbs, Limits: c.Limits,
	}
	if c.Limit != nil {
		r.Limit = *c.Limit
	}
	prompts := c.Prompts
	if c.Chat != nil {
		prompts = []Prompt{{}}
		for _, m := range c.Chat.Messages {
			r.Messages = append(r.Messages, router.Message{Role: m.Role, Content: m.Content})
		}
	}
	var rs []router.Request
	for _, p := range prompts {
		for i := range c.N {
			r.Prompt = p.Text
			if r.Seed = c.Seed; i > 0 {
				seed := uint64(i)
				if c.Seed != nil {
					seed += *c.Seed
				}
				r.Seed = &seed
			}
			rs = append(rs, r)
		}
	}
	return rs
}

// A piece is the next of one of the completions.
type piece struct {
	index int
	delta router.Delta
	err   error
}

func (p piece) part(c *Call, service bool) Part {
	d := p.delta
	out := Part{Index: p.index, Text: d.Text, Event: d.Event}
	if c.LogProbs {
		for i, lp := range d.LogProbs {
			t := Token{ID: -1, LogProb: lp}
			if i < len(d.Pieces) {
				t.Piece = d.Pieces[i]
			}
			out.Tokens = append(out.Tokens, t)
		}
	}
	if d.Done != nil {
		out.In, out.Out = d.Done.In, d.Done.Out // known at the end only
		out.Done = &Done{Finish: string(d.Done.Finish), In: d.Done.In, Out: d.Done.Out, Cost: d.Done.Cost, Trace: d.Done.Trace,
			Priced: d.Done.Cost > 0 || service}
	}
	return out
}

// partsOf makes all requests at once and yields what comes, as it comes. When the consumer leaves, the requests are
// cancelled, and have ended when the sequence has.
func partsOf(ctx context.Context, m router.Completer, rs []router.Request) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ch := make(chan piece)
		var wg sync.WaitGroup
		for i, r := range rs {
			wg.Go(func() {
				for d, err := range deltas(ctx, m, r) {
					select {
					case ch <- piece{i, d, err}:
					case <-ctx.Done():
						return
					}
					if err != nil {
						return
					}
				}
			})
		}
		go func() { wg.Wait(); close(ch) }()
		defer func() {
			cancel()
			for range ch {
			}
		}()
		for p := range ch {
			if !yield(p) {
				return
			}
		}
	}
}

// deltas streams from a model that can, and has it answer in one piece when it cannot.
func deltas(ctx context.Context, m router.Completer, r router.Request) iter.Seq2[router.Delta, error] {
	if s, ok := m.(router.Streamer); ok {
		return s.Stream(ctx, r)
	}
	return func(yield func(router.Delta, error) bool) {
		c, err := m.Complete(ctx, r)
		yield(router.Delta{Text: c.Text, LogProbs: c.LogProbs, Pieces: c.Pieces, Done: &c}, err)
	}
}
