package train

import (
	"fmt"
	"math"
)

// A Schedule gives the learning rate of each step: Warmup steps up to Peak, then by Kind over Steps.
type Schedule struct {
	Kind          string // constant, linear or cosine
	Peak          float64
	Warmup, Steps int
}

// Check reports an unknown kind or numbers that make no sense.
func (s Schedule) Check() error {
	switch s.Kind {
	case "constant", "linear", "cosine":
	default:
		return fmt.Errorf("schedule %q is not constant, linear or cosine", s.Kind)
	}
	if !(s.Peak > 0) || math.IsInf(s.Peak, 0) {
		return fmt.Errorf("learning rate %v must be above 0", s.Peak)
	}
	if s.Warmup < 0 || s.Warmup > s.Steps {
		return fmt.Errorf("warm-up of %d steps does not fit into %d", s.Warmup, s.Steps)
	}
	return nil
}

// Rate is the learning rate of step i, from 0; as transformers' schedules, so the first step of a
// warm-up has rate 0.
func (s Schedule) Rate(i int) float64 {
	if i < s.Warmup {
		return s.Peak * float64(i) / float64(s.Warmup)
	}
	if s.Kind == "constant" {
		return s.Peak
	}
	t := float64(i-s.Warmup) / math.Max(1, float64(s.Steps-s.Warmup))
	if s.Kind == "linear" {
		return s.Peak * math.Max(0, 1-t)
	}
	return s.Peak * math.Max(0, 0.5*(1+math.Cos(math.Pi*t)))
}
