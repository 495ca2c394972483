package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Stage is a part of the work on one question; each has its own ledger.
type Stage string

const (
	StagePlan      Stage = "plan"
	StageAllocate  Stage = "allocate"
	StageSolve     Stage = "solve"
	StageIntegrate Stage = "integrate"
	StageReview    Stage = "review"
)

// Stages are all of them, in the order they come.
var Stages = []Stage{StagePlan, StageAllocate, StageSolve, StageIntegrate, StageReview}

// A Call is one call of a model, whether it succeeded or not.
type Call struct {
	Stage    Stage   `json:"stage"`
	Subtask  int     `json:"subtask,omitempty"` // from 1; 0 when it is for the whole question
	Model    string  `json:"model"`
	In       int     `json:"in"`
	Out      int     `json:"out"`
	Cost     Money   `json:"cost"` // USD
	Attempts int     `json:"attempts"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
}

// Limits bound what one question may use. 0 (nil for Cost) means no limit.
type Limits struct {
	Subtasks int    `json:"subtasks,omitempty"` // of a plan
	Calls    int    `json:"calls,omitempty"`    // of all models, the router's own included
	Cost     *Money `json:"usd,omitempty"`      // a call whose first attempt could pass it is not made
}

// and is the lower of each limit.
func (l Limits) and(o Limits) Limits {
	lower := func(a, b int) int {
		if a == 0 || b == 0 {
			return max(a, b)
		}
		return min(a, b)
	}
	l.Subtasks, l.Calls = lower(l.Subtasks, o.Subtasks), lower(l.Calls, o.Calls)
	if l.Cost == nil || o.Cost != nil && *o.Cost < *l.Cost {
		l.Cost = o.Cost
	}
	return l
}

// DefaultLimits are those of the method: a longer chain is over-fragmented.
var DefaultLimits = Limits{Subtasks: 8, Calls: 40}

// A Ledger makes the calls of one question: it records what each used, and refuses one that could pass a limit.
// It is safe for concurrent use. A nil *Ledger makes calls and keeps no record.
type Ledger struct {
	limits Limits

	mu    sync.Mutex
	calls []Call
	open  int   // calls under way
	spent Money // by calls that ended
	held  Money // the most that open calls can cost

	sure map[int]float64 // confidence behind an allocation, by subtask
}

// NewLedger returns an empty ledger for one question.
func NewLedger(limits Limits) *Ledger { return &Ledger{limits: limits} }

// Calls returns the calls that ended so far.
func (l *Ledger) Calls() []Call {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// Confide notes the confidence, in 0 … 1, that the allocation of a subtask, counted from 1, rests on: the
// probability of the allocator's choice, or the baseline's confidence in its own answer.
func (l *Ledger) Confide(subtask int, p float64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sure == nil {
		l.sure = map[int]float64{}
	}
	l.sure[subtask] = p
}

// confidence is what was noted of a subtask; nil when nothing was.
func (l *Ledger) confidence(subtask int) *float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.sure[subtask]; ok {
		return &p
	}
	return nil
}

// Complete calls m for a stage, and for a subtask counted from 1 where there is one.
func (l *Ledger) Complete(ctx context.Context, stage Stage, subtask int, m Model, r Request) (Completion, error) {
	if l == nil {
		return m.Complete(ctx, r)
	}
	held, err := l.begin(m.Worst(r))
	if err != nil {
		return Completion{}, fmt.Errorf("%s: %s: %w", stage, m.Name, err)
	}
	start := time.Now()
	c, err := m.Complete(ctx, r)
	call := Call{
		Stage: stage, Subtask: subtask, Model: m.Name, In: c.In, Out: c.Out,
		Cost: c.Cost, Attempts: max(c.Attempts, 1), Seconds: time.Since(start).Seconds(),
	}
	if c.Cost == 0 {
		call.Cost = m.Price.Cost(c.In, c.Out)
	}
	if err != nil {
		call.Error = err.Error()
		var ce *CallError
		if errors.As(err, &ce) {
			call.Cost, call.Attempts = max(call.Cost, ce.Cost), max(call.Attempts, ce.Attempts)
		}
		if c.Attempts == 0 && (errors.Is(err, ErrOpen) || errors.Is(err, ErrBudget)) {
			call.Attempts = 0
		}
		err = fmt.Errorf("%s: %s: %w", stage, m.Name, err)
	}
	l.end(held, call)
	c.Cost = call.Cost
	return c, err
}

// begin admits a call, and returns what it holds back for it.
func (l *Ledger) begin(worst Money) (held Money, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.calls) + l.open; l.limits.Calls > 0 && n >= l.limits.Calls {
		return 0, fmt.Errorf("%w: %d calls made of %d", ErrLimit, n, l.limits.Calls)
	}
	if most := l.limits.Cost; most != nil {
		if sum := l.spent.Plus(l.held); sum.Plus(worst) > *most {
			return 0, fmt.Errorf("%w: $%v spent or promised, this call could cost $%v, the limit is $%v",
				ErrLimit, sum, worst, *most)
		}
		held = worst
	}
	l.open++
	l.held += held
	return held, nil
}

func (l *Ledger) end(held Money, c Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.held -= held
	l.spent = l.spent.Plus(c.Cost)
	l.calls = append(l.calls, c)
}
