// Package sample draws tokens: the settings of a request, the counter-based random numbers that make a
// draw a function of (seed, sample, step), the draw from logits on the host, and the masks of choices.
package sample

import "fmt"

// Params is how a request wants its tokens drawn. The zero value is greedy.
type Params struct {
	Temperature float32 // divides the logits; 0 takes the largest logit, the lowest id among equals
	TopK        int     // keep the k most likely, ties of the last kept; 0: all
	TopP        float32 // keep the fewest, most likely first, that hold this mass; 0 or 1: all
	MinP        float32 // keep those at least this fraction of the most likely; 0: all
	Seed        uint64
}

// A Draw is Params at one step of one completion.
type Draw struct {
	Params
	Sample, Step uint32 // which completion of the request; which token of it, from 0
	Score        bool   // nothing is drawn: report the log-probability of the wanted row's target
}

// Uniform is the number that decides d.
func (d Draw) Uniform() float32 { return Uniform(d.Seed, d.Sample, d.Step) }

// Host reports whether drawing needs the whole row of logits on the host. Truncation never changes
// a greedy choice, and is not part of what a greedy choice reports, so temperature 0 does not.
func (p Params) Host() bool {
	return p.Temperature != 0 && (p.TopK > 0 || p.TopP > 0 && p.TopP < 1 || p.MinP > 0)
}

// Check reports the first setting that has no meaning.
func (p Params) Check() error {
	switch {
	case !(p.Temperature >= 0) || p.Temperature > maxTemperature:
		return fmt.Errorf("temperature %v: want a number of at least 0 (0 is greedy) and at most %v", p.Temperature, float32(maxTemperature))
	case p.TopK < 0:
		return fmt.Errorf("top_k %d: want at least 1, or 0 for all", p.TopK)
	case !(p.TopP >= 0 && p.TopP <= 1):
		return fmt.Errorf("top_p %v: want more than 0 and at most 1", p.TopP)
	case !(p.MinP >= 0 && p.MinP <= 1):
		return fmt.Errorf("min_p %v: want 0 to 1", p.MinP)
	}
	return nil
}

// maxTemperature keeps logits / temperature and its reciprocal away from infinity and subnormals.
const maxTemperature = 1e6
