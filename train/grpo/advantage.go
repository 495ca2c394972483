package grpo

import (
	"fmt"
	"math"
)

// A Scale says what an advantage, reward minus the group's mean, is divided by.
type Scale string

const (
	PerGroup Scale = "group" // the standard deviation of the group's rewards
	PerBatch Scale = "batch" // that of all rewards of the step
	Unscaled Scale = "none"  // nothing (Liu et al. 2025)
)

// flat is added to a standard deviation before dividing by it.
const flat = 1e-4

// Advantages returns (reward - mean of its group) / (std + 1e-4), std with n-1 in the denominator.
// A group whose rewards agree gets zeros.
func Advantages(groups [][]float64, by Scale) [][]float64 {
	var all []float64
	for _, g := range groups {
		all = append(all, g...)
	}
	spread := deviation(all)
	out := make([][]float64, len(groups))
	for i, g := range groups {
		out[i] = make([]float64, len(g))
		if !varied(g) {
			continue
		}
		m, div := mean(g), 1.0
		switch by {
		case PerGroup:
			div = deviation(g) + flat
		case PerBatch:
			div = spread + flat
		case Unscaled:
		default:
			panic(fmt.Sprintf("grpo: advantages by %q", by))
		}
		for j, r := range g {
			out[i][j] = (r - m) / div
		}
	}
	return out
}

// varied reports whether the values differ at all: only then does a group teach anything.
func varied(v []float64) bool {
	for _, x := range v {
		if x != v[0] {
			return true
		}
	}
	return false
}

// mean is 0 for no values.
func mean(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}

// deviation is the standard deviation with n-1 in the denominator, 0 for fewer than two values.
func deviation(v []float64) float64 {
	if len(v) < 2 {
		return 0
	}
	m, s := mean(v), 0.0
	for _, x := range v {
		s += (x - m) * (x - m)
	}
	return math.Sqrt(s / float64(len(v)-1))
}
