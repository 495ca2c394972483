package grpo

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// scenario is one file of the reference numbers, made by TRL.
type scenario struct {
	Scenario   string
	Group      int `json:"num_generations"`
	Lengths    []int
	Mask       [][]float64
	Rewards    []float64
	Advantages map[Scale][]float64
	LogP       [][]float64 `json:"logp"`
	Old        [][]float64 `json:"old_logp"`
	Ref        [][]float64 `json:"ref_logp"`
	Results    []result
}

type result struct {
	Name         string
	Loss         Kind    `json:"loss_type"`
	Level        string  `json:"importance_sampling_level"`
	Beta         float64 `json:"beta"`
	Epsilon      float64 `json:"epsilon"`
	EpsilonHigh  float64 `json:"epsilon_high"`
	Corrected    bool    `json:"use_bias_correction_kl"`
	Delta        *float64
	Old          string `json:"old_logp"`
	Advantages   Scale
	Length       int `json:"max_completion_length"`
	Rows         [2]int
	Accumulation int
	Items        int     `json:"num_items_in_batch"`
	Value        float64 `json:"loss"`
	Metrics      map[string]float64
	Grad         [][]float64 `json:"dloss_dlogp"`
}

func scenarios(t *testing.T) []scenario {
	files, err := filepath.Glob(filepath.Join(modeltest.Shared(t, "goldens", "grpo"), "g*.json"))
	if err != nil || len(files) < 4 {
		t.Fatalf("reference files: %v, %v; want 4 or more", files, err)
	}
	var all []scenario
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var s scenario
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all = append(all, s)
	}
	return all
}

// ours is the objective of a reference result, and whether it is one this package has.
func (r *result) ours() (Config, bool) {
	c := Config{Loss: r.Loss, Advantage: r.Advantages, EpsilonLow: r.Epsilon, EpsilonHigh: r.EpsilonHigh, KL: r.Beta, Corrected: r.Corrected, Length: r.Length}
	if r.Delta != nil {
		c.Delta = *r.Delta
	}
	if r.Level == "sequence" && r.Loss == GRPO {
		c.Loss = GSPO
	}
	return c, c.Check() == nil
}

// unmasked keeps the values of a row whose mask is not 0.
func unmasked(v, mask []float64) []float64 {
	out := []float64{}
	for i, x := range v {
		if mask[i] != 0 {
			out = append(out, x)
		}
	}
	return out
}

func TestAdvantagesMatchTRL(t *testing.T) {
	worst := 0.0
	for _, s := range scenarios(t) {
		var groups [][]float64
		for i := 0; i < len(s.Rewards); i += s.Group {
			groups = append(groups, s.Rewards[i:i+s.Group])
		}
		for _, by := range []Scale{PerGroup, PerBatch, Unscaled} {
			want, ok := s.Advantages[by]
			if !ok {
				t.Fatalf("%s: no advantages by %s", s.Scenario, by)
			}
			got := Advantages(groups, by)
			for i, w := range want {
				worst = max(worst, math.Abs(got[i/s.Group][i%s.Group]-w))
			}
		}
	}
	t.Logf("worst difference %.2g", worst)
	if !(worst < 1e-6) { // TRL's n/(n-1) is float32
		t.Errorf("worst difference %g, want below 1e-6", worst)
	}
}

func TestLossesMatchTRL(t *testing.T) {
	seen, corrected := map[Kind]int{}, 0
	worstLoss, worstGrad, worstMetric := 0.0, 0.0, 0.0
	for _, s := range scenarios(t) {
		for _, r := range s.Results {
			c, ok := r.ours()
			if !ok {
				continue
			}
			seen[c.Loss]++
			if c.Corrected && c.KL != 0 {
				corrected++
			}
			dl, dg, dm := s.compare(c, r)
			if !(dl < 1e-12 && dg < 1e-12 && dm < 1e-6) {
				t.Errorf("%s %s: loss off by %g, gradient by %g, metrics by %g", s.Scenario, r.Name, dl, dg, dm)
			}
			worstLoss, worstGrad, worstMetric = max(worstLoss, dl), max(worstGrad, dg), max(worstMetric, dm)
		}
	}
	t.Logf("results by loss %v; worst difference of a loss %.2g, of a derivative %.2g, of a metric (float32) %.2g", seen, worstLoss, worstGrad, worstMetric)
	if corrected < 4 {
		t.Errorf("only %d results with the KL weighed by the ratio", corrected)
	}
	for _, k := range Kinds {
		if seen[k] < 8 {
			t.Errorf("only %d results of loss %s", seen[k], k)
		}
	}
}

// compare returns the largest differences of the loss, of its derivatives and of the metrics.
func (s *scenario) compare(c Config, r result) (loss, grad, metric float64) {
	k := max(r.Accumulation, 1)
	of := Totals{Rows: (r.Rows[1] - r.Rows[0]) * k, Tokens: r.Items}
	if c.Loss == BNPO { // its denominator is the micro-batch's own
		of.Tokens = 0
		for i := r.Rows[0]; i < r.Rows[1]; i++ {
			of.Tokens += k * len(unmasked(s.LogP[i], s.Mask[i]))
		}
	}
	var sum Terms
	tokens, clippedRows := 0, 0
	for i := r.Rows[0]; i < r.Rows[1]; i++ {
		m := s.Mask[i]
		row := Row{Advantage: s.Advantages[r.Advantages][i], LogProbs: unmasked(s.LogP[i], m), Ref: unmasked(s.Ref[i], m)}
		if r.Old == "given" {
			row.Old = unmasked(s.Old[i], m)
		}
		coef := make([]float64, len(row.LogProbs))
		t := c.Row(coef, row, of)
		sum.Loss, sum.KL, sum.Clipped = sum.Loss+t.Loss, sum.KL+t.KL, sum.Clipped+t.Clipped
		tokens += len(coef)
		if t.Clipped > 0 {
			clippedRows++
		}
		for j, w := range unmasked(r.Grad[i-r.Rows[0]], m) {
			grad = max(grad, math.Abs(coef[j]-w))
		}
	}
	share := float64(sum.Clipped) / float64(tokens)
	if c.Loss == GSPO {
		share = float64(clippedRows) / float64(r.Rows[1]-r.Rows[0])
	}
	for name, w := range r.Metrics {
		switch {
		case strings.HasPrefix(name, "clip_ratio/region"), name == "cispo_clip_ratio":
			metric = max(metric, math.Abs(share-w))
		case name == "kl":
			metric = max(metric, math.Abs(sum.KL/float64(tokens)-w))
		case !strings.HasPrefix(name, "clip_ratio/"):
			panic(fmt.Sprintf("metric %s is compared with nothing", name))
		}
	}
	return math.Abs(sum.Loss - r.Value), grad, metric
}

// The log-probabilities here are those of a real model's completions.
func TestEndToEndLossMatchesTRL(t *testing.T) {
	var e struct {
		Advantages []float64
		LogP       [][]float64 `json:"logp"`
		Old        [][]float64 `json:"old_logp"`
		Ref        [][]float64 `json:"ref_logp"`
		Items      int         `json:"num_items_in_batch"`
		Results    []struct {
			Loss        Kind    `json:"loss_type"`
			Beta        float64 `json:"beta"`
			Epsilon     float64 `json:"epsilon"`
			EpsilonHigh float64 `json:"epsilon_high"`
			Value       float64 `json:"loss"`
		}
	}
	data, err := os.ReadFile(modeltest.Shared(t, "goldens", "grpo", "end_to_end.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for _, r := range e.Results {
		c := Config{Loss: r.Loss, EpsilonLow: r.Epsilon, EpsilonHigh: r.EpsilonHigh, KL: r.Beta}
		sum := 0.0
		for i, lp := range e.LogP {
			row := Row{Advantage: e.Advantages[i], LogProbs: lp, Old: e.Old[i], Ref: e.Ref[i]}
			sum += c.Row(make([]float64, len(lp)), row, Totals{Rows: len(e.LogP), Tokens: e.Items}).Loss
		}
		worst = max(worst, math.Abs(sum-r.Value))
	}
	t.Logf("worst difference of %d losses %.2g", len(e.Results), worst)
	if len(e.Results) != 2 || !(worst < 1e-12) {
		t.Errorf("%d results, worst difference %g", len(e.Results), worst)
	}
}
