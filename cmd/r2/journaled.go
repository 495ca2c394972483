package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
)

// kept are the rewards of a run's steps: each is in the run's journal before it is used, and one that is
// there already is taken from there.
type kept struct {
	journal *journal.Journal
	call    journal.Call // the next
	failure string       // the step's first
}

// begin says which training step the next rewards belong to.
func (k *kept) begin(step int) { k.call, k.failure = journal.Call{Step: step}, "" }

// settle sets the rewards of groups: those that the journal has for the next call, else those that fresh
// puts into out and commits there.
func (k *kept) settle(ctx context.Context, out []journal.Reward, groups [][]grpo.Rollout, fresh func(journal.Call) error) error {
	call := k.call
	k.call.Number++
	known, err := k.journal.Replay(ctx, call, out)
	if err == nil && !known {
		err = fresh(call)
	}
	if err != nil {
		return err
	}
	for _, r := range out {
		g := &groups[r.Prompt][r.Sample]
		g.Reward, g.Failed = r.Value, r.Failure != ""
		if k.failure == "" {
			k.failure = r.Failure
		}
	}
	return nil
}

// useless drops what was kept of a step that had no reward at all, so that they are asked for again when the
// run goes on, and says why there was none. Another error stays as it is.
func (k *kept) useless(ctx context.Context, err error) error {
	if !errors.Is(err, grpo.ErrNoReward) {
		return err
	}
	return errors.Join(fmt.Errorf("%w; the first: %s", err, k.failure), k.journal.Forget(ctx, k.call.Step))
}

// A journaled scorer keeps the rewards of another one.
type journaled[T any] struct {
	grpo.Scorer[T]
	*kept
}

// Score sets the rewards. What was judged is known by its token ids, the prompt's included.
func (j *journaled[T]) Score(ctx context.Context, ts []T, groups [][]grpo.Rollout) error {
	var out []journal.Reward
	for i, g := range groups {
		for k := range g {
			out = append(out, journal.Reward{Prompt: i, Sample: k, Input: fmt.Append(nil, g[k].Tokens)})
		}
	}
	return j.settle(ctx, out, groups, func(call journal.Call) error {
		begin := time.Now()
		if err := j.Scorer.Score(ctx, ts, groups); err != nil {
			return err
		}
		for i := range out {
			r := &groups[out[i].Prompt][out[i].Sample]
			if r.Failed {
				out[i].Failure = "the router could not carry it out"
			} else {
				out[i].Value = r.Reward
			}
		}
		return j.journal.Record(ctx, call, nil, out, time.Since(begin))
	})
}
