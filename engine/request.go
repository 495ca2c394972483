// Package engine turns many requests for tokens into a sequence of batches: continuous batching with
// chunked prefill over a paged key-value cache, in which equal prefixes are computed once. It knows token
// ids only; the device is behind a Stepper.
package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A Stepper runs one batch and answers each wanted row, in order: with the token its draw gives and that
// token's log-probability, or, for a draw that only scores, with the row's target and the
// log-probability of that. Both slices and what they hold are the engine's again when Step returns,
// and the tokens are the Stepper's again at the next Step.
//
// Within a batch a sequence may read pages that another one fills, so each layer must store the keys and
// values of the whole batch before it attends. Targets is nil when no row scores, else -1 where
// there is nothing to score.
//
// An error fails the requests that are running, and the engine goes on with the others, unless
// errors.Is(err, ErrFatal).
type Stepper interface {
	Step(b *batch.Batch, draws []sample.Draw) ([]Token, error)
}

// A Pipeline is a Stepper that can begin a step while the one before it is under way. A token t below 0 of a batch
// that is begun so is the one that wanted row ^t of the step begun before it draws.
type Pipeline interface {
	Stepper
	// Begin queues a step; it is false, and nothing has been done, for one that it cannot begin, which Step may take. At
	// most two steps are under way. Slices are the engine's again when it returns, but for Pages, which hold until Finish.
	Begin(b *batch.Batch, draws []sample.Draw) bool
	// Finish is what Step would have returned of the first step under way. After an error none is.
	Finish() ([]Token, error)
}

// ErrFatal is what a Stepper wraps in an error after which no step can succeed.
var ErrFatal = errors.New("the device cannot go on")

// ErrStopped is what requests end with when Run has returned or returns.
var ErrStopped = errors.New("the engine has stopped")

// A Token is an id and the natural log-probability it was drawn with: that of the distribution
// after bias, penalties, temperature, mask and truncation. What else there is was asked for.
type Token struct {
	ID      int32
	LogProb float32
	Raw     float32         // log-probability under the unmodified distribution: what scoring the token gives, to the bit
	Rank    int32           // its place under that, from 1; lower ids first among equals
	Top     []sample.Scored // the most likely ids of the distribution it was drawn from, most likely first
	RawTop  []sample.Scored // those of the unmodified one
}

// A Request asks for completions of one prompt. The zero Sampling is greedy.
type Request struct {
	Prompt  []int32
	Samples int // completions of the one prompt, drawn independently; they share its cache pages
	Limit   int // most tokens of a completion; 0, with PromptLogProbs, only scores the prompt
	// Stop are the ids that end a completion, those that end a text among them unless they are to be
	// ignored. The one drawn is the completion's last token.
	Stop      []int32
	MinTokens int // no stop id can be drawn for so many tokens
	Sampling  sample.Params
	Adapter   int // 0 is the base model; the others are those the engine was made with, and what Load gives
	// Choices are token sequences of which each completion must be one. Only the ids that keep a
	// choice possible can be drawn. A completion ends with its choice; where a longer choice goes
	// on, a stop id ends it.
	Choices [][]int32
	// Form gives a completion's form in another way: only ids that it allows can be drawn, and it says
	// where a completion ends. A completion after which it allows nothing ends with an error.
	Form     sample.Form
	Allowed  []int32   // ids that can be drawn at all; nil: all
	BadWords [][]int32 // sequences of ids that a completion cannot have in it: their last id cannot follow the others

	Top    int  // how many of the most likely ids to list beside each token drawn, under its distribution; at most sample.MaxTop
	Raw    bool // give each token's log-probability and rank under the unmodified distribution too
	RawTop int  // and list so many of the most likely ids of that

	// PromptLogProbs asks for the log-probability of each prompt token but the first under the unmodified
	// distribution.
	PromptLogProbs bool
	PromptRanks    bool // give their ranks too
	PromptTop      int  // and list so many of the most likely ids in the place of each

	// Priority says who comes first: requests of a lower number do, and take the place of running ones of a
	// higher number, which go on later with equal results. Equals are served as they come.
	Priority int
	// Salt keeps cached prefixes apart: a request finds those of requests with the same salt only.
	Salt string
}

// An Event is one more token of a completion, or the end of one that has none.
type Event struct {
	Sample int
	Token  Token  // the stop id that ends a completion is one of its tokens; ID is -1 when none was drawn
	Done   Reason // set with a completion's last event

	// Of the request's first event, where asked; entry i is of prompt token i+1.
	Prompt      []float32
	PromptRanks []int32
	PromptTop   [][]sample.Scored

	Start *Start // of the request's first event
}

// A Start says how a request began.
type Start struct {
	Queued time.Duration // from when it was submitted to its first step
	Cached int           // prompt tokens of its first completion that were found in the cache
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
	Adapters      int // how many of the Stepper's own there are, numbered from 1; Load brings in others
	TokensPerStep int // most tokens, so rows too, in a batch; default 512, or MaxSequences where that is more
	MaxSequences  int // most completions under way at once; default 64. Where a batch has no row for each, the first come first
	Chunk         int // most prompt tokens of one sequence in a batch; default all that fit
}

// complete fills in the defaults. Options without meaning are a bug of the caller.
func (o Options) complete() Options {
	if o.Vocab <= 0 || o.Context <= 0 || o.Adapters < 0 || o.TokensPerStep < 0 || o.MaxSequences < 0 || o.Chunk < 0 {
		panic(fmt.Sprintf("engine: %+v", o))
	}
	if o.MaxSequences == 0 {
		o.MaxSequences = 64
	}
	if o.TokensPerStep == 0 {
		o.TokensPerStep = max(512, o.MaxSequences)
	}
	if o.Chunk == 0 {
		o.Chunk = o.TokensPerStep
	}
	return o
}
