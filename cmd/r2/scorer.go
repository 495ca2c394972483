package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/reward"
	"github.com/r2-reasoner/r2/train/tasks"
)

// A grpoTask is a prompt, and what its completions are judged by.
type grpoTask struct {
	ids    []int32
	prompt string
	answer string
	fields map[string]json.RawMessage
}

// A scorer gives rollouts their rewards: by a benchmark's checker, or by a command of the user's.
type scorer struct {
	h       *host
	check   tasks.Checker   // nil: by command
	command *reward.Command // nil: by check
}

// rewardTimeout is how long a batch of rewards may take.
const rewardTimeout = 10 * time.Minute

func newScorer(h *host, c *grpoCmd) (*scorer, error) {
	if h.tok == nil {
		return nil, fmt.Errorf("%s has no tokenizer, so completions cannot be judged as text", h.name)
	}
	if c.RewardCmd != "" {
		return &scorer{h: h, command: &reward.Command{Line: c.RewardCmd, Timeout: rewardTimeout}}, nil
	}
	b, err := tasks.Open(c.Task)
	if err != nil {
		return nil, usageError{err}
	}
	return &scorer{h: h, check: b.Check}, nil
}

// tasks are the rows of --data, else the benchmark's training split.
func (s *scorer) tasks(c *grpoCmd) ([]*grpoTask, error) {
	var out []*grpoTask
	if c.Data == "" {
		b, err := tasks.Open(c.Task)
		if err != nil {
			return nil, err
		}
		all, err := b.Load("train")
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			g, err := s.task([]router.Message{{Role: "user", Content: t.Question}}, "")
			if err != nil {
				return nil, err
			}
			g.prompt, g.answer = t.Question, t.Answer
			out = append(out, g)
		}
		return out, nil
	}
	for r, err := range rows(c.Data) {
		if err != nil {
			return nil, err
		}
		g, err := s.row(r)
		if err != nil {
			return nil, err
		}
		if len(g.ids)+c.MaxTokens > s.h.context {
			return nil, r.errorf("a prompt of %d tokens and %d more do not fit into the context of %d", len(g.ids), c.MaxTokens, s.h.context)
		}
		out = append(out, g)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: there are no rows", c.Data)
	}
	return out, nil
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
	g.prompt = in.Prompt
	if json.Unmarshal(in.Answer, &g.answer) != nil {
		g.answer = string(in.Answer)
	}
	if s.check != nil && len(in.Answer) == 0 {
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
	if s.check != nil {
		for i, g := range groups {
			for j := range g {
				if s.check(s.text(&g[j]), ts[i].answer) {
					g[j].Reward = 1
				}
			}
		}
		return nil
	}
	var in []reward.Row
	for i, g := range groups {
		for j := range g {
			in = append(in, reward.Row{Prompt: ts[i].prompt, Completion: s.text(&g[j]), Fields: ts[i].fields})
		}
	}
	out, err := s.command.Score(ctx, in)
	if err != nil {
		return err
	}
	for _, g := range groups {
		for j := range g {
			g[j].Reward, g[j].Failed = out[0].Value, out[0].Failure != ""
			out = out[1:]
		}
	}
	return nil
}

// text is what a rollout's completion says, without its end-of-text token.
func (s *scorer) text(r *grpo.Rollout) string {
	ids := r.Tokens[r.Prompt:]
	if n := len(ids); n > 0 && slices.Contains(s.h.eos(), ids[n-1]) {
		ids = ids[:n-1]
	}
	return s.h.tok.Decode(ids, true)
}
