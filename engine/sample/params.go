// Package sample draws tokens: the settings of a request, the counter-based random numbers that make a
// draw a function of (seed, sample, step), the draw from logits on the host, and the masks of choices.
package sample

import (
	"fmt"
	"math"
)

// Params is how a request wants its tokens drawn. The zero value is greedy.
type Params struct {
	Temperature float32 // divides the logits; 0 takes the largest logit, the lowest id among equals
	TopK        int     // keep the k most likely, ties of the last kept; 0: all
	TopP        float32 // keep the fewest, most likely first, that hold this mass; 0 or 1: all
	MinP        float32 // keep those at least this fraction of the most likely; 0: all
	Seed        uint64
	MinPFirst   bool // min-p comes before top-k and top-p, as in vLLM; otherwise after them, as in transformers

	Repetition float64 // divides the positive logits of ids in prompt or completion, multiplies the negative; 0 or 1: none
	Presence   float64 // taken from the logits of ids in the completion
	Frequency  float64 // taken from them once for each time they occur in it
	Bias       []Bias  // added to logits first of all, so that what is divided or multiplied is the sum
}

// A Bias is added to the logit of an id.
type Bias struct {
	ID  int32
	Add float64
}

// A Draw is Params at one step of one completion.
type Draw struct {
	Params
	Sample, Step  uint32  // which completion of the request; which token of it, from 0
	Prompt, Drawn []int32 // what comes before, for the penalties
	Score         bool    // nothing is drawn: report the log-probability of the wanted row's target
	Top           int     // report so many of the most likely ids of the distribution drawn from
	Raw           bool    // report the id's log-probability and rank under the unmodified distribution too
	RawTop        int     // and so many of the most likely ids under that
}

// MaxTop is the largest Top and RawTop.
const MaxTop = 20

// A Scored is an id and its natural log-probability.
type Scored struct {
	ID      int32
	LogProb float32
}

// Uniform is the number that decides d.
func (d Draw) Uniform() float32 { return Uniform(d.Seed, d.Sample, d.Step) }

// Host reports whether drawing needs the whole row of logits on the host. Truncation never changes
// a greedy choice, and is not part of what a greedy choice reports, so temperature 0 does not.
func (p *Params) Host() bool {
	return p.Temperature != 0 && (p.TopK > 0 || p.TopP > 0 && p.TopP < 1 || p.MinP > 0) || p.adjusts()
}

// adjusts reports whether logits are changed before they are tempered.
func (p *Params) adjusts() bool { return p.penalised() || len(p.Bias) > 0 }

// penalised reports whether what was drawn before changes the logits.
func (p *Params) penalised() bool {
	return p.Repetition != 0 && p.Repetition != 1 || p.Presence != 0 || p.Frequency != 0
}

// Check reports the first setting that has no meaning.
func (p *Params) Check() error {
	switch {
	case !(p.Temperature >= 0) || p.Temperature > maxTemperature:
		return fmt.Errorf("temperature %v: want a number of at least 0 (0 is greedy) and at most %v", p.Temperature, float32(maxTemperature))
	case p.TopK < 0:
		return fmt.Errorf("top_k %d: want at least 1, or 0 for all", p.TopK)
	case !(p.TopP >= 0 && p.TopP <= 1):
		return fmt.Errorf("top_p %v: want more than 0 and at most 1", p.TopP)
	case !(p.MinP >= 0 && p.MinP <= 1):
		return fmt.Errorf("min_p %v: want 0 to 1", p.MinP)
	case p.Repetition != 0 && !(p.Repetition >= 1/maxPenalty && p.Repetition <= maxPenalty):
		return fmt.Errorf("repetition_penalty %v: want more than 0 and at most %v (1 is none)", p.Repetition, maxPenalty)
	case !(math.Abs(p.Presence) <= maxPenalty):
		return fmt.Errorf("presence_penalty %v: want a number within ±%v", p.Presence, maxPenalty)
	case !(math.Abs(p.Frequency) <= maxPenalty):
		return fmt.Errorf("frequency_penalty %v: want a number within ±%v", p.Frequency, maxPenalty)
	}
	for _, b := range p.Bias {
		if !(math.Abs(b.Add) <= maxPenalty) {
			return fmt.Errorf("logit_bias of id %d is %v: want a number within ±%v", b.ID, b.Add, maxPenalty)
		}
	}
	return nil
}

// maxTemperature keeps logits / temperature and its reciprocal away from infinity and subnormals.
const maxTemperature = 1e6

// maxPenalty keeps penalised logits finite.
const maxPenalty = 1e6
