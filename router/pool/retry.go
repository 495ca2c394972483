package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// wait waits until another attempt is due after the attempts made. When there is to be none it returns why at once.
func (p *Pool) wait(ctx context.Context, m *member, attempts int, err error) error {
	if ctx.Err() != nil || !errors.Is(err, router.ErrBusy) || errors.Is(err, router.ErrOpen) {
		return err
	}
	opened, refusal := p.open(m)
	if refusal != nil {
		return refusal
	}
	if attempts > m.Retries {
		if attempts == 1 {
			return err
		}
		return fmt.Errorf("%w (after %d attempts)", err, attempts)
	}
	d := p.delay(attempts)
	var ce *router.CallError
	if errors.As(err, &ce) && ce.RetryAfter > d {
		if ce.RetryAfter > longest {
			return fmt.Errorf("%w (it asks for a wait of %v, longer than %v)", err, ce.RetryAfter, longest)
		}
		d = ce.RetryAfter
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-opened:
		return p.refusal(m)
	case <-ctx.Done():
		return fmt.Errorf("%w while waiting to try again: %w", ctx.Err(), err)
	}
}

// delay is the wait after so many attempts, at least 1: it doubles from the backoff to a minute, and half of it is
// drawn, so that callers who failed together do not come back together.
func (p *Pool) delay(attempts int) time.Duration {
	d := p.backoff
	for i := 1; i < attempts && d < longest; i++ {
		d *= 2
	}
	d = min(d, longest)
	p.mu.Lock()
	defer p.mu.Unlock()
	return d/2 + time.Duration(p.jitter.Int64N(int64(d/2)+1))
}
