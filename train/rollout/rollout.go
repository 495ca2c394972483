// Package rollout draws GRPO's completions from an engine: one request a prompt, whose samples share
// its cache pages, with the log-probability each token was drawn with.
package rollout

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/train/grpo"
)

// A Source samples with one adapter of an engine. Nothing is cut from the distribution: the
// probability of a rollout is that of what was drawn, after temperature and choices alone.
type Source struct {
	Engine      *engine.Engine
	Adapter     int
	Limit       int // most tokens of a completion
	Temperature float32
	Stop        []int32
	Choices     [][]int32 // each completion is one of these; nil: free
	Vocab       int
	Seed        uint64

	round, calls uint64
}

var (
	_ grpo.Sampler = (*Source)(nil)
	_ grpo.Device  = (*engine.Engine)(nil)
)

// Begin says which training step the next calls of Sample belong to: the seeds of a step's rollouts
// are a function of Seed, the step, and their place in it.
func (s *Source) Begin(step int) { s.round, s.calls = uint64(step), 0 }

// Sample draws n completions of each prompt.
func (s *Source) Sample(ctx context.Context, prompts [][]int32, n int) ([][]grpo.Rollout, error) {
	if !(s.Temperature > 0) {
		return nil, fmt.Errorf("rollout: temperature %v: completions to compare are drawn at a temperature above 0", s.Temperature)
	}
	var choices *sample.Choices
	if s.Choices != nil {
		var err error
		if choices, err = sample.NewChoices(s.Choices, s.Stop, s.Vocab); err != nil {
			return nil, fmt.Errorf("rollout: %w", err)
		}
	}
	call := s.calls
	s.calls++
	groups := make([][]grpo.Rollout, len(prompts))
	g, ctx := errgroup.WithContext(ctx)
	for i, prompt := range prompts {
		g.Go(func() (err error) {
			groups[i], err = s.group(ctx, prompt, n, mix(mix(mix(s.Seed, s.round), call), uint64(i)), choices)
			return err
		})
	}
	return groups, g.Wait()
}

// group draws the completions of one prompt.
func (s *Source) group(ctx context.Context, prompt []int32, n int, seed uint64, choices *sample.Choices) ([]grpo.Rollout, error) {
	out := make([]grpo.Rollout, n)
	for i := range out {
		out[i] = grpo.Rollout{Tokens: append(make([]int32, 0, len(prompt)+s.Limit), prompt...), Prompt: len(prompt), Temperature: s.Temperature}
	}
	r := engine.Request{Prompt: prompt, Samples: n, Limit: s.Limit, Stop: s.Stop, Adapter: s.Adapter, Choices: s.Choices,
		Sampling: sample.Params{Temperature: s.Temperature, Seed: seed}}
	for e, err := range s.Engine.Generate(ctx, r) {
		if err != nil {
			return nil, err
		}
		if e.Token.ID >= 0 {
			o := &out[e.Sample]
			o.Tokens, o.LogProbs = append(o.Tokens, e.Token.ID), append(o.LogProbs, e.Token.LogProb)
		}
		if e.Done == engine.Length {
			out[e.Sample].Truncated = true
		}
	}
	if choices == nil {
		return out, nil
	}
	words := (s.Vocab + 31) / 32
	for i := range out {
		all, err := choices.Masks(nil, out[i].Tokens[len(prompt):], s.Vocab)
		if err != nil {
			return nil, err
		}
		for j := 0; j < len(all); j += words {
			out[i].Masks = append(out[i].Masks, all[j:j+words])
		}
	}
	return out, nil
}

// mix makes a seed of two numbers (the finaliser of SplitMix64, Steele et al. 2014).
func mix(a, b uint64) uint64 {
	z := a + 0x9e3779b97f4a7c15*(b+1)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
