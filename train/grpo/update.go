package grpo

import (
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/model/batch"
)

// update takes the optimizer steps of one training step, on the device lent to it.
func (t *Trainer[T]) update(groups [][]Rollout, st *Stats, lr float32) error {
	p := t.trained(groups)
	updates := max(t.Updates, 1)
	var sum Terms
	for i := range updates {
		p.sum, p.parity, p.entropy, p.tokens = Terms{}, 0, 0, 0
		if err := t.backward(&p); err != nil {
			return fmt.Errorf("grpo: update %d: %w", i, err)
		}
		norm, err := t.Policy.Update(lr)
		if err != nil {
			return fmt.Errorf("grpo: update %d: %w", i, err)
		}
		if i == 0 {
			st.Parity, st.Entropy = p.parity, p.entropy/float64(max(p.tokens, 1))
		}
		sum.Loss, sum.KL, sum.Clipped = sum.Loss+p.sum.Loss, sum.KL+p.sum.KL, sum.Clipped+p.sum.Clipped
		st.GradNorm = float64(norm)
	}
	st.Loss = sum.Loss / float64(updates)
	// Where the KL is on every token that counts is trained on, so this is the mean over those for both.
	tokens := float64(updates * max(p.of.Tokens, 1))
	st.KL, st.ClipShare = sum.KL/tokens, float64(sum.Clipped)/tokens
	return nil
}

// trained takes the rollouts that have a gradient, and counts all that have a reward: one without an
// advantage stays in the denominators, as in TRL, but with the KL off it need not be run. Of one that is
// masked for its length the row stays there and its tokens do not, as in TRL.
func (t *Trainer[T]) trained(groups [][]Rollout) (p pass) {
	for _, g := range groups {
		var train []Rollout
		for _, r := range g {
			if r.Failed {
				continue
			}
			p.of.Rows++
			if r.Truncated && t.Overlong == Masked {
				continue
			}
			p.of.Tokens += len(r.LogProbs)
			if len(r.LogProbs) > 0 && (r.Advantage != 0 || t.KL != 0) {
				train = append(train, r)
			}
		}
		p.rollouts, p.seqs = append(p.rollouts, train...), append(p.seqs, sequences(train)...)
	}
	return p
}

// pass is a walk over the rollouts of a step, and what it finds.
type pass struct {
	rollouts []Rollout
	seqs     []batch.Sequence // of each rollout
	of       Totals
	ref      [][]float64 // under the reference, of each batch; the updates of a step cut them alike
	sum      Terms
	parity   float64
	entropy  float64 // Σ over its tokens
	tokens   int
}

// backward adds up the gradient of all rollouts, a batch at a time.
func (t *Trainer[T]) backward(p *pass) error {
	var b batch.Batch
	for at, i := 0, 0; at < len(p.seqs); {
		n := batch.Pack(&b, p.seqs[at:], t.TokensPerBatch)
		if len(b.Want) > 0 {
			if err := t.piece(p, i, &b, p.rollouts[at:at+n]); err != nil {
				return err
			}
			i++
		}
		at += n
	}
	return nil
}

// reference gives the log-probabilities of batch i under the reference, which it asks once a step.
func (t *Trainer[T]) reference(p *pass, i int, b *batch.Batch) ([]float64, error) {
	if t.KL == 0 {
		return nil, nil
	}
	if i == len(p.ref) {
		v, err := t.Policy.Reference(b)
		if err != nil {
			return nil, err
		}
		ref, err := wide(v, b)
		if err != nil {
			return nil, err
		}
		p.ref = append(p.ref, ref)
	}
	return p.ref[i], nil
}

// piece runs batch i, the rollouts' tokens in order, forward and backward.
func (t *Trainer[T]) piece(p *pass, i int, b *batch.Batch, rollouts []Rollout) error {
	ref, err := t.reference(p, i, b)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	logp, entropy, err := t.distributions(b) // last: Backward needs what it leaves behind
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	for _, h := range entropy {
		p.entropy += h
	}
	p.tokens += len(entropy)
	coef := make([]float64, len(logp))
	at := 0
	for _, r := range rollouts {
		end := at + len(r.LogProbs)
		row := Row{Advantage: float64(r.Advantage), LogProbs: logp[at:end], Old: widen(r.LogProbs)}
		if ref != nil {
			row.Ref = ref[at:end]
		}
		terms := t.Row(coef[at:end], row, p.of)
		p.sum.Loss, p.sum.KL, p.sum.Clipped = p.sum.Loss+terms.Loss, p.sum.KL+terms.KL, p.sum.Clipped+terms.Clipped
		for i, lp := range row.LogProbs {
			p.parity = max(p.parity, math.Abs(lp-row.Old[i]))
		}
		at = end
	}
	narrow := make([]float32, len(coef))
	for i, c := range coef {
		narrow[i] = float32(c)
	}
	if err := t.Policy.Backward(narrow); err != nil {
		return fmt.Errorf("backward: %w", err)
	}
	return nil
}

// distributions gives the log-probabilities and entropies of b under the policy.
func (t *Trainer[T]) distributions(b *batch.Batch) (logp, entropy []float64, err error) {
	lp, h, err := t.Policy.Distributions(b)
	if err != nil {
		return nil, nil, err
	}
	if len(h) != len(b.Want) {
		return nil, nil, fmt.Errorf("%d entropies for %d rows", len(h), len(b.Want))
	}
	logp, err = wide(lp, b)
	return logp, widen(h), err
}

// wide is v in float64, one finite log-probability for each wanted row of b.
func wide(v []float32, b *batch.Batch) ([]float64, error) {
	if len(v) != len(b.Want) {
		return nil, fmt.Errorf("%d log-probabilities for %d rows", len(v), len(b.Want))
	}
	out := widen(v)
	for i, x := range out {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("log-probability %v of token %d at row %d", x, b.Targets[i], b.Want[i])
		}
	}
	return out, nil
}

func widen(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}
