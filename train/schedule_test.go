package train

import (
	"math"
	"strings"
	"testing"
)

// The rates are those of transformers' get_constant_schedule_with_warmup, get_linear_schedule_with_warmup and
// get_cosine_schedule_with_warmup (peak 1, 4 steps of warm-up, 12 in all), worked out from their definitions.
func TestSchedule(t *testing.T) {
	for kind, want := range map[string][]float64{
		"constant": {0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1, 1},
		"linear":   {0, 0.25, 0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125},
		"cosine": {0, 0.25, 0.5, 0.75, 1, (1 + math.Cos(math.Pi/8)) / 2, (1 + math.Sqrt2/2) / 2, (1 + math.Cos(3*math.Pi/8)) / 2,
			0.5, (1 - math.Cos(3*math.Pi/8)) / 2, (1 - math.Sqrt2/2) / 2, (1 - math.Cos(math.Pi/8)) / 2},
	} {
		s := Schedule{Kind: kind, Peak: 1, Warmup: 4, Steps: 12}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if got := s.Rate(i); math.Abs(got-w) > 1e-15 {
				t.Errorf("%s, step %d: %v, want %v", kind, i, got, w)
			}
		}
	}
	for want, s := range map[string]Schedule{
		"schedule": {Kind: "step", Peak: 1, Steps: 1}, "learning rate 0": {Kind: "linear", Steps: 1},
		"learning rate NaN": {Kind: "linear", Peak: math.NaN(), Steps: 1}, "warm-up of 3": {Kind: "cosine", Peak: 1, Warmup: 3, Steps: 2},
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", s, err, want)
		}
	}
}
