package grpo

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Kind names a loss: which ratio is clipped how, and what the sum over tokens is divided by.
type Kind string

const (
	GRPO   Kind = "grpo"    // mean over completions of the mean over their tokens (Shao et al. 2024)
	BNPO   Kind = "bnpo"    // mean over the tokens of the batch; here the batch is the whole step, so it equals dapo
	DrGRPO Kind = "dr_grpo" // sum over completions × the most tokens one may have (Liu et al. 2025)
	DAPO   Kind = "dapo"    // mean over all tokens of the step (Yu et al. 2025)
	CISPO  Kind = "cispo"   // the ratio, capped at EpsilonHigh, weighs logp without a gradient of its own (MiniMax 2025)
	GSPO   Kind = "gspo"    // as grpo with one ratio a completion, the tokens' geometric mean (Zheng et al. 2025)
)

// Kinds are the losses there are.
var Kinds = []Kind{GRPO, BNPO, DrGRPO, DAPO, CISPO, GSPO}

// A Divergence names an estimator of the KL divergence from the reference, a token at a time, of
// d = log-probability under the reference less that of the policy (Schulman 2020).
type Divergence string

const (
	K1 Divergence = "k1" // -d: unbiased; its derivative is the constant 1, so it only pulls when Corrected
	K2 Divergence = "k2" // d²/2: biased; its derivative is the divergence's own, unbiased
	K3 Divergence = "k3" // exp(d) - d - 1: unbiased and never negative, as in the paper
)

// An Overlong says what becomes of a completion that was cut off at the most tokens it may have.
type Overlong string

const (
	Kept      Overlong = ""        // nothing: it is judged as it stands
	Masked    Overlong = "mask"    // its reward counts in the group, its tokens are not trained on (Yu et al. 2025)
	Penalised Overlong = "penalty" // a reward falls by up to 1 over the last fifth of Length (soft punishment, same paper)
)

// Config is the objective. It is read, never written.
type Config struct {
	Loss        Kind
	Advantage   Scale
	EpsilonLow  float64    // the ratio is clipped to [1-EpsilonLow, 1+EpsilonHigh]
	EpsilonHigh float64    // cispo's cap is EpsilonHigh itself, as in TRL: 5 is a usual value there
	Delta       float64    // most that the unclipped ratio counts for; 0: no such limit (INTELLECT-2, 2025)
	KL          float64    // weight of the divergence from the reference; 0: the reference is not asked
	Kind        Divergence // the estimator; "": k3
	Corrected   bool       // the estimate is weighed by the ratio, which has its gradient too (TRL's default)
	Overlong    Overlong
	Length      int // most tokens of a completion; dr_grpo and a penalty for overlong ones need it
}

// Check reports the first setting that makes no sense.
func (c *Config) Check() error {
	switch {
	case !slices.Contains(Kinds, c.Loss):
		return fmt.Errorf("loss %q is not known: use one of %s", c.Loss, names(Kinds))
	case c.Advantage != PerGroup && c.Advantage != PerBatch && c.Advantage != Unscaled:
		return fmt.Errorf("advantage %q is not known: use one of group, batch, none", c.Advantage)
	case !(c.EpsilonLow >= 0 && c.EpsilonLow <= 1):
		return fmt.Errorf("epsilon low %v: it must lie in 0..1", c.EpsilonLow)
	case !(c.EpsilonHigh >= 0) || math.IsInf(c.EpsilonHigh, 0):
		return fmt.Errorf("epsilon high %v: it must be a number from 0 up", c.EpsilonHigh)
	case !(c.Delta == 0 || c.Delta > 1) || math.IsInf(c.Delta, 0):
		return fmt.Errorf("delta %v: it must be 0 (no limit) or above 1", c.Delta)
	case !(c.KL >= 0) || math.IsInf(c.KL, 0):
		return fmt.Errorf("kl %v: the weight must be a number from 0 up", c.KL)
	case c.Kind != "" && c.Kind != K1 && c.Kind != K2 && c.Kind != K3:
		return fmt.Errorf("divergence %q is not known: use one of k1, k2, k3", c.Kind)
	case c.Overlong != Kept && c.Overlong != Masked && c.Overlong != Penalised:
		return fmt.Errorf("overlong %q is not known: use mask or penalty, or leave it out", c.Overlong)
	case c.Overlong == Penalised && c.Length <= 0:
		return fmt.Errorf("a penalty for overlong completions needs the most tokens one may have: set it above 0, not %d", c.Length)
	case c.Loss == DrGRPO && c.Length <= 0:
		return fmt.Errorf("loss dr_grpo divides by the most tokens a completion may have: set it above 0, not %d", c.Length)
	}
	return nil
}

func names(kinds []Kind) string {
	var s []string
	for _, k := range kinds {
		s = append(s, string(k))
	}
	return strings.Join(s, ", ")
}

// A Row is one completion as the loss sees it: natural logarithms, one a token.
type Row struct {
	Advantage float64
	LogProbs  []float64 // under the policy in training
	Old       []float64 // under the policy that drew the tokens; nil: the same
	Ref       []float64 // under the reference; nil where KL is 0
}

// Totals count the completions and their tokens of the whole step, those not trained on included.
type Totals struct{ Rows, Tokens int }

// Terms is what a completion adds to the step.
type Terms struct {
	Loss    float64 // its share of the step's loss
	KL      float64 // Σ of the divergence's estimate over its tokens
	Clipped int     // tokens whose gradient the clip took away
}

// Row sets coef to the derivative of the step's loss by each log-probability of r, and returns what r
// adds to the step.
func (c *Config) Row(coef []float64, r Row, of Totals) (t Terms) {
	w := c.weight(len(r.LogProbs), of)
	shared := 0.0 // gspo's log of the completion's one ratio
	if c.Loss == GSPO && r.Old != nil {
		for i, lp := range r.LogProbs {
			shared += (lp - r.Old[i]) / float64(len(r.LogProbs))
		}
	}
	pull := 0.0 // gspo's mean of the estimates, which the shared ratio weighs when Corrected
	if c.Loss == GSPO && c.Corrected && c.KL != 0 {
		for i, lp := range r.LogProbs {
			k, _ := c.divergence(r.Ref[i] - lp)
			pull += k / float64(len(r.LogProbs))
		}
	}
	for i, lp := range r.LogProbs {
		logRatio := shared
		if c.Loss != GSPO && r.Old != nil {
			logRatio = lp - r.Old[i]
		}
		// Each of a completion's n tokens has 1/n of the shared ratio's derivative, and the ratio
		// stands in n equal terms: the coefficient comes out as for a ratio of the token's own.
		loss, g, clipped := c.surrogate(logRatio, lp, r.Advantage)
		if c.KL != 0 {
			k, dk := c.divergence(r.Ref[i] - lp)
			if c.Corrected {
				ratio, dratio := growth(logRatio)
				weighed := k // what the ratio's derivative multiplies
				if c.Loss == GSPO {
					weighed = pull
				}
				k, dk = k*ratio, dk*ratio+weighed*dratio
			}
			loss, g, t.KL = loss+c.KL*k, g+c.KL*dk, t.KL+k
		}
		if clipped {
			t.Clipped++
		}
		t.Loss += w * loss
		coef[i] = w * g
	}
	return t
}

// weight is the factor of each token of a completion of n tokens.
func (c *Config) weight(n int, of Totals) float64 {
	switch c.Loss {
	case GRPO, GSPO:
		return 1 / float64(of.Rows*max(n, 1))
	case BNPO, DAPO, CISPO:
		return 1 / float64(max(of.Tokens, 1))
	case DrGRPO:
		return 1 / float64(of.Rows*c.Length)
	}
	panic(fmt.Sprintf("grpo: loss %q", c.Loss))
}

// surrogate is the policy term of one token's loss and its derivative by the token's log-probability.
// clipped says that the clip is what counts.
func (c *Config) surrogate(logRatio, logp, adv float64) (loss, grad float64, clipped bool) {
	r, dr := growth(logRatio)
	if c.Loss == CISPO {
		r = min(r, c.EpsilonHigh)
		return -r * adv * logp, -r * adv, adv > 0 && r == c.EpsilonHigh
	}
	clipped = adv > 0 && r > 1+c.EpsilonHigh || adv < 0 && r < 1-c.EpsilonLow
	within, dwithin := min(max(r, 1-c.EpsilonLow), 1+c.EpsilonHigh), dr
	if within != r {
		dwithin = 0
	}
	if c.Delta > 0 && r > c.Delta {
		r, dr = c.Delta, 0
	}
	if within*adv < r*adv {
		return -within * adv, -dwithin * adv, clipped
	}
	return -r * adv, -dr * adv, clipped
}

// divergence is the estimate at d = ref - logp, and its derivative by logp.
func (c *Config) divergence(d float64) (k, dk float64) {
	switch c.Kind {
	case K1:
		return -d, 1
	case K2:
		return d * d / 2, -d
	}
	e, de := growth(d)
	return e - d - 1, 1 - de
}

// steep is where growth stops being exponential: far beyond any ratio worth learning from, and far
// within float32.
const steep = 20

// growth is exp(x) and its derivative, continued as a straight line from x = 20 on, so that neither a
// loss nor a coefficient overflows.
func growth(x float64) (v, dv float64) {
	if x <= steep {
		v = math.Exp(x)
		return v, v
	}
	dv = math.Exp(steep)
	return dv * (1 + x - steep), dv
}
