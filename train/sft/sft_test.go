package sft

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// table is a policy whose log-probability of a token is looked up by its position and id.
type table struct {
	logp    func(position, id int32) float32
	targets []int32
	rows    int
	coefs   []float32
	updates int
	fail    string
}

var errTable = errors.New("table broken")

func (p *table) LogProbs(b *batch.Batch) ([]float32, error) {
	if p.fail == "forward" {
		return nil, errTable
	}
	out := make([]float32, len(b.Want))
	for i, w := range b.Want {
		out[i] = p.logp(b.Positions[w]+1, b.Targets[i])
	}
	p.targets, p.rows = append(p.targets, b.Targets...), p.rows+len(b.Tokens)
	return out, nil
}

func (p *table) Backward(coef []float32) error {
	if p.fail == "backward" {
		return errTable
	}
	p.coefs = append(p.coefs, coef...)
	return nil
}

func (p *table) Update(float32) (float32, error) {
	if p.fail == "update" {
		return 0, errTable
	}
	p.updates++
	return 3, nil
}

func TestLossMatchesTheReference(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(modeltest.Shared(t, "goldens"), "*", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, f := range files {
		var g struct {
			SFT *struct {
				Batch []struct {
					IDs    []int32
					Prompt int `json:"prompt_len"`
				}
				Loss float64
				NLL  [][]float64 `json:"nll_per_target_token"`
			}
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &g); err != nil {
			t.Fatal(err)
		}
		if g.SFT == nil {
			continue
		}
		known := map[[2]int32]float32{}
		var examples []Example
		n := 0
		for i, s := range g.SFT.Batch {
			examples = append(examples, Example{Tokens: s.IDs, Prompt: s.Prompt})
			for j, nll := range g.SFT.NLL[i] {
				known[[2]int32{int32(s.Prompt + j), s.IDs[s.Prompt+j]}] = float32(-nll)
				n++
			}
		}
		p := &table{logp: func(pos, id int32) float32 { return known[[2]int32{pos, id}] }}
		st, err := Step(p, examples, 8, 1)
		if err != nil {
			t.Fatal(err)
		}
		if d := math.Abs(st.Loss - g.SFT.Loss); !(d < 1e-6) || st.Tokens != n || len(known) != n {
			t.Errorf("%s: loss off by %g, %d tokens for %d", f, d, st.Tokens, n)
		}
		compared++
	}
	if compared < 5 {
		t.Errorf("%d reference cases compared, want at least 5", compared)
	}
}

func TestStepDoesNotDependOnTheBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		examples := rapid.SliceOfN(rapid.Custom(anyExample), 1, 8).Draw(t, "examples")
		examples = append(examples, Example{Tokens: []int32{1, 2}})
		logp := func(pos, id int32) float32 { return -float32(pos) - 1/float32(id+1) }
		whole, parts := &table{logp: logp}, &table{logp: logp}
		a, errA := Step(whole, examples, 1<<20, 1)
		b, errB := Step(parts, examples, rapid.IntRange(1, 30).Draw(t, "limit"), 1)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a != b || !slices.Equal(whole.coefs, parts.coefs) || !slices.Equal(whole.targets, parts.targets) {
			t.Fatalf("%+v and %+v", a, b)
		}
		sum, n := 0.0, 0 // by the definition
		for _, e := range examples {
			for i := 1; i < len(e.Tokens); i++ {
				if e.Mask != nil && e.Mask[i] || e.Mask == nil && i >= e.Prompt {
					sum -= float64(logp(int32(i), e.Tokens[i]))
					n++
				}
			}
		}
		if a.Tokens != n || math.Abs(a.Loss-sum/float64(n)) > 1e-12*sum || a.GradNorm != 3 || whole.updates != 1 {
			t.Fatalf("%+v; the mean of %d is %g", a, n, sum/float64(n))
		}
		for _, c := range whole.coefs {
			if c != float32(-1/float64(n)) {
				t.Fatalf("coefficient %g of %d tokens", c, n)
			}
		}
		limit, given, longest := rapid.IntRange(1, 30).Draw(t, "limit of the evaluation"), parts.rows, 0
		ev, err := Evaluate(parts, func(yield func(Example, error) bool) {
			for _, e := range examples {
				if held := given - parts.rows; held > max(limit, longest) {
					t.Fatalf("%d rows are held, of %d that a pass runs", held, limit)
				}
				if s, err := e.sequence(); err == nil {
					given, longest = given+s.Rows(), max(longest, s.Rows())
				}
				if !yield(e, nil) {
					return
				}
			}
		}, limit)
		if err != nil || ev.Loss != a.Loss || ev.Tokens != n || parts.updates != 1 || len(parts.coefs) != n {
			t.Fatalf("evaluation %+v, %v", ev, err)
		}
	})
}

func anyExample(t *rapid.T) Example {
	e := Example{Tokens: rapid.SliceOfN(rapid.Int32Range(0, 50), 0, 12).Draw(t, "tokens")}
	if rapid.Bool().Draw(t, "masked") {
		e.Mask = rapid.SliceOfN(rapid.Bool(), len(e.Tokens), len(e.Tokens)).Draw(t, "mask")
	} else {
		e.Prompt = rapid.IntRange(0, len(e.Tokens)).Draw(t, "prompt")
	}
	return e
}

func TestStepRefuses(t *testing.T) {
	fine := []Example{{Tokens: []int32{1, 2}}}
	minus := func(int32, int32) float32 { return -1 }
	for want, c := range map[string]struct {
		p        *table
		examples []Example
		limit    int
	}{
		"example 1: a mask of 1 for 2 tokens":     {&table{logp: minus}, append(fine, Example{Tokens: []int32{1, 2}, Mask: []bool{true}}), 8},
		"example 0: a prompt of 3 of 2 tokens":    {&table{logp: minus}, []Example{{Tokens: []int32{1, 2}, Prompt: 3}}, 8},
		"nothing to learn":                        {&table{logp: minus}, []Example{{Tokens: []int32{1}}, {}}, 8},
		"0 tokens a batch":                        {&table{logp: minus}, fine, 0},
		"log-probability NaN of token 2 at row 0": {&table{logp: func(int32, int32) float32 { return float32(math.NaN()) }}, fine, 8},
		"sft: forward: table broken":              {&table{logp: minus, fail: "forward"}, fine, 8},
		"sft: backward: table broken":             {&table{logp: minus, fail: "backward"}, fine, 8},
		"sft: update: table broken":               {&table{logp: minus, fail: "update"}, fine, 8},
	} {
		_, err := Step(c.p, c.examples, c.limit, 1)
		if err == nil || !strings.Contains(err.Error(), want) || c.p.updates != 0 {
			t.Errorf("error %v after %d updates, want %q", err, c.p.updates, want)
		}
		if c.p.fail == "backward" || c.p.fail == "update" {
			continue
		}
		_, err = Evaluate(c.p, func(yield func(Example, error) bool) {
			for _, e := range c.examples {
				if !yield(e, nil) {
					return
				}
			}
		}, c.limit)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("evaluation: error %v, want %q", err, want)
		}
	}
}

// What goes wrong with the examples ends an evaluation.
func TestEvaluateEndsWithItsExamples(t *testing.T) {
	p := &table{logp: func(int32, int32) float32 { return -1 }}
	_, err := Evaluate(p, func(yield func(Example, error) bool) {
		if yield(Example{Tokens: []int32{1, 2}}, nil) {
			yield(Example{}, errTable)
		}
	}, 8)
	if !errors.Is(err, errTable) {
		t.Error(err)
	}
}
