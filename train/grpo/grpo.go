// Package grpo is group relative policy optimization (Shao et al. 2024) on log-probabilities: the
// advantages of groups of completions, the derivative of the loss by each token's log-probability,
// and the training step. It knows neither a model nor a device: those are a [Sampler] and a [Policy].
//
// Losses, their normalisations and their constants are those of TRL 1.16; its default of weighing the
// KL term by the ratio is [Config].Corrected here, off unless asked for. Denominators are always those
// of the whole step, so gradients do not depend on how it is cut into batches.
package grpo

import (
	"context"

	"github.com/r2-reasoner/r2/model/batch"
)

// A Rollout is one completion of a prompt, and what it was worth.
type Rollout struct {
	Tokens      []int32    // the prompt, then the completion
	Prompt      int        // how many of them are the prompt's
	LogProbs    []float32  // of each token of the completion, under the policy that drew it
	Temperature float32    // it was drawn at; 0: 1
	Masks       [][]uint32 // the ids that were allowed at each token of the completion; nil: all

	Truncated bool // cut off at the most tokens it may have

	Reward    float32
	Failed    bool // the reward could not be computed: left out of the group, and counted
	Advantage float32
}

// A Sampler draws n completions of each prompt from the current policy.
type Sampler interface {
	Sample(ctx context.Context, prompts [][]int32, n int) (groups [][]Rollout, err error)
}

// A Scorer sets the Reward, or Failed, of each rollout of its task's group.
type Scorer[T any] interface {
	Prompt(task T) []int32
	Score(ctx context.Context, tasks []T, groups [][]Rollout) error
}

// A Policy is what GRPO needs of a model in training.
type Policy interface {
	// Distributions gives the log-probability of each target of b and the entropy, in nats, of the distribution
	// it comes from, and keeps what Backward needs.
	Distributions(b *batch.Batch) (logp, entropy []float32, err error)
	// Reference gives those of the policy that the divergence is measured from.
	Reference(b *batch.Batch) ([]float32, error)
	// Backward adds the gradient of Σ coef·logp, of the targets of the last Distributions.
	Backward(coef []float32) error
	// Update takes one optimizer step with the gradient added up, clears it, and returns its norm.
	Update(lr float32) (norm float32, err error)
}

// A Device is lent out for an update: Exclusive waits until nothing else runs on it, and runs f alone.
type Device interface {
	Exclusive(ctx context.Context, f func() error) error
}
