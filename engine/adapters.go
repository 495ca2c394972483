package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// An Adapter is one that can be brought in while an engine serves. Install and Remove are called on Run's
// goroutine between two steps, so they have the device to themselves and should not take long: read files
// before.
type Adapter struct {
	// Hash stands for the content: cached prefixes are found again under adapters of equal hash, and
	// only there. One whose weights change in place must not be brought in this way.
	Hash    string
	Install func(slot int) error // makes it the one that batches number slot; after an error nothing has changed
	Remove  func(slot int)       // gives its memory back; no batch will number it again
}

// ErrNoAdapter is what a request for an adapter that was never there, or is unloaded, ends with.
var ErrNoAdapter = errors.New("there is no such adapter")

// An installed is an adapter that is there.
type installed struct {
	Adapter
	number, slot int
}

// An inventory is the adapters of an engine. Numbers are what requests say, and never used twice; slots are
// what batches say.
type inventory struct {
	fixed   int // numbers and slots 1 … fixed are the Stepper's own
	last    int
	open    []installed // requests may name these
	closing []installed // these still have requests, or are about to be removed
}

// Load brings in an adapter and returns the number that requests name it by. Requests under way are not
// disturbed. To replace an adapter load the new one, send requests to its number, and unload the old one: those
// that began with that finish on it.
func (e *Engine) Load(ctx context.Context, a Adapter) (number int, err error) {
	err = e.call(ctx, &e.calls, func() error {
		e.mu.Lock()
		in := installed{a, e.adapters.last + 1, e.adapters.free()}
		e.mu.Unlock()
		if err := a.Install(in.slot); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		number, e.adapters.last = in.number, in.number
		e.adapters.open = append(e.adapters.open, in)
		return nil
	})
	return number, err
}

// Unload refuses the adapter to further requests, and removes it when the last of those that have it is
// done. It does not wait for that.
func (e *Engine) Unload(number int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := &e.adapters
	i := slices.IndexFunc(v.open, func(in installed) bool { return in.number == number })
	switch {
	case number > 0 && number <= v.fixed:
		return fmt.Errorf("engine: adapter %d was there from the start and stays", number)
	case i < 0:
		return fmt.Errorf("engine: adapter %d: %w", number, ErrNoAdapter)
	}
	v.closing = append(v.closing, v.open[i])
	v.open = slices.Delete(v.open, i, i+1)
	e.wake()
	return nil
}

// resolve gives j the slot of the adapter it names, for as long as it runs.
func (v *inventory) resolve(j *job) error {
	j.slot = j.Adapter
	what := fmt.Sprint(j.Adapter)
	if j.Adapter > v.fixed {
		i := slices.IndexFunc(v.open, func(in installed) bool { return in.number == j.Adapter })
		if i < 0 {
			return fmt.Errorf("adapter %d: %w", j.Adapter, ErrNoAdapter)
		}
		j.slot, what = v.open[i].slot, fmt.Sprintf("%q", v.open[i].Hash)
	}
	j.space = fmt.Sprintf("%s %q", what, j.Salt)
	return nil
}

// free is the lowest slot that nobody has.
func (v *inventory) free() int {
	slot := v.fixed + 1
	has := func(in installed) bool { return in.slot == slot }
	for slices.ContainsFunc(v.open, has) || slices.ContainsFunc(v.closing, has) {
		slot++
	}
	return slot
}

// retire removes the adapters that are closing and that no request has any more. It follows accept, so that
// the scheduler knows all requests that name one of those it is given.
func (e *Engine) retire(closing []installed) {
	if len(closing) == 0 {
		return
	}
	e.sched.sweep()
	for _, in := range closing {
		if e.sched.uses(in.slot) {
			continue
		}
		in.Remove(in.slot)
		e.mu.Lock()
		e.adapters.closing = slices.DeleteFunc(e.adapters.closing, func(c installed) bool { return c.slot == in.slot })
		e.mu.Unlock()
	}
}

// uses reports whether a request has the adapter of a slot.
func (s *scheduler) uses(slot int) bool {
	has := func(q *sequence) bool { return q.job.slot == slot }
	return slices.ContainsFunc(s.running, has) || slices.ContainsFunc(s.ready, has) ||
		slices.ContainsFunc(s.jobs, func(j *job) bool { return j.slot == slot })
}
