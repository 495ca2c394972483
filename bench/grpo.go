package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/weights"
)

const (
	microTokens = 1024 // of a training batch
	loraRank    = 16
)

// GRPO measures a training step of a LoRA adapter on all projections and its parts: sampling, scoring,
// the forward passes (of the policy and of the reference), the backward pass and the update. The reward is
// the share of even ids, so that scoring costs next to nothing; it shows the overhead round it.
func (s *Subject) GRPO(ctx context.Context, l Load) ([]Row, error) {
	trainer, c, n, err := s.trainer(l)
	if err != nil {
		return nil, err
	}
	steps, err := s.trainSteps(ctx, trainer, c)
	if e := n.close(); err == nil {
		err = e
	}
	return steps, err
}

// trainer is what takes the steps of a load, with its clock, on a session that the caller closes.
func (s *Subject) trainer(l Load) (*grpo.Trainer[int], *clock, *session, error) {
	if err := s.check(l); err != nil {
		return nil, nil, nil, err
	}
	if l.Samples < 2 || l.Prompts < 1 {
		return nil, nil, nil, fmt.Errorf("a step of %d prompts and %d samples: at least 1 and 2 are needed", l.Prompts, l.Samples)
	}
	ad, learner, err := s.learner(l)
	if err != nil {
		return nil, nil, nil, err
	}
	n, err := s.session(l, ad)
	if err != nil {
		return nil, nil, nil, err
	}
	c := &clock{policy: learner, load: l, subject: s, spent: map[string]time.Duration{}}
	c.source = &rollout.Source{Engine: n.eng, Adapter: 1, Limit: l.Tokens, Temperature: 1, Vocab: s.Decoder.Config.Vocab, Seed: s.Seed}
	return &grpo.Trainer[int]{
		Config:  grpo.Config{Loss: "grpo", Advantage: "group", EpsilonLow: 0.2, EpsilonHigh: 0.28, KL: 0.04, Length: l.Tokens},
		Sampler: c, Scorer: c, Policy: c, Device: n.eng, Group: l.Samples, TokensPerBatch: microTokens,
	}, c, n, nil
}

// learner is a new adapter and what trains it.
func (s *Subject) learner(l Load) (*model.Adapter, *train.Learner, error) {
	cfg := weights.AdapterConfig{R: loraRank, Alpha: 2 * loraRank, Targets: weights.Targets{Names: model.Modules()}}
	a, err := model.RandomAdapter(s.Decoder.Config, cfg, s.Seed)
	if err != nil {
		return nil, nil, err
	}
	ad, err := s.loadAdapter(a)
	if err != nil {
		return nil, nil, err
	}
	tokens := max(microTokens, grpo.Rows(l.Prompt, l.Tokens, l.Samples))
	size, err := train.Spend(s.Decoder, ad, model.Size{Tokens: tokens, Sequences: tokens, Wanted: tokens, Slice: 128}, s.Spare)
	if err != nil {
		return nil, nil, err
	}
	learner, err := train.New(s.Decoder, ad, nil, size,
		train.Optimizer{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Clip: 1})
	return ad, learner, err
}

func (s *Subject) loadAdapter(a *weights.Adapter) (*model.Adapter, error) {
	if err := s.Decoder.Backend().Attach(); err != nil {
		return nil, err
	}
	defer s.Decoder.Backend().Detach()
	return s.Decoder.LoadAdapter(a)
}

// parts of a step, in order.
var parts = []string{"sample", "score", "forward", "backward", "update"}

// trainSteps takes steps and gives a row for each part and one for the whole.
func (s *Subject) trainSteps(ctx context.Context, t *grpo.Trainer[int], c *clock) ([]Row, error) {
	l := c.load
	spent := map[string][]float64{}
	tasks := make([]int, l.Prompts)
	whole, err := s.repeat(func(run int) (time.Duration, error) {
		for i := range tasks {
			tasks[i] = run*l.Prompts + i
		}
		c.source.Begin(run)
		c.spent = map[string]time.Duration{}
		start := time.Now()
		st, err := t.Step(ctx, tasks, nil, 1e-5)
		took := time.Since(start)
		switch {
		case err != nil:
		case st.Parity != 0:
			err = fmt.Errorf("sampler and trainer differ by %g in a log-probability", st.Parity)
		case run > 0:
			for _, p := range parts {
				spent[p] = append(spent[p], c.spent[p].Seconds())
			}
		}
		return took, err
	})
	if err != nil {
		return nil, err
	}
	bounds := s.stepBounds(l)
	drawn := float64(l.Prompts * l.Samples * l.Tokens)
	of := fmt.Sprintf("%d prompts of %d, %d samples of %d tokens", l.Prompts, l.Prompt, l.Samples, l.Tokens)
	var rows []Row
	total := 0.0
	for _, p := range parts {
		total += bounds[p]
		rows = append(rows, s.row("grpo", p+": "+of, "tokens/s", drawn, bounds[p], spent[p]))
	}
	return append(rows, s.row("grpo", "step: "+of, "tokens/s", drawn, total, whole)), nil
}

// stepBounds are the least seconds of each part, where a group computes its prompt once. Scoring has none of the device's, and AdamW reads
// four numbers a parameter. Gradients of the frozen matrices are not computed, so the backward pass has
// as much arithmetic as the forward; what it computes again, to keep less, is its own doing.
func (s *Subject) stepBounds(l Load) map[string]float64 {
	rows, one := grpo.Rows(l.Prompt, l.Tokens, l.Samples), work{}
	keys := l.Samples*triangle(l.Prompt+l.Tokens-1) - (l.Samples-1)*triangle(l.Prompt-1)
	for at := 0; at < l.Prompts; {
		n := min(l.Prompts-at, max(1, microTokens/rows))
		one = one.plus(s.forward(n*rows, n*keys, n*l.Samples*l.Tokens, 0))
		at += n
	}
	sample := s.prefill(l.Prompts, l.Prompt) + s.steps(l.Prompts, l.Prompt, l.Tokens-1, l.Samples)
	lora := 0.0
	for _, p := range s.Decoder.Config.Projections(0) {
		lora += float64((p.In + p.Out) * loraRank * s.Decoder.Config.Layers)
	}
	return map[string]float64{
		"sample": sample, "forward": 2 * s.Roof.seconds(one), "backward": s.Roof.seconds(one),
		"update": s.Roof.seconds(work{bytes: 16 * lora}), "score": 0,
	}
}

// A clock is the sampler, the scorer and the policy of a trainer, and keeps what each took.
type clock struct {
	source  *rollout.Source
	policy  grpo.Policy
	load    Load
	subject *Subject
	spent   map[string]time.Duration
}

func (c *clock) time(part string, start time.Time) { c.spent[part] += time.Since(start) }

// Sample draws.
func (c *clock) Sample(ctx context.Context, prompts [][]int32, n int) ([][]grpo.Rollout, error) {
	defer c.time("sample", time.Now())
	return c.source.Sample(ctx, prompts, n)
}

// Prompt is the prompt of a task: random ids.
func (c *clock) Prompt(task int) []int32 { return c.subject.prompt(task, c.load.Prompt) }

// Score rewards even ids.
func (c *clock) Score(_ context.Context, _ []int, groups [][]grpo.Rollout) error {
	defer c.time("score", time.Now())
	for _, g := range groups {
		for i := range g {
			even := 0
			for _, id := range g[i].Tokens[g[i].Prompt:] {
				even += int(1 - id&1)
			}
			g[i].Reward = float32(even)
		}
	}
	return nil
}

// Distributions is the policy's forward pass.
func (c *clock) Distributions(b *batch.Batch) (logp, entropy []float32, err error) {
	defer c.time("forward", time.Now())
	return c.policy.Distributions(b)
}

// Reference is the reference's forward pass.
func (c *clock) Reference(b *batch.Batch) ([]float32, error) {
	defer c.time("forward", time.Now())
	return c.policy.Reference(b)
}

// Backward is the policy's.
func (c *clock) Backward(coef []float32) error {
	defer c.time("backward", time.Now())
	return c.policy.Backward(coef)
}

// Update is the optimizer's step.
func (c *clock) Update(lr float32) (float32, error) {
	defer c.time("update", time.Now())
	return c.policy.Update(lr)
}
