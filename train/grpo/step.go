package grpo

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// A Trainer takes training steps on tasks of type T. It is used by one goroutine.
type Trainer[T any] struct {
	Config
	Sampler Sampler
	Scorer  Scorer[T]
	Policy  Policy
	Device  Device

	Group          int // completions of a prompt
	TokensPerBatch int // most tokens of a forward pass; a longer sequence runs alone
	Updates        int // optimizer steps on the rollouts of one step; 0: 1
}

// Stats is what a step did. Means and shares are over all that was drawn, groups dropped for others
// included, unless they say otherwise.
type Stats struct {
	Loss         float64 `json:"loss"`          // mean over the updates, each before it
	RewardMean   float64 `json:"reward_mean"`   // of rewards that could be computed
	RewardStd    float64 `json:"reward_std"`    // mean of the groups' standard deviations
	KL           float64 `json:"kl"`            // mean estimate over the tokens trained on; 0 when it is off
	Entropy      float64 `json:"entropy"`       // mean over the tokens trained on of their distributions', before the first update, in nats
	Truncated    float64 `json:"truncated"`     // share of the completions cut off at their limit
	ClipShare    float64 `json:"clip_share"`    // of the step's tokens, how many the clip keeps from learning
	ZeroVariance float64 `json:"zero_variance"` // share of the groups whose rewards agree
	Parity       float64 `json:"parity"`        // largest |logp(sampler) - logp(trainer)| before the first update
	LengthMean   float64 `json:"length_mean"`   // tokens of a completion
	GradNorm     float64 `json:"grad_norm"`     // of the last update, before clipping
	Tokens       int     `json:"tokens"`        // of all completions
	Failed       int     `json:"failed"`        // rewards that could not be computed
	Refilled     int     `json:"refilled"`      // spare tasks drawn for
}

// ErrNoReward says that a step had nothing to learn from: no completion's reward could be computed.
var ErrNoReward = errors.New("no reward could be computed")

// Step draws and scores a group for each task, and updates the policy with learning rate lr. A group
// whose rewards agree teaches nothing: while there are spare tasks, groups of theirs are drawn in its
// place, in order (dynamic sampling, Yu et al. 2025); Stats.Refilled of them were used.
func (t *Trainer[T]) Step(ctx context.Context, tasks, spare []T, lr float32) (Stats, error) {
	var st Stats
	if err := t.check(len(tasks)); err != nil {
		return st, fmt.Errorf("grpo: %w", err)
	}
	drawn, err := t.draw(ctx, tasks)
	if err != nil {
		return st, err
	}
	kept := append([][]Rollout(nil), drawn...)
	for {
		dull := t.agreeing(kept)
		n := min(len(dull), len(spare))
		if n == 0 {
			break
		}
		more, err := t.draw(ctx, spare[:n])
		if err != nil {
			return st, err
		}
		drawn, spare, st.Refilled = append(drawn, more...), spare[n:], st.Refilled+n
		for _, g := range more {
			if varied(t.values(g)) {
				kept[dull[0]], dull = g, dull[1:]
			}
		}
	}
	st.count(drawn)
	st.ZeroVariance = float64(len(t.agreeing(drawn))) / float64(len(drawn))
	if st.Failed == len(drawn)*t.Group {
		return st, fmt.Errorf("grpo: score: %w of all %d", ErrNoReward, st.Failed)
	}
	t.assign(kept)
	err = t.Device.Exclusive(ctx, func() error { return t.update(kept, &st, lr) })
	return st, err
}

func (t *Trainer[T]) check(tasks int) error {
	switch {
	case tasks == 0:
		return errors.New("a step needs at least one task")
	case t.Group < 2:
		return fmt.Errorf("groups of %d: at least 2 completions of a prompt are needed to compare", t.Group)
	case t.TokensPerBatch < 1:
		return fmt.Errorf("%d tokens a batch: at least 1 is needed", t.TokensPerBatch)
	}
	return t.Config.Check()
}

// draw samples and scores a group for each task.
func (t *Trainer[T]) draw(ctx context.Context, tasks []T) ([][]Rollout, error) {
	prompts := make([][]int32, len(tasks))
	for i, task := range tasks {
		prompts[i] = t.Scorer.Prompt(task)
	}
	groups, err := t.Sampler.Sample(ctx, prompts, t.Group)
	if err != nil {
		return nil, fmt.Errorf("grpo: sample: %w", err)
	}
	if len(groups) != len(tasks) {
		return nil, fmt.Errorf("grpo: sample: %d groups for %d prompts", len(groups), len(tasks))
	}
	for i, g := range groups {
		if len(g) != t.Group {
			return nil, fmt.Errorf("grpo: sample: %d completions of prompt %d, not %d", len(g), i, t.Group)
		}
		for j := range g {
			if err := g[j].check(); err != nil {
				return nil, fmt.Errorf("grpo: sample: completion %d of prompt %d: %w", j, i, err)
			}
		}
	}
	if err := t.Scorer.Score(ctx, tasks, groups); err != nil {
		return nil, fmt.Errorf("grpo: score: %w", err)
	}
	for i, g := range groups {
		for j, r := range g {
			if x := float64(r.Reward); !r.Failed && (math.IsNaN(x) || math.IsInf(x, 0)) {
				return nil, fmt.Errorf("grpo: score: reward %v of completion %d of prompt %d", r.Reward, j, i)
			}
		}
	}
	return groups, nil
}

func (r *Rollout) check() error {
	n := len(r.Tokens) - r.Prompt
	switch {
	case r.Prompt < 1 || n < 0:
		return fmt.Errorf("a prompt of %d of %d tokens", r.Prompt, len(r.Tokens))
	case len(r.LogProbs) != n:
		return fmt.Errorf("%d log-probabilities for %d tokens", len(r.LogProbs), n)
	case r.Masks != nil && len(r.Masks) != n:
		return fmt.Errorf("%d masks for %d tokens", len(r.Masks), n)
	}
	for i, lp := range r.LogProbs {
		if x := float64(lp); math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("log-probability %v of token %d", lp, i)
		}
	}
	return nil
}

// rewards are those of a group that could be computed.
func rewards(g []Rollout) (v []float64) {
	for _, r := range g {
		if !r.Failed {
			v = append(v, float64(r.Reward))
		}
	}
	return v
}

// values are what a group's advantages are made of: its rewards, less a penalty for length where the
// objective has one.
func (c *Config) values(g []Rollout) (v []float64) {
	for _, r := range g {
		if !r.Failed {
			v = append(v, float64(r.Reward)-c.penalty(len(r.LogProbs)))
		}
	}
	return v
}

// penalty grows from 0 to 1 over the last fifth of the tokens that a completion may have.
func (c *Config) penalty(tokens int) float64 {
	if c.Overlong != Penalised {
		return 0
	}
	margin := float64(c.Length) / 5
	return min(max((float64(tokens-c.Length)+margin)/margin, 0), 1)
}

// agreeing lists the groups whose completions are all worth the same.
func (c *Config) agreeing(groups [][]Rollout) (at []int) {
	for i, g := range groups {
		if !varied(c.values(g)) {
			at = append(at, i)
		}
	}
	return at
}

// count fills in what can be said before the update.
func (st *Stats) count(groups [][]Rollout) {
	var all, spread, lengths []float64
	for _, g := range groups {
		v := rewards(g)
		all, spread = append(all, v...), append(spread, deviation(v))
		st.Failed += len(g) - len(v)
		for _, r := range g {
			lengths = append(lengths, float64(len(r.LogProbs)))
			st.Tokens += len(r.LogProbs)
			if r.Truncated {
				st.Truncated++
			}
		}
	}
	st.RewardMean, st.RewardStd, st.LengthMean = mean(all), mean(spread), mean(lengths)
	st.Truncated /= float64(max(len(lengths), 1))
}

// assign sets the rollouts' advantages; one without a reward has none.
func (t *Trainer[T]) assign(groups [][]Rollout) {
	values := make([][]float64, len(groups))
	for i, g := range groups {
		values[i] = t.values(g)
	}
	for i, adv := range Advantages(values, t.Advantage) {
		for j := range groups[i] {
			if r := &groups[i][j]; !r.Failed {
				r.Advantage, adv = float32(adv[0]), adv[1:]
			}
		}
	}
}
