package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
	"github.com/r2-reasoner/r2/train/reward"
	"github.com/r2-reasoner/r2/train/tasks"
)

// A grpoTask is a prompt, and what its completions are judged by.
type grpoTask struct {
	ids    []int32
	prompt string
	answer string
	fields map[string]json.RawMessage
	place  string // file and line, or the benchmark's
}

// places are where tasks come from.
func places(ts []*grpoTask) (names []string) {
	for _, t := range ts {
		names = append(names, t.place)
	}
	return names
}

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

// tasks are the rows of --data, else the benchmark's training split.
func (s *scorer) tasks(c *grpoCmd) ([]*grpoTask, error) {
	if c.Data == "" {
		all, err := s.bench.Load("train")
		if err != nil {
			return nil, usageError{err}
		}
		return s.questions(c, all)
	}
	if s.bench != nil && !isRows(c.Data) {
		all, err := s.bench.Read(c.Data)
		if err != nil {
			return nil, err
		}
		return s.questions(c, all)
	}
	var out []*grpoTask
	left := sieve{dataFlags: c.dataFlags}
	for r, err := range rows(c.Data) {
		if err != nil {
			return nil, err
		}
		g, err := s.row(r)
		if err == nil && len(g.ids)+c.MaxTokens > s.h.context {
			err = r.errorf("a prompt of %d tokens and %d more %w of %d; --long drop leaves such rows out", len(g.ids), c.MaxTokens, errLong, s.h.context)
		}
		if err == nil {
			out = append(out, g)
		} else if err := left.out(err); err != nil {
			return nil, err
		}
	}
	return out, left.end(c, len(out))
}

// isRows reports whether a file begins with a row that has a prompt, and not in a benchmark's own format.
func isRows(path string) bool {
	for r, err := range rows(path) {
		var in struct{ Prompt, Messages json.RawMessage }
		return err == nil && r.decode(&in, false) == nil && (in.Prompt != nil || in.Messages != nil)
	}
	return false
}

// questions are the tasks of a benchmark, each with what has to stand behind its question.
func (s *scorer) questions(c *grpoCmd, all []tasks.Task) (out []*grpoTask, err error) {
	left := sieve{dataFlags: c.dataFlags}
	for i, t := range all {
		g, err := s.task([]router.Message{{Role: "user", Content: t.Question + s.bench.Ask}}, "")
		if err != nil {
			return nil, err
		}
		g.prompt, g.answer, g.place = t.Question, t.Answer, fmt.Sprintf("%s:%d", c.Task, i+1)
		if len(g.ids)+c.MaxTokens <= s.h.context {
			out = append(out, g)
			continue
		}
		err = fmt.Errorf("%s: a prompt of %d tokens and %d more %w of %d; --long drop leaves such rows out", g.place, len(g.ids), c.MaxTokens, errLong, s.h.context)
		if err := left.out(err); err != nil {
			return nil, err
		}
	}
	return out, left.end(c, len(out))
}

// end says how many rows were left out; there must be some that were not.
func (v *sieve) end(c *grpoCmd, kept int) error {
	v.say(c.outputFlags)
	switch {
	case kept == 0 && v.bad+v.long > 0:
		return fmt.Errorf("%s: all %d rows were left out", c.Data, v.bad+v.long)
	case kept == 0:
		return fmt.Errorf("%s: there are no rows", c.Data)
	}
	return nil
}

func (s *scorer) row(r row) (*grpoTask, error) {
	var in struct {
		Prompt   string           `json:"prompt"`
		Messages []router.Message `json:"messages"`
		Answer   json.RawMessage  `json:"answer"`
	}
	if err := r.decode(&in, false); err != nil {
		return nil, err
	}
	if (in.Prompt == "") == (len(in.Messages) == 0) {
		return nil, r.errorf(`want either "prompt" or "messages"`)
	}
	g, err := s.task(in.Messages, in.Prompt)
	if err != nil {
		return nil, r.errorf("%w", err)
	}
	if len(g.ids) == 0 {
		return nil, r.errorf("the prompt is empty")
	}
	g.prompt, g.place = in.Prompt, r.place
	if json.Unmarshal(in.Answer, &g.answer) != nil {
		g.answer = string(in.Answer)
	}
	if s.bench != nil && len(in.Answer) == 0 {
		return nil, r.errorf(`the checker needs "answer"`)
	}
	return g, r.decode(&g.fields, false)
}

// task renders a prompt.
func (s *scorer) task(ms []router.Message, prompt string) (*grpoTask, error) {
	m, err := s.h.text(1)
	if err != nil {
		return nil, err
	}
	ids, err := m.Render(router.Request{Messages: ms, Prompt: prompt})
	return &grpoTask{ids: ids}, err
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
