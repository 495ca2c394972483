package main

import (
	"context"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
)

// A journaled scorer commits each reward to the run's journal before it is used, and takes those that are
// there already from there.
type journaled[T any] struct {
	grpo.Scorer[T]
	journal *journal.Journal
	call    journal.Call // the next
}

// Score sets the rewards. What was judged is known by its token ids, the prompt's included.
func (j *journaled[T]) Score(ctx context.Context, ts []T, groups [][]grpo.Rollout) error {
	call := j.call
	j.call.Number++
	var out []journal.Reward
	for i, g := range groups {
		for k := range g {
			out = append(out, journal.Reward{Prompt: i, Sample: k, Input: fmt.Append(nil, g[k].Tokens)})
		}
	}
	return settle(ctx, j.journal, call, out, groups, func() error {
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
