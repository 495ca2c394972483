// Package pool holds the models that subtasks can be given to: it bounds how many calls each has at once and how
// long they take, retries those that may succeed later, leaves a model alone that fails time after time, and keeps the
// process within its budget.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/r2-reasoner/r2/router"
)

// A Member is a model of the pool.
type Member struct {
	router.Card // its Limit is 1024 when it is 0
	Completer   router.Completer
	Concurrency int           // most calls at once; 0: no bound
	Timeout     time.Duration // of one attempt; 0: one minute
	Retries     int           // after the first attempt; 0: three; negative: none
}

const (
	defaultLimit   = 1024
	defaultTimeout = time.Minute
	defaultRetries = 3
	defaultBackoff = 500 * time.Millisecond
	longest        = time.Minute // wait before a retry
)

// Options are what the members share.
type Options struct {
	Budget  *router.Money // of the process, for all members; nil: none
	Backoff time.Duration // before the first retry, doubled for each further one; 0: half a second
	Seed    uint64        // of the jitter of those waits
}

// A Pool is a router.Pool. It is safe for concurrent use.
type Pool struct {
	cards   []router.Card
	members map[string]*member
	backoff time.Duration
	now     func() time.Time

	mu     sync.Mutex // guards what follows and every member's account and breaker
	budget *router.Money
	spent  router.Money
	held   router.Money // the most that attempts under way can cost
	jitter *rand.Rand
}

type member struct {
	Member
	slots   chan struct{} // nil: no bound
	account Account
	breaker breaker
}

// An Account is what one member has done and cost.
type Account struct {
	Model     string       `json:"model"`
	Calls     int          `json:"calls"`    // that ended
	Failed    int          `json:"failed"`   // of those
	Attempts  int          `json:"attempts"` // of all calls
	In        int          `json:"in"`
	Out       int          `json:"out"`
	Cost      router.Money `json:"cost"`      // USD, Uncertain included
	Uncertain router.Money `json:"uncertain"` // the most that attempts may have cost whose usage is not known
}

// New returns a pool of the members, which have different names.
func New(members []Member, o Options) (*Pool, error) {
	p := &Pool{
		members: map[string]*member{},
		backoff: cmp.Or(o.Backoff, defaultBackoff),
		now:     time.Now,
		budget:  o.Budget,
		jitter:  rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)),
	}
	for i, m := range members {
		switch {
		case m.Name == "":
			return nil, fmt.Errorf("pool: member %d has no name", i+1)
		case m.Completer == nil:
			return nil, fmt.Errorf("pool: %s: nothing to send its requests to", m.Name)
		case p.members[m.Name] != nil:
			return nil, fmt.Errorf("pool: two members are named %q", m.Name)
		case m.Price.Input < 0 || m.Price.Output < 0 || m.Limit < 0 || m.Concurrency < 0 || m.Timeout < 0:
			return nil, fmt.Errorf("pool: %s: negative price, limit, concurrency or timeout", m.Name)
		}
		m.Limit = cmp.Or(m.Limit, defaultLimit)
		m.Timeout = cmp.Or(m.Timeout, defaultTimeout)
		m.Retries = cmp.Or(m.Retries, defaultRetries)
		e := &member{Member: m, account: Account{Model: m.Name}, breaker: breaker{opened: make(chan struct{})}}
		if m.Concurrency > 0 {
			e.slots = make(chan struct{}, m.Concurrency)
		}
		p.members[m.Name] = e
		p.cards = append(p.cards, m.Card)
	}
	slices.SortStableFunc(p.cards, func(a, b router.Card) int { return cmp.Compare(a.Rank, b.Rank) })
	return p, nil
}

// Models returns the cards in order of rank.
func (p *Pool) Models() []router.Card { return slices.Clone(p.cards) }

// Spent is what all calls have cost so far, at most.
func (p *Pool) Spent() router.Money {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spent
}

// Accounts returns each member's account, in order of rank.
func (p *Pool) Accounts() []Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	as := make([]Account, len(p.cards))
	for i, c := range p.cards {
		as[i] = p.members[c.Name].account
	}
	return as
}

// Complete sends a request to a member, again while that may help. Its Completion has Cost and Attempts set; so has
// its error, which is a router.CallError unless nothing was sent. An attempt that could pass the budget is not made,
// and none while the member's breaker is open: that is a router.ErrOpen, at once.
func (p *Pool) Complete(ctx context.Context, model string, r router.Request) (router.Completion, error) {
	m := p.members[model]
	if m == nil {
		return router.Completion{}, fmt.Errorf("model %q is not in the pool: %w", model, router.ErrRefused)
	}
	if r.Limit == 0 {
		r.Limit = m.Limit
	}
	var cost router.Money
	attempts := 0
	for {
		c, paid, made, err := p.attempt(ctx, m, r)
		cost = cost.Plus(paid)
		if made {
			attempts++
		}
		if err == nil {
			c.Cost, c.Attempts = cost, attempts
			p.close(m, c, false)
			return c, nil
		}
		if again := p.wait(ctx, m, attempts, err); again != nil {
			c.Cost, c.Attempts = cost, attempts
			open := (*openError)(nil)
			errors.As(again, &open)
			if attempts == 0 {
				if open != nil {
					again = &router.CallError{Err: again, RetryAfter: open.wait}
				}
				return c, again
			}
			p.close(m, c, true)
			ce := router.CallError{}
			if last := (*router.CallError)(nil); errors.As(err, &last) {
				ce = *last
			}
			if open != nil {
				ce.RetryAfter = open.wait
			}
			ce.Err, ce.Cost, ce.Attempts = again, cost, attempts
			return c, &ce
		}
	}
}

// attempt makes one attempt when a slot is free and breaker and budget allow it, and returns what it cost.
func (p *Pool) attempt(ctx context.Context, m *member, r router.Request) (c router.Completion, cost router.Money, made bool, err error) {
	t, err := p.enter(ctx, m)
	if err != nil {
		return c, 0, false, err
	}
	defer p.leave(m)
	tells := untold
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		m.breaker.settle(t, tells, err, p.now())
	}()
	if err := ctx.Err(); err != nil {
		return c, 0, false, err
	}
	worst := m.Worst(r)
	if err := p.hold(worst); err != nil {
		return c, 0, false, err
	}
	one, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	c, err = m.Completer.Complete(one, r)
	uncertain := false
	switch {
	case c.In > 0 || c.Out > 0:
		cost = m.Price.Cost(c.In, c.Out)
	case err == nil || worked(err):
		cost, uncertain = worst, worst > 0
	}
	p.settle(m, worst, cost, uncertain)
	if err != nil && ctx.Err() == nil && one.Err() != nil {
		err = fmt.Errorf("%w: no answer in %v", router.ErrBusy, m.Timeout)
	}
	tells = told(ctx, err)
	return c, cost, true, err
}

// worked reports whether a failed attempt may have been worked on: it was, unless its error says that it was not.
func worked(err error) bool {
	var ce *router.CallError
	if errors.As(err, &ce) {
		return ce.Worked
	}
	var pe *router.ParamError
	return !errors.As(err, &pe)
}

// hold sets aside the most that an attempt can cost.
func (p *Pool) hold(worst router.Money) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget == nil {
		return nil
	}
	if sum := p.spent.Plus(p.held); sum.Plus(worst) > *p.budget {
		return fmt.Errorf("%w: $%v spent or promised, this call could cost $%v, the budget is $%v",
			router.ErrBudget, sum, worst, *p.budget)
	}
	p.held += worst
	return nil
}

// settle replaces what was set aside by what was spent.
func (p *Pool) settle(m *member, worst, cost router.Money, uncertain bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget != nil {
		p.held -= worst
	}
	p.spent = p.spent.Plus(cost)
	m.account.Attempts++
	m.account.Cost = m.account.Cost.Plus(cost)
	if uncertain {
		m.account.Uncertain = m.account.Uncertain.Plus(cost)
	}
}

// close counts a call that ended.
func (p *Pool) close(m *member, c router.Completion, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.account.Calls++
	m.account.In += c.In
	m.account.Out += c.Out
	if failed {
		m.account.Failed++
	}
}
