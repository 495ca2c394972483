package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
	"github.com/r2-reasoner/r2/train/reward"
	"github.com/r2-reasoner/r2/train/tasks"
)

// A scorer gives rollouts their rewards: by a benchmark's checker, or by a command or server of the
// user's. Each reward is in the run's journal before it is used; one that is there already is taken
// from there.
type scorer struct {
	h      *host
	bench  *tasks.Benchmark // nil: by judge
	judge  judge            // nil: by bench
	source string           // of the judge, for the journal
	kept
}

// A judge computes rewards outside this process.
type judge interface {
	Score(context.Context, []reward.Row) ([]reward.Reward, *reward.Exchange, error)
}

var (
	_ judge = (*reward.Command)(nil)
	_ judge = (*reward.URL)(nil)
)

// rewardTimeout is how long a batch of rewards may take.
const rewardTimeout = 10 * time.Minute

func newScorer(h *host, c *grpoCmd) (*scorer, error) {
	if h.tok == nil {
		return nil, fmt.Errorf("%s has no tokenizer, so completions cannot be judged as text", h.name)
	}
	if c.RewardCmd != "" {
		return &scorer{h: h, judge: &reward.Command{Line: c.RewardCmd, Timeout: rewardTimeout}, source: c.RewardCmd}, nil
	}
	if c.RewardURL != "" {
		u, err := url.Parse(c.RewardURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usage("--reward-url %s: want http://HOST/PATH or https://HOST/PATH", c.RewardURL)
		}
		if u.User != nil {
			return nil, usage("--reward-url: a password in the address would be written into the run's files; put a proxy that adds it before the server")
		}
		return &scorer{h: h, judge: &reward.URL{Address: c.RewardURL, Timeout: rewardTimeout}, source: c.RewardURL}, nil
	}
	b, err := tasks.Open(c.Task)
	if err != nil {
		return nil, usageError{err}
	}
	return &scorer{h: h, bench: &b}, warn(&b)
}

// warn says, however quiet a run is to be, that programs which a model wrote will run here with the network.
func warn(b *tasks.Benchmark) error {
	if b.Alone == nil {
		return nil
	}
	alone, err := b.Alone(context.Background())
	if err == nil && !alone {
		fmt.Fprintf(os.Stderr, "warning: --task %s runs programs that the model writes, and here nothing keeps them off the network (no user namespaces); use a machine or container without one\n", b.Name)
	}
	return err
}

// Prompt is the task's prompt.
func (s *scorer) Prompt(t *grpoTask) []int32 { return t.ids }

// Score sets the rewards.
func (s *scorer) Score(ctx context.Context, ts []*grpoTask, groups [][]grpo.Rollout) error {
	var in []reward.Row
	var out []journal.Reward
	for i, g := range groups {
		for j := range g {
			r := reward.Row{Prompt: ts[i].prompt, Completion: s.text(&g[j]), Fields: ts[i].fields}
			line, err := r.Line()
			if err != nil {
				return err
			}
			in, out = append(in, r), append(out, journal.Reward{Prompt: i, Sample: j, Input: line})
		}
	}
	return s.settle(ctx, out, groups, func(call journal.Call) error { return s.fresh(ctx, call, ts, in, out) })
}

// fresh computes rewards and commits them to the journal.
func (s *scorer) fresh(ctx context.Context, call journal.Call, ts []*grpoTask, in []reward.Row, out []journal.Reward) error {
	begin := time.Now()
	if s.bench != nil {
		for i, r := range in {
			right, err := s.verdict(ctx, r.Completion, ts[out[i].Prompt].answer)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				out[i].Failure = err.Error()
			case right:
				out[i].Value = 1
			}
		}
		return s.journal.Record(ctx, call, nil, out, time.Since(begin))
	}
	rs, x, err := s.judge.Score(ctx, in)
	if err != nil {
		return err
	}
	for i, r := range rs {
		out[i].Value, out[i].Failure = r.Value, r.Failure
	}
	return s.journal.Record(ctx, call, &journal.Exchange{Source: s.source, Request: x.Request, Response: x.Response}, out, time.Since(begin))
}

// verdict is the benchmark's; an error is none.
func (s *scorer) verdict(ctx context.Context, answer, known string) (bool, error) {
	if s.bench.Run != nil {
		return s.bench.Run(ctx, answer, known)
	}
	return s.bench.Check(answer, known), nil
}

// text is what a rollout's completion says, without its end-of-text token.
func (s *scorer) text(r *grpo.Rollout) string {
	ids := r.Tokens[r.Prompt:]
	if n := len(ids); n > 0 && slices.Contains(s.h.eos(), ids[n-1]) {
		ids = ids[:n-1]
	}
	return s.h.tok.Decode(ids, true)
}
