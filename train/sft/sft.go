// Package sft is supervised fine-tuning on log-probabilities: the loss is the mean negative
// log-likelihood over the target tokens of a whole step, so each of n targets has the coefficient -1/n,
// however the step is cut into batches. (Not a mean over sequences of their means.)
package sft

import (
	"errors"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/model/batch"
)

// An Example is a text and which of its tokens are to be learnt: those Mask says or, where Mask is
// nil, those from Prompt on. The first token follows nothing and is never learnt.
type Example struct {
	Tokens []int32
	Prompt int
	Mask   []bool
}

// A Policy is what fine-tuning needs of a model in training.
type Policy interface {
	// LogProbs gives the log-probability of each target of b and keeps what Backward needs.
	LogProbs(b *batch.Batch) ([]float32, error)
	// Backward adds the gradient of Σ coef·logp, of the targets of the last LogProbs.
	Backward(coef []float32) error
	// Update takes one optimizer step with the gradient added up, clears it, and returns its norm.
	Update(lr float32) (norm float32, err error)
}

// Stats is what a step did.
type Stats struct {
	Loss     float64 `json:"loss"`      // nats a target token, before the update
	Tokens   int     `json:"tokens"`    // target tokens
	GradNorm float64 `json:"grad_norm"` // before clipping
}

// Step updates p once on the examples, with learning rate lr, running at most tokensPerBatch tokens at
// a time (a longer example runs alone).
func Step(p Policy, examples []Example, tokensPerBatch int, lr float32) (Stats, error) {
	st, err := walk(p, examples, tokensPerBatch, p.Backward)
	if err != nil {
		return st, err
	}
	norm, err := p.Update(lr)
	if err != nil {
		return st, fmt.Errorf("sft: update: %w", err)
	}
	st.GradNorm = float64(norm)
	return st, nil
}

// Evaluate gives the loss of the examples and changes nothing.
func Evaluate(p Policy, examples []Example, tokensPerBatch int) (Stats, error) {
	return walk(p, examples, tokensPerBatch, nil)
}

// walk runs the examples batch after batch, each followed by backward unless that is nil.
func walk(p Policy, examples []Example, tokensPerBatch int, backward func([]float32) error) (st Stats, err error) {
	if tokensPerBatch < 1 {
		return st, fmt.Errorf("sft: %d tokens a batch: at least 1 is needed", tokensPerBatch)
	}
	seqs := make([]batch.Sequence, len(examples))
	for i := range examples {
		if seqs[i], err = examples[i].sequence(); err != nil {
			return st, fmt.Errorf("sft: example %d: %w", i, err)
		}
		st.Tokens += len(seqs[i].Predict)
	}
	if st.Tokens == 0 {
		return st, errors.New("sft: nothing to learn: no example has a target token")
	}
	coef := float32(-1 / float64(st.Tokens))
	sum := 0.0
	var b batch.Batch
	for len(seqs) > 0 {
		seqs = seqs[batch.Pack(&b, seqs, tokensPerBatch):]
		if len(b.Want) == 0 {
			continue
		}
		logp, err := p.LogProbs(&b)
		if err != nil {
			return st, fmt.Errorf("sft: forward: %w", err)
		}
		if sum, err = subtract(sum, logp, &b); err != nil {
			return st, fmt.Errorf("sft: forward: %w", err)
		}
		if backward == nil {
			continue
		}
		coefs := make([]float32, len(logp))
		for i := range coefs {
			coefs[i] = coef
		}
		if err := backward(coefs); err != nil {
			return st, fmt.Errorf("sft: backward: %w", err)
		}
	}
	st.Loss = sum / float64(st.Tokens)
	return st, nil
}

// subtract takes each of logp, one finite number a wanted row of b, from sum.
func subtract(sum float64, logp []float32, b *batch.Batch) (float64, error) {
	if len(logp) != len(b.Want) {
		return sum, fmt.Errorf("%d log-probabilities for %d rows", len(logp), len(b.Want))
	}
	for i, lp := range logp {
		x := float64(lp)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return sum, fmt.Errorf("log-probability %v of token %d at row %d", lp, b.Targets[i], b.Want[i])
		}
		sum -= x
	}
	return sum, nil
}

func (e *Example) sequence() (batch.Sequence, error) {
	s := batch.Sequence{Tokens: e.Tokens}
	if e.Mask != nil && len(e.Mask) != len(e.Tokens) {
		return s, fmt.Errorf("a mask of %d for %d tokens", len(e.Mask), len(e.Tokens))
	}
	if e.Prompt < 0 || e.Prompt > len(e.Tokens) {
		return s, fmt.Errorf("a prompt of %d of %d tokens", e.Prompt, len(e.Tokens))
	}
	for i := 1; i < len(e.Tokens); i++ {
		if e.Mask != nil && e.Mask[i] || e.Mask == nil && i >= e.Prompt {
			s.Predict = append(s.Predict, int32(i))
		}
	}
	return s, nil
}
