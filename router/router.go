// Package router answers a question by the Route-and-Reason method (arXiv 2506.05901): a decomposer plans
// subtasks, an allocator names a model of the pool for each, the subtasks run in order, and their answers are
// integrated. It holds the seam that text crosses (Request, Completion, Completer) and the trace of what was
// done and paid; models, prompts of the two router modules, prices, retries and sockets live in the packages
// below it.
package router

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// A Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// A Request is a text to be continued: either Messages, which the model's chat template renders, or Prompt,
// which is taken as it is. A nil or zero field leaves the choice to the model's own defaults.
type Request struct {
	Messages []Message `json:"messages,omitempty"`
	Prompt   string    `json:"prompt,omitempty"`

	Limit       int      `json:"limit,omitempty"` // most tokens of the answer
	Temperature *float64 `json:"temperature,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	TopK        *int     `json:"top_k,omitempty"` // 0 or -1: no such cut
	MinP        *float64 `json:"min_p,omitempty"`
	Seed        *uint64  `json:"seed,omitempty"`

	Stop       []string `json:"stop,omitempty"`        // the answer ends before the first of these
	Choices    []string `json:"choices,omitempty"`     // the answer is exactly one of these
	Schema     string   `json:"schema,omitempty"`      // the answer is JSON, valid by this JSON schema
	Pattern    string   `json:"pattern,omitempty"`     // the answer matches this regular expression, the whole of it
	JSONObject bool     `json:"json_object,omitempty"` // the answer is a JSON object

	LogProbs  bool `json:"logprobs,omitempty"`   // the answer carries the log-probability of each token
	IgnoreEOS bool `json:"ignore_eos,omitempty"` // end-of-text tokens do not end the answer

	Limits Limits `json:"limits,omitzero"` // of the router's answer to it, where they are below its own
}

// A Finish says why an answer ended.
type Finish string

const (
	FinishStop   Finish = "stop"   // at an end-of-text token, a stop string, or a complete choice
	FinishLength Finish = "length" // at Request.Limit or the end of the context
)

// A Completion is the answer to a Request.
type Completion struct {
	Text     string    `json:"text"`
	LogProbs []float32 `json:"logprobs,omitempty"` // natural log, of the answer's tokens by position
	Pieces   []string  `json:"pieces,omitempty"`   // the bytes of each of those tokens, where known
	In       int       `json:"in"`                 // tokens read
	Out      int       `json:"out"`                // tokens written
	Finish   Finish    `json:"finish"`

	Cost     Money  `json:"cost,omitempty"`     // set by who knows prices: a Pool or the router
	Attempts int    `json:"attempts,omitempty"` // set by who retries; 0 means one
	Trace    *Trace `json:"-"`                  // set by the router's own Completer
}

// A Completer is anything text can be sent to: an engine in this process, an HTTP endpoint, a Router.
// It is safe for concurrent use. A Completion returned beside an error tells what was used up all the same.
type Completer interface {
	Complete(ctx context.Context, r Request) (Completion, error)
}

// A Streamer is a Completer that can also give its text as it comes. The sequence ends with a Delta whose Done
// is set, or with an error; breaking out of it cancels the work.
type Streamer interface {
	Stream(ctx context.Context, r Request) iter.Seq2[Delta, error]
}

// A Delta is the next part of an answer.
type Delta struct {
	Text     string
	LogProbs []float32
	Pieces   []string
	Event    *Event      // what the router has just done, when the Streamer is one
	Done     *Completion // set on the last: the whole answer
}

// CompleteFunc is a function that is a Completer.
type CompleteFunc func(ctx context.Context, r Request) (Completion, error)

// Complete calls f.
func (f CompleteFunc) Complete(ctx context.Context, r Request) (Completion, error) { return f(ctx, r) }

// Sentinels: what a caller decides by.
var (
	// ErrBusy: the same call may succeed later (overload, failure of the server, of the connection, or a timeout).
	ErrBusy = errors.New("model busy")
	// ErrOpen: the call was not made because the model has failed time after time; the same call may succeed once it
	// has been left alone for a while. It is an ErrBusy.
	ErrOpen = fmt.Errorf("%w: left alone", ErrBusy)
	// ErrRefused: the same call would be refused again.
	ErrRefused = errors.New("request refused")
	// ErrAnswer: the model answered, and the answer cannot be used (garbage, not among the choices).
	ErrAnswer = errors.New("unusable answer")
	// ErrBudget: the call was not made because it could have passed the budget of the process.
	ErrBudget = errors.New("budget reached")
	// ErrLimit: the call was not made because it could have passed a limit of its question.
	ErrLimit = errors.New("limit of the question reached")
)

// A ParamError refuses a field of a Request by its name on the wire. It is an ErrRefused.
type ParamError struct{ Param, Reason string }

func (e *ParamError) Error() string        { return fmt.Sprintf("%s: %s", e.Param, e.Reason) }
func (e *ParamError) Is(target error) bool { return target == ErrRefused }

// A CallError is a call that failed, with what a pool needs to go on: when to try again, and whether the attempt
// may have been worked on, and so have to be paid for.
type CallError struct {
	Err        error         // wraps ErrBusy, ErrRefused or ErrAnswer
	RetryAfter time.Duration // the wait the server asked for; 0 when it did not
	Worked     bool          // the model may have worked on it
	Overloaded bool          // the server is there, and has too much to do
	Cost       Money         // what its attempts cost, at most; set by the pool
	Attempts   int           // set by the pool
}

func (e *CallError) Error() string { return e.Err.Error() }
func (e *CallError) Unwrap() error { return e.Err }

// A Plan is subtasks in order. Each is solved with the answers of those before it in view.
type Plan []string

// A PlanError is a decomposer's answer that is not a plan.
type PlanError struct {
	Text string // what the model wrote, last
	Err  error  // what is wrong with it
}

func (e *PlanError) Error() string { return fmt.Sprintf("not a plan: %v: %.200q", e.Err, e.Text) }
func (e *PlanError) Unwrap() error { return e.Err }

// A Decomposer writes a plan for a question. Its calls go through the ledger, which may be nil.
type Decomposer interface {
	Decompose(ctx context.Context, l *Ledger, question string) (Plan, error)
}

// An Allocator names one of the models for each subtask of a plan, before any subtask runs.
// Its calls go through the ledger, which may be nil.
type Allocator interface {
	Allocate(ctx context.Context, l *Ledger, question string, p Plan, models []Card) ([]string, error)
}

// A Pool is the models there are, in order of rank.
type Pool interface {
	Models() []Card
	Complete(ctx context.Context, model string, r Request) (Completion, error)
}

// A Model is a Completer and what is known of it.
type Model struct {
	Card
	Completer
}

// Member is the model of that name in the pool.
func Member(p Pool, name string) (Model, error) {
	for _, c := range p.Models() {
		if c.Name == name {
			return Model{c, CompleteFunc(func(ctx context.Context, r Request) (Completion, error) {
				return p.Complete(ctx, name, r)
			})}, nil
		}
	}
	return Model{}, fmt.Errorf("model %q is not in the pool: %w", name, ErrRefused)
}
