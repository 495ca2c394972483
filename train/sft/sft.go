// Package sft is supervised fine-tuning on log-probabilities: the loss is the mean negative
// log-likelihood over the target tokens of a whole step, so each of n targets has the coefficient -1/n,
// however the step is cut into batches. (Not a mean over sequences of their means.)
package sft

import (
	"errors"
	"fmt"
	"iter"
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
	var st Stats
	if tokensPerBatch < 1 {
		return st, fewTokens(tokensPerBatch)
	}
	seqs := make([]batch.Sequence, len(examples))
	for i := range examples {
		var err error
		if seqs[i], err = examples[i].sequence(); err != nil {
			return st, fmt.Errorf("sft: example %d: %w", i, err)
		}
		st.Tokens += len(seqs[i].Predict)
	}
	if st.Tokens == 0 {
		return st, errNothing
	}
	w := walk{p: p, limit: tokensPerBatch, coef: float32(-1 / float64(st.Tokens))}
	if err := w.over(seqs); err != nil {
		return st, err
	}
	st.Loss = w.sum / float64(st.Tokens)
	norm, err := p.Update(lr)
	if err != nil {
		return st, fmt.Errorf("sft: update: %w", err)
	}
	st.GradNorm = float64(norm)
	return st, nil
}

// Evaluate gives the loss of the examples and changes nothing. They are taken as they come: no more are held than a
// forward pass runs. Their own error ends it.
func Evaluate(p Policy, examples iter.Seq2[Example, error], tokensPerBatch int) (Stats, error) {
	var st Stats
	if tokensPerBatch < 1 {
		return st, fewTokens(tokensPerBatch)
	}
	w := walk{p: p, limit: tokensPerBatch}
	var held []batch.Sequence
	n, rows := 0, 0
	for e, err := range examples {
		if err != nil {
			return st, err
		}
		s, err := e.sequence()
		if err != nil {
			return st, fmt.Errorf("sft: example %d: %w", n, err)
		}
		if rows += s.Rows(); rows > tokensPerBatch {
			if err := w.over(held); err != nil {
				return st, err
			}
			held, rows = held[:0], s.Rows()
		}
		held, n, st.Tokens = append(held, s), n+1, st.Tokens+len(s.Predict)
	}
	if st.Tokens == 0 {
		return st, errNothing
	}
	if err := w.over(held); err != nil {
		return st, err
	}
	st.Loss = w.sum / float64(st.Tokens)
	return st, nil
}

var errNothing = errors.New("sft: nothing to learn: no example has a target token")

func fewTokens(n int) error { return fmt.Errorf("sft: %d tokens a batch: at least 1 is needed", n) }

// A walk runs sequences batch after batch and adds up their loss in the order of their tokens, however they are cut.
type walk struct {
	p     Policy
	limit int     // tokens a batch
	coef  float32 // of each target in the gradient; 0: there is none
	sum   float64 // of the negative log-likelihoods
	b     batch.Batch
}

// over runs more sequences, each batch followed by Backward where there is a gradient.
func (w *walk) over(seqs []batch.Sequence) error {
	for len(seqs) > 0 {
		seqs = seqs[batch.Pack(&w.b, seqs, w.limit):]
		if len(w.b.Want) == 0 {
			continue
		}
		logp, err := w.p.LogProbs(&w.b)
		if err != nil {
			return fmt.Errorf("sft: forward: %w", err)
		}
		if w.sum, err = subtract(w.sum, logp, &w.b); err != nil {
			return fmt.Errorf("sft: forward: %w", err)
		}
		if w.coef == 0 {
			continue
		}
		coefs := make([]float32, len(logp))
		for i := range coefs {
			coefs[i] = w.coef
		}
		if err := w.p.Backward(coefs); err != nil {
			return fmt.Errorf("sft: backward: %w", err)
		}
	}
	return nil
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
