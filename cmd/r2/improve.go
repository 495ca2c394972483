package main

import (
	"context"
	"fmt"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/train/routing"
	"github.com/r2-reasoner/r2/train/tasks"
)

// The size of the demo's update.
const (
	grpoQuestions = 16
	grpoSamples   = 8
	heldOut       = 48
	improveRate   = 3e-3
)

// A grpoOutcome is what one update of the allocator brought.
type grpoOutcome struct {
	Groups  int     `json:"groups"`
	Samples int     `json:"samples"`
	HeldOut int     `json:"held_out"`
	Before  float64 `json:"reward_before"`
	After   float64 `json:"reward_after"`
	Parity  float64 `json:"parity"`
}

// improve takes one GRPO update of the allocator on training questions, and measures the reward of
// drawn allocations on held-out ones before and after.
func (m *miniature) improve(ctx context.Context, seed uint64) (out grpoOutcome, err error) {
	a, src, err := m.environment(seed)
	if err != nil {
		return out, err
	}
	learner, err := m.allocatorLearner()
	if err != nil {
		return out, err
	}
	train, err := m.questions(ctx, "train", grpoQuestions, seed)
	if err != nil {
		return out, err
	}
	held, err := m.questions(ctx, "test", heldOut, seed+1)
	if err != nil {
		return out, err
	}
	out = grpoOutcome{Groups: len(train), Samples: grpoSamples, HeldOut: len(held)}
	if out.Before, err = meanReward(ctx, a, src, held); err != nil {
		return out, err
	}
	t := &grpo.Trainer[routing.Decision]{
		Config:  grpo.Config{Loss: grpo.DAPO, Advantage: grpo.PerGroup, EpsilonLow: 0.2, EpsilonHigh: 0.28},
		Sampler: src, Scorer: a, Policy: learner, Device: m.base.eng, Group: grpoSamples, TokensPerBatch: 1024,
	}
	src.Begin(0)
	st, err := t.Step(ctx, routing.Decisions(train), nil, improveRate)
	if err != nil {
		return out, err
	}
	out.Parity = st.Parity
	out.After, err = meanReward(ctx, a, src, held)
	return out, err
}

// meanReward draws grpoSamples allocations of each question, always by the same random numbers.
func meanReward(ctx context.Context, a *routing.Allocations, src *rollout.Source, qs []*routing.Question) (float64, error) {
	src.Begin(1)
	ds := routing.Decisions(qs)
	prompts := make([][]int32, len(ds))
	for i, d := range ds {
		prompts[i] = a.Prompt(d)
	}
	groups, err := src.Sample(ctx, prompts, grpoSamples)
	if err != nil {
		return 0, err
	}
	if err := a.Score(ctx, ds, groups); err != nil {
		return 0, err
	}
	sum, n := 0.0, 0
	for i, d := range ds {
		if d.Index > 0 {
			continue // every decision of a question has the allocation's reward
		}
		for _, r := range groups[i] {
			if !r.Failed {
				sum += float64(r.Reward)
				n++
			}
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("none of the allocations could be executed")
	}
	return sum / float64(n), nil
}

// environment is what grades the allocator, and what draws with it.
func (m *miniature) environment(seed uint64) (*routing.Allocations, *rollout.Source, error) {
	policy, ok := m.allocate.Model.Completer.(*local.Model)
	if !ok {
		return nil, nil, fmt.Errorf("the allocator is not a model of this process")
	}
	rt := *m.router
	rt.Pool = routing.NewMemo(m.pool)
	a := &routing.Allocations{Router: &rt, Allocator: m.allocate, Policy: policy, Check: tasks.CheckSCAN}
	src := &rollout.Source{Engine: m.base.eng, Adapter: policy.Adapter, Limit: 16, Temperature: 1, Stop: policy.EOS,
		Vocab: m.base.config.Vocab, Seed: seed}
	for _, c := range m.pool.Models() {
		src.Choices = append(src.Choices, policy.Tokenizer.Encode(c.Name, false))
	}
	return a, src, nil
}

// allocatorLearner trains the allocator's adapter in place: the engine reads the same tensors.
func (m *miniature) allocatorLearner() (*train.Learner, error) {
	n, err := m.base.adapter(allocatorName)
	if err != nil {
		return nil, err
	}
	size := model.Size{Tokens: 1024, Sequences: 1024, Wanted: 1024, Slice: 256, Masks: true}
	return train.New(m.base.dec, m.base.loaded[n-1], nil, size, train.Optimizer{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Clip: 1})
}

// questions are tasks with the decomposer's plans; one without a usable plan is left out.
func (m *miniature) questions(ctx context.Context, split string, n int, seed uint64) ([]*routing.Question, error) {
	ts, err := pickTasks(split, n, seed)
	if err != nil {
		return nil, err
	}
	var qs []*routing.Question
	for _, t := range ts {
		plan, err := m.decompose.Decompose(ctx, nil, t.Question)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			qs = append(qs, &routing.Question{Text: t.Question, Answer: t.Answer, Plan: plan})
		}
	}
	return qs, nil
}
