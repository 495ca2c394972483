package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// run takes p's step and, on a Pipeline, those after it that can begin before all is known of the one before, until
// something else is to be done. The error is one after which nothing can go on.
func (e *Engine) run(ctx context.Context, p *plan) error {
	p.begin()
	line, ok := e.step.(Pipeline)
	if !ok || !line.Begin(&p.batch, p.draws) {
		_, err := e.settle(p, e.step.Step)
		return err
	}
	finish := func(*batch.Batch, []sample.Draw) ([]Token, error) { return line.Finish() }
	for p != nil {
		next := e.sched.ahead(p)
		if next != nil && (ctx.Err() != nil || e.called() || !line.Begin(&next.batch, next.draws)) {
			next = nil
		}
		ok, err := e.settle(p, finish)
		if !ok && next != nil {
			line.Finish() // whatever it gives, nobody reads it
		}
		if !ok || err != nil {
			return err
		}
		p = next
	}
	return nil
}

// settle takes the answers to p, which step gives, to the scheduler, and the events to their readers. It is false
// where the step has failed, and then no sequence runs; the error is one after which nothing can go on.
func (e *Engine) settle(p *plan, step func(*batch.Batch, []sample.Draw) ([]Token, error)) (ok bool, err error) {
	tokens, err := step(&p.batch, p.draws)
	if err == nil {
		err = e.sched.commit(p, tokens)
	}
	ok = err == nil
	if err != nil {
		err = fmt.Errorf("engine: step of %d tokens: %w", len(p.batch.Tokens), err)
		e.sched.fail(err)
		if !errors.Is(err, ErrFatal) {
			err = nil
		}
	}
	e.report() // so that who has an event finds its step counted
	e.sched.deliver()
	if e.verify {
		if broken := e.sched.check(); broken != nil {
			return ok, fmt.Errorf("engine: after step %d: %w", e.sched.count.steps, broken)
		}
	}
	return ok, err
}

// called reports whether something is to be done before the next step.
func (e *Engine) called() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.arrived) > 0 || len(e.turns) > 0 || len(e.calls) > 0 || len(e.adapters.closing) > 0
}
