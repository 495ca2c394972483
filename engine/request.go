// Package engine turns many requests for tokens into a sequence of batches: continuous batching with
// chunked prefill over a paged key-value cache, in which equal prefixes are computed once. It knows token
// ids only; the device is behind a Stepper.
package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A Stepper runs one batch and answers each wanted row, in order: with the token its draw gives and that
// token's log-probability, or, for a draw that only scores, with the row's target and the
// log-probability of that. Both slices and what they hold are the engine's again when Step returns,
// and the tokens are the Stepper's again at the next Step.
//
// Within a batch a sequence may read pages that a sequence before it fills, so each layer must store
// the keys and values of the whole batch before it attends. Targets is nil when no row scores, else -1 where
// there is nothing to score.
//
// An error fails the requests that are running, and the engine goes on with the others, unless
// errors.Is(err, ErrFatal).
type Stepper interface {
	Step(b *batch.Batch, draws []sample.Draw) ([]Token, error)
}

// ErrFatal is what a Stepper wraps in an error after which no step can succeed.
var ErrFatal = errors.New("the device cannot go on")

// ErrStopped is what requests end with when Run has returned or returns.
var ErrStopped = errors.New("the engine has stopped")

// A Token is an id and the natural log-probability it was drawn with: that of the distribution
// after temperature, mask and truncation.
type Token struct {
	ID      int32
	LogProb float32
}

// A Request asks for completions of one prompt. The zero Sampling is greedy.
type Request struct {
	Prompt   []int32
	Samples  int // completions of the one prompt, drawn independently; they share its cache pages
	Limit    int // most tokens of a completion; 0, with PromptLogProbs, only scores the prompt
	Stop     []int32
	Sampling sample.Params
	Adapter  int // 0 is the base model
	// Choices are token sequences of which each completion must be one. Only the ids that keep a
	// choice possible can be drawn. A completion ends with its choice; where a longer choice goes
	// on, a stop id ends it.
	Choices [][]int32
	// Form gives a completion's form in another way: only ids that it allows can be drawn, and it says
	// where a completion ends. A completion after which it allows nothing ends with an error.
	Form sample.Form
	// PromptLogProbs asks for the log-probability of each prompt token but the first under the unmodified
	// distribution.
	PromptLogProbs bool
}

// An Event is one more token of a completion, or the end of one that has none.
type Event struct {
	Sample int
	Token  Token     // the stop id that ends a completion is one of its tokens; ID is -1 when none was drawn
	Done   Reason    // set with a completion's last event
	Prompt []float32 // of the request's first event, where asked: Prompt[i] is of prompt token i+1
}

// A Reason says why a completion ended.
type Reason uint8

const (
	Running Reason = iota // it has not
	Stop                  // a stop id was drawn, or a choice is complete
	Length                // it has as many tokens as the request allows
)

// String is "", "stop" or "length": OpenAI's finish_reason.
func (r Reason) String() string { return [...]string{"", "stop", "length"}[r] }

// Options sizes an engine. Vocab and Context are required.
type Options struct {
	Vocab         int // ids are below it
	Context       int // most tokens of a prompt and its completion
	Adapters      int // largest adapter number there can be
	TokensPerStep int // most tokens, so rows too, in a batch; default 512, at least MaxSequences
	MaxSequences  int // most completions under way at once; default 64
}

// complete fills in the defaults. Options without meaning are a bug of the caller.
func (o Options) complete() Options {
	if o.Vocab <= 0 || o.Context <= 0 || o.Adapters < 0 || o.TokensPerStep < 0 || o.MaxSequences < 0 {
		panic(fmt.Sprintf("engine: %+v", o))
	}
	if o.MaxSequences == 0 {
		o.MaxSequences = 64
	}
	if o.TokensPerStep == 0 {
		o.TokensPerStep = 512
	}
	o.TokensPerStep = max(o.TokensPerStep, o.MaxSequences)
	return o
}

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
	case r.Adapter < 0 || r.Adapter > o.Adapters:
		return fmt.Errorf("adapter %d: there are 0 (the base model) to %d", r.Adapter, o.Adapters)
	}
	for i, id := range r.Prompt {
		if id < 0 || int(id) >= o.Vocab {
			return fmt.Errorf("prompt: token %d has id %d, the vocabulary has %d", i, id, o.Vocab)
		}
	}
	for i, id := range r.Stop {
		if id < 0 || int(id) >= o.Vocab {
			return fmt.Errorf("stop: entry %d has id %d, the vocabulary has %d", i, id, o.Vocab)
		}
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

// stored is the most tokens whose keys and values a completion of r needs: all but the last.
func (r *Request) stored() int { return len(r.Prompt) + r.Limit - 1 }

// form is what r's completions must keep to, or nil.
func (r *Request) form(vocab int) (sample.Form, error) {
	if r.Form != nil && r.Choices != nil {
		return nil, errors.New("choices and a form: give one")
	}
	if r.Form != nil && r.Limit > 0 {
		if !allows(r.Form, 0, make([]uint32, (vocab+31)/32)) {
			return nil, errors.New("form: it allows none of the vocabulary's tokens to begin with")
		}
		return r.Form, nil
	}
	c, err := r.choices(vocab)
	if c == nil {
		return nil, err
	}
	return c, err
}

// allows reports whether f allows anything after state; mask is room for it.
func allows(f sample.Form, state int32, mask []uint32) bool {
	f.Allow(state, mask)
	return slices.ContainsFunc(mask, func(w uint32) bool { return w != 0 })
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
	return r
}
