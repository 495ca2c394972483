package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
)

// A RequestError refuses a request: the same one would be refused again. Every other error says what
// happened to one that was taken.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// check reports the first thing in r that has no meaning or can never be served.
func (r *Request) check(o *Options, pages *kvcache.Pool) error {
	switch {
	case len(r.Prompt) == 0:
		return fmt.Errorf("prompt: it is empty; give at least one token")
	case r.Samples < 1:
		return fmt.Errorf("samples %d: want at least 1", r.Samples)
	case r.Limit < 0:
		return fmt.Errorf("limit %d: want at least 0 tokens", r.Limit)
	case r.Limit == 0 && !r.PromptLogProbs:
		return fmt.Errorf("limit 0: there is nothing to do; ask for tokens or for prompt log-probabilities")
	case r.Limit == 0 && r.Samples > 1:
		return fmt.Errorf("limit 0 with %d samples: a prompt is scored once; want 1 sample", r.Samples)
	case r.Limit > o.Context || len(r.Prompt) > o.Context-r.Limit:
		return fmt.Errorf("prompt of %d tokens and limit of %d exceed the context of %d", len(r.Prompt), r.Limit, o.Context)
	case r.Adapter < 0:
		return fmt.Errorf("adapter %d: want 0 (the base model) or the number of one", r.Adapter)
	}
	if err := r.checkIDs(o.Vocab); err != nil {
		return err
	}
	if err := r.checkWishes(); err != nil {
		return err
	}
	if err := r.Sampling.Check(); err != nil {
		return err
	}
	if n := pages.Need(r.stored()); n > pages.Pages() {
		return fmt.Errorf("prompt of %d tokens and limit of %d need %d cache pages of %d tokens, there are %d: shorten one or give the cache more room",
			len(r.Prompt), r.Limit, n, pages.Size(), pages.Pages())
	}
	return nil
}

// checkIDs reports the first id that is none.
func (r *Request) checkIDs(vocab int) error {
	check := func(where string, ids []int32) error {
		for i, id := range ids {
			if id < 0 || int(id) >= vocab {
				return fmt.Errorf("%s %d has id %d, the vocabulary has %d", where, i, id, vocab)
			}
		}
		return nil
	}
	err := check("prompt: token", r.Prompt)
	if err == nil {
		err = check("stop: entry", r.Stop)
	}
	if err == nil {
		err = check("allowed_token_ids: entry", r.Allowed)
	}
	for i, w := range r.BadWords {
		if err == nil && len(w) == 0 {
			err = fmt.Errorf("bad_words: entry %d is empty", i)
		}
		if err == nil {
			err = check(fmt.Sprintf("bad_words: entry %d: token", i), w)
		}
	}
	for _, b := range r.Sampling.Bias {
		if err == nil {
			err = check("logit_bias: entry", []int32{b.ID})
		}
	}
	return err
}

// checkWishes reports the first of the lesser fields that has no meaning.
func (r *Request) checkWishes() error {
	for _, n := range []struct {
		name string
		k    int
	}{{"top", r.Top}, {"raw top", r.RawTop}, {"prompt top", r.PromptTop}} {
		if n.k < 0 || n.k > sample.MaxTop {
			return fmt.Errorf("%s %d: want 0 to %d of the most likely ids", n.name, n.k, sample.MaxTop)
		}
	}
	switch {
	case (r.PromptRanks || r.PromptTop > 0) && !r.PromptLogProbs:
		return errors.New("prompt ranks or most likely ids without prompt log-probabilities: ask for those too")
	case r.MinTokens < 0 || r.MinTokens > r.Limit:
		return fmt.Errorf("min_tokens %d: want 0 to the limit of %d", r.MinTokens, r.Limit)
	case r.MinTokens > 0 && (r.Form != nil || r.Choices != nil):
		return fmt.Errorf("min_tokens %d with choices or a form: those say where a completion ends", r.MinTokens)
	case r.Allowed != nil && len(r.Allowed) == 0:
		return errors.New("allowed_token_ids: the list is empty, so nothing could be drawn")
	}
	return nil
}

// stored is the most tokens whose keys and values a completion of r needs: all but the last.
func (r *Request) stored() int { return len(r.Prompt) + r.Limit - 1 }

// form is what r's completions must keep to, or nil.
func (r *Request) form(vocab int) (sample.Form, error) {
	if r.Form != nil && r.Choices != nil {
		return nil, errors.New("choices and a form: give one")
	}
	if r.Form != nil && r.Limit > 0 {
		return r.Form, nil
	}
	c, err := r.choices(vocab)
	if c == nil {
		return nil, err
	}
	return c, err
}

// choices is r's trie, or nil.
func (r *Request) choices(vocab int) (*sample.Choices, error) {
	if r.Choices == nil || r.Limit == 0 {
		return nil, nil
	}
	c, err := sample.NewChoices(r.Choices, r.Stop, vocab)
	if err == nil && c.Longest() > r.Limit {
		err = fmt.Errorf("choices: the longest has %d tokens, the limit is %d", c.Longest(), r.Limit)
	}
	return c, err
}

// clone keeps r from changes by its caller.
func (r Request) clone() Request {
	r.Prompt, r.Stop = slices.Clone(r.Prompt), slices.Clone(r.Stop)
	r.Sampling.Bias = slices.Clone(r.Sampling.Bias)
	return r
}
