package grpo

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/batch"
)

// bigram is a policy small enough to see through: the logits of the next token are a row of a table.
type bigram struct {
	table, grad, start [][]float64
	last               *batch.Batch
	calls              []string
	coefs              []float32 // of all Backward calls since the last Update
}

const letters = 4

func newBigram() *bigram {
	p := &bigram{}
	for range letters {
		p.table = append(p.table, make([]float64, letters))
		p.grad = append(p.grad, make([]float64, letters))
		p.start = append(p.start, make([]float64, letters))
	}
	return p
}

func softmax(logits []float64) []float64 {
	out, sum := make([]float64, len(logits)), 0.0
	for i, l := range logits {
		out[i] = math.Exp(l)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func score(table [][]float64, b *batch.Batch) []float32 {
	out := make([]float32, len(b.Want))
	for i, w := range b.Want {
		out[i] = float32(math.Log(softmax(table[b.Tokens[w]])[b.Targets[i]]))
	}
	return out
}

func (p *bigram) Distributions(b *batch.Batch) (logp, entropy []float32, err error) {
	p.calls, p.last = append(p.calls, "logprobs"), b
	for _, w := range b.Want {
		h := 0.0
		for _, q := range softmax(p.table[b.Tokens[w]]) {
			h -= q * math.Log(q)
		}
		entropy = append(entropy, float32(h))
	}
	return score(p.table, b), entropy, nil
}

func (p *bigram) Reference(b *batch.Batch) ([]float32, error) {
	p.calls = append(p.calls, "reference")
	return score(p.start, b), nil
}

func (p *bigram) Backward(coef []float32) error {
	p.calls, p.coefs = append(p.calls, "backward"), append(p.coefs, coef...)
	for i, w := range p.last.Want {
		from := p.last.Tokens[w]
		for j, q := range softmax(p.table[from]) {
			d := -q
			if int32(j) == p.last.Targets[i] {
				d++
			}
			p.grad[from][j] += float64(coef[i]) * d
		}
	}
	return nil
}

func (p *bigram) Update(lr float32) (float32, error) {
	p.calls = append(p.calls, "update")
	norm := 0.0
	for i, row := range p.grad {
		for j, g := range row {
			norm += g * g
			p.table[i][j] -= float64(lr) * g
			row[j] = 0
		}
	}
	return float32(math.Sqrt(norm)), nil
}

// sampler draws two tokens from the table, or hands out given groups.
type sampler struct {
	policy *bigram
	random *rand.Rand
	given  [][]Rollout
}

func (s *sampler) Sample(_ context.Context, prompts [][]int32, n int) ([][]Rollout, error) {
	if s.given != nil {
		out := s.given[:min(len(prompts), len(s.given))]
		s.given = s.given[len(out):]
		return out, nil
	}
	var groups [][]Rollout
	for _, p := range prompts {
		var g []Rollout
		for range n {
			r := Rollout{Tokens: slices.Clone(p), Prompt: len(p)}
			for range 2 {
				probs := softmax(s.policy.table[r.Tokens[len(r.Tokens)-1]])
				u, id := s.random.Float64(), 0
				for id < letters-1 && u >= probs[id] {
					u -= probs[id]
					id++
				}
				r.Tokens = append(r.Tokens, int32(id))
				r.LogProbs = append(r.LogProbs, float32(math.Log(probs[id])))
			}
			g = append(g, r)
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// follow rewards completions that count up: 1 2 after 0, 2 3 after 1 …
type follow struct{}

func (follow) Prompt(task int32) []int32 { return []int32{task} }

func (follow) Score(_ context.Context, tasks []int32, groups [][]Rollout) error {
	for i, g := range groups {
		for j := range g {
			r := &g[j]
			for k, id := range r.Tokens[r.Prompt:] {
				if id == (tasks[i]+int32(k)+1)%letters {
					r.Reward += 0.5
				}
			}
		}
	}
	return nil
}

// asGiven keeps the rewards the sampler's rollouts came with.
type asGiven struct{}

func (asGiven) Prompt(int) []int32                              { return []int32{0} }
func (asGiven) Score(context.Context, []int, [][]Rollout) error { return nil }

type free struct{ lent int }

func (f *free) Exclusive(_ context.Context, do func() error) error { f.lent++; return do() }

var usual = Config{Loss: GRPO, Advantage: PerGroup, EpsilonLow: 0.2, EpsilonHigh: 0.28}

func TestStepsRaiseTheReward(t *testing.T) {
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			p := newBigram()
			tr := Trainer[int32]{Config: usual, Sampler: &sampler{policy: p, random: rand.New(rand.NewPCG(1, 2))},
				Scorer: follow{}, Policy: p, Device: &free{}, Group: 8, TokensPerBatch: 10}
			tr.Loss, tr.KL, tr.Length = kind, 0.01, 2
			if kind == CISPO {
				tr.EpsilonHigh = 5
			}
			var first, last Stats
			for i := range 120 {
				st, err := tr.Step(t.Context(), []int32{0, 1, 2, 3}, nil, 2)
				if err != nil {
					t.Fatal(err)
				}
				if st.Parity != 0 {
					t.Fatalf("step %d: sampler and trainer differ by %g", i, st.Parity)
				}
				if i == 0 {
					first = st
				}
				last = st
			}
			// Guessing is right for a quarter of the tokens.
			if first.RewardMean > 0.45 || last.RewardMean < 0.8 {
				t.Errorf("reward from %.2f to %.2f; want from about 0.25 to above 0.8", first.RewardMean, last.RewardMean)
			}
			if last.KL <= 0 {
				t.Errorf("divergence %g from the reference after learning", last.KL)
			}
		})
	}
}

// rollout is a completion under the bigram's starting table, where every token has probability 1/4.
func rollout(reward float32, completion ...int32) Rollout {
	r := Rollout{Tokens: append([]int32{0}, completion...), Prompt: 1, Reward: reward}
	for range completion {
		r.LogProbs = append(r.LogProbs, float32(math.Log(0.25)))
	}
	return r
}

// trainer hands out the given groups.
func trainer(c Config, groups ...[]Rollout) (*Trainer[int], *bigram) {
	p := newBigram()
	return &Trainer[int]{Config: c, Sampler: &sampler{given: groups}, Scorer: asGiven{}, Policy: p, Device: &free{},
		Group: len(groups[0]), TokensPerBatch: 100}, p
}

func TestGradientDoesNotDependOnTheBatch(t *testing.T) {
	groups := func() [][]Rollout {
		return [][]Rollout{
			{rollout(1, 1, 2, 3), rollout(0, 1), rollout(0.3)},
			{rollout(0, 3, 3, 3, 3, 3), rollout(0, 2, 1), rollout(0.7, 2)},
		}
	}
	for _, kind := range Kinds {
		c := usual
		c.Loss, c.KL, c.Length = kind, 0.1, 8
		var want []float32
		var loss float64
		for limit := 1; limit <= 20; limit++ {
			tr, p := trainer(c, groups()...)
			tr.TokensPerBatch = limit
			p.table[0][1], p.table[3][3] = 0.3, -0.2 // away from the sampler and the reference
			st, err := tr.Step(t.Context(), []int{0, 0}, nil, 1)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want, loss = p.coefs, st.Loss
			}
			if !slices.Equal(p.coefs, want) || st.Loss != loss {
				t.Errorf("%s: batches of %d tokens change the coefficients or the loss", kind, limit)
			}
		}
		if len(want) != 12 {
			t.Errorf("%s: %d coefficients for 12 tokens", kind, len(want))
		}
	}
}

func TestParityIsTheLargestDifference(t *testing.T) {
	g := []Rollout{rollout(1, 1, 2), rollout(0, 3)}
	lp := &g[0].LogProbs[1]
	*lp = math.Nextafter32(*lp, 0)
	want := math.Abs(float64(*lp) - float64(float32(math.Log(0.25))))
	tr, _ := trainer(usual, g)
	st, err := tr.Step(t.Context(), []int{0}, nil, 1)
	if err != nil || st.Parity != want || want == 0 {
		t.Errorf("parity %g, %v; want %g", st.Parity, err, want)
	}
}

func TestGroupThatAgrees(t *testing.T) {
	groups := func() [][]Rollout {
		return [][]Rollout{{rollout(1, 1, 2), rollout(1, 3)}, {rollout(1, 1), rollout(0, 2)}}
	}
	run := func(c Config) (Stats, *bigram) {
		tr, p := trainer(c, groups()...)
		st, err := tr.Step(t.Context(), []int{0, 0}, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		return st, p
	}
	// Advantages are ±0.5/(√½+1e-4); of 4 completions, the two of one token count.
	adv := 0.5 / (math.Sqrt(0.5) + 1e-4)
	want := []float32{float32(-float64(float32(adv)) / 4), float32(float64(float32(adv)) / 4)}
	st, p := run(usual)
	if !slices.Equal(p.coefs, want) {
		t.Errorf("coefficients %v, want %v", p.coefs, want)
	}
	if !slices.Equal(p.calls, []string{"logprobs", "backward", "update"}) {
		t.Errorf("calls %v", p.calls)
	}
	if st.ZeroVariance != 0.5 || st.RewardMean != 0.75 || st.Tokens != 5 || st.LengthMean != 1.25 ||
		math.Abs(st.RewardStd-math.Sqrt(0.5)/2) > 1e-15 {
		t.Errorf("%+v", st)
	}
	withKL := usual
	withKL.KL = 0.1
	if _, p = run(withKL); len(p.coefs) != 5 || !slices.Equal(p.calls, []string{"reference", "logprobs", "backward", "update"}) {
		t.Errorf("with the KL on: %d coefficients, calls %v", len(p.coefs), p.calls)
	}
}

// As in TRL, a step that teaches nothing is still a step of the optimizer, whose moments go on.
func TestStepWithoutAnyGradient(t *testing.T) {
	tr, p := trainer(usual, []Rollout{rollout(1, 1), rollout(1, 2)}, []Rollout{rollout(0, 1), rollout(0)})
	st, err := tr.Step(t.Context(), []int{0, 0}, nil, 1)
	if err != nil || !slices.Equal(p.calls, []string{"update"}) || st.ZeroVariance != 1 || st.Loss != 0 || st.RewardStd != 0 {
		t.Errorf("%+v, %v, calls %v", st, err, p.calls)
	}
}

func TestRefillReplacesGroupsThatAgree(t *testing.T) {
	dull := func() []Rollout { return []Rollout{rollout(1, 1), rollout(1, 2)} }
	vivid := func(id int32) []Rollout { return []Rollout{rollout(1, id), rollout(0, id)} }
	tr, p := trainer(usual, dull(), vivid(1), dull(), dull(), vivid(2), vivid(3))
	// Three tasks, two of them dull; the spare ones are dull, vivid, then vivid again.
	st, err := tr.Step(t.Context(), []int{0, 0, 0}, []int{0, 0, 0, 0, 0}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if st.Refilled != 3 || st.ZeroVariance != 0.5 || st.Tokens != 12 || len(p.coefs) != 6 {
		t.Errorf("%+v with %d coefficients", st, len(p.coefs))
	}
	// All spare tasks may be dull too: then the step goes on with what it has.
	tr, p = trainer(usual, dull(), vivid(1), dull())
	st, err = tr.Step(t.Context(), []int{0, 0}, []int{0}, 1)
	if err != nil || st.Refilled != 1 || len(p.coefs) != 2 {
		t.Errorf("%+v, %v with %d coefficients", st, err, len(p.coefs))
	}
}

func TestFailedRewardIsNotZero(t *testing.T) {
	broken := rollout(0, 1, 1, 1)
	broken.Failed = true
	broken.Reward = float32(math.NaN()) // whatever it holds is not looked at
	with, a := trainer(usual, []Rollout{rollout(1, 1), broken, rollout(0, 2)})
	without, b := trainer(usual, []Rollout{rollout(1, 1), rollout(0, 2)})
	st, err := with.Step(t.Context(), []int{0}, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := without.Step(t.Context(), []int{0}, nil, 1); err != nil {
		t.Fatal(err)
	}
	if st.Failed != 1 || st.RewardMean != 0.5 || !slices.Equal(a.coefs, b.coefs) {
		t.Errorf("%+v; coefficients %v, without the failed one %v", st, a.coefs, b.coefs)
	}
}

func TestSecondUpdateIsClipped(t *testing.T) {
	tr, p := trainer(usual, []Rollout{rollout(1, 1), rollout(0, 2)})
	tr.Updates = 2
	st, err := tr.Step(t.Context(), []int{0}, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	// The first update carries both ratios over the clip, so the second finds no gradient at all.
	if st.Parity != 0 || st.ClipShare != 0.5 || st.GradNorm != 0 || p.coefs[2] != 0 || p.coefs[3] != 0 {
		t.Errorf("%+v, coefficients %v", st, p.coefs)
	}
}

func TestStepRefuses(t *testing.T) {
	nan := float32(math.NaN())
	edit := func(f func(*Rollout)) []Rollout {
		g := []Rollout{rollout(1, 1), rollout(0, 2)}
		f(&g[1])
		return g
	}
	for want, g := range map[string][]Rollout{
		"reward NaN of completion 1 of prompt 0": edit(func(r *Rollout) { r.Reward = nan }),
		"1 log-probabilities for 2 tokens":       edit(func(r *Rollout) { r.Tokens = append(r.Tokens, 1) }),
		"log-probability NaN of token 0":         edit(func(r *Rollout) { r.LogProbs[0] = nan }),
		"a prompt of 0 of 2 tokens":              edit(func(r *Rollout) { r.Prompt = 0 }),
		"2 masks for 1 tokens":                   edit(func(r *Rollout) { r.Masks = make([][]uint32, 2) }),
		"no reward could be computed of all 2":   {{Prompt: 1, Tokens: []int32{0}, Failed: true}, {Prompt: 1, Tokens: []int32{0}, Failed: true}},
	} {
		tr, p := trainer(usual, g)
		if _, err := tr.Step(t.Context(), []int{0}, nil, 1); err == nil || !strings.Contains(err.Error(), want) || len(p.calls) != 0 {
			t.Errorf("error %v after %v, want one with %q before any call", err, p.calls, want)
		}
	}
	tr, p := trainer(usual, edit(func(*Rollout) {}))
	p.table[0][1] = math.NaN()
	if _, err := tr.Step(t.Context(), []int{0}, nil, 1); err == nil || !strings.Contains(err.Error(), "log-probability NaN") {
		t.Errorf("NaN in the policy: %v", err)
	}
	if tr.Group = 3; !fails(tr, "2 completions of prompt 0, not 3", edit(func(*Rollout) {})) {
		t.Error("a group of the wrong size passed")
	}
	if tr.Group = 1; !fails(tr, "groups of 1", nil) {
		t.Error("groups of one passed")
	}
}

func fails(tr *Trainer[int], want string, g []Rollout) bool {
	tr.Sampler = &sampler{given: [][]Rollout{g}}
	_, err := tr.Step(context.Background(), []int{0}, nil, 1)
	return err != nil && strings.Contains(err.Error(), want)
}

func TestConfigRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		`loss "ppo" is not known: use one of grpo, bnpo, dr_grpo, dapo, cispo, gspo`: {Loss: "ppo", Advantage: PerGroup},
		`advantage "rank"`: {Loss: GRPO, Advantage: "rank"},
		"epsilon low 2":    {Loss: GRPO, Advantage: PerGroup, EpsilonLow: 2},
		"epsilon high NaN": {Loss: GRPO, Advantage: PerGroup, EpsilonHigh: math.NaN()},
		"delta 0.5":        {Loss: GRPO, Advantage: PerGroup, Delta: 0.5},
		"kl -1":            {Loss: GRPO, Advantage: PerGroup, KL: -1},
		`divergence "k4"`:  {Loss: GRPO, Advantage: PerGroup, Kind: "k4"},
		`overlong "cut"`:   {Loss: GRPO, Advantage: PerGroup, Overlong: "cut"},
		"a penalty for":    {Loss: GRPO, Advantage: PerGroup, Overlong: Penalised},
		"set it above 0":   {Loss: DrGRPO, Advantage: PerGroup},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// broken fails in one call.
type broken struct {
	*bigram
	at string
}

var errBroken = errors.New("out of order")

func (b broken) Reference(x *batch.Batch) ([]float32, error) {
	if b.at == "reference" {
		return nil, errBroken
	}
	return b.bigram.Reference(x)
}

func (b broken) Backward(c []float32) error {
	if b.at == "backward" {
		return errBroken
	}
	return b.bigram.Backward(c)
}

func (b broken) Update(lr float32) (float32, error) {
	if b.at == "update" {
		return 0, errBroken
	}
	return b.bigram.Update(lr)
}

func TestPolicyErrorsComeThrough(t *testing.T) {
	for _, at := range []string{"reference", "backward", "update"} {
		c := usual
		c.KL = 0.1
		tr, p := trainer(c, []Rollout{rollout(1, 1), rollout(0, 2)})
		tr.Policy = broken{p, at}
		if _, err := tr.Step(t.Context(), []int{0}, nil, 1); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), at) {
			t.Errorf("%s: error %v", at, err)
		}
	}
}

func TestOverlongCompletions(t *testing.T) {
	long := func() []Rollout {
		cut := rollout(1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
		cut.Truncated = true
		return []Rollout{cut, rollout(0, 2), rollout(1, 1, 1)}
	}
	kept, a := trainer(usual, long())
	st, err := kept.Step(t.Context(), []int{0}, nil, 1)
	if err != nil || len(a.coefs) != 13 || st.Truncated != 1.0/3 || math.Abs(st.Entropy-math.Log(4)) > 1e-7 {
		t.Fatalf("kept: %+v, %v, %d coefficients", st, err, len(a.coefs))
	}
	c := usual
	c.Overlong, c.KL = Masked, 0.1
	masked, b := trainer(c, long())
	if st, err = masked.Step(t.Context(), []int{0}, nil, 1); err != nil {
		t.Fatal(err)
	}
	// Its reward counts in the group and it in the denominators: the others learn what they did.
	if !slices.Equal(b.coefs, a.coefs[10:]) || math.Abs(st.RewardMean-2.0/3) > 1e-12 {
		t.Errorf("masked: %+v, coefficients %v; want %v", st, b.coefs, a.coefs[10:])
	}
	// Of the losses that divide by tokens, those of a masked completion are not among them: 3 are left of 13.
	for _, kind := range []Kind{BNPO, DAPO, CISPO} {
		all, some := usual, usual
		all.Loss, some.Loss, some.Overlong = kind, kind, Masked
		all.EpsilonHigh, some.EpsilonHigh = 5, 5
		kept, a := trainer(all, long())
		masked, b := trainer(some, long())
		for _, tr := range []*Trainer[int]{kept, masked} {
			if _, err := tr.Step(t.Context(), []int{0}, nil, 1); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.coefs) != 3 {
			t.Fatalf("%s: %d coefficients", kind, len(b.coefs))
		}
		for i, c := range b.coefs {
			if want := float64(a.coefs[10+i]) * 13 / 3; math.Abs(float64(c)-want) > 1e-6 {
				t.Errorf("%s: coefficient %v, want %v", kind, c, want)
			}
		}
	}
	c = usual
	c.Overlong, c.Length = Penalised, 10
	penalised, d := trainer(c, long())
	plain := long()
	plain[0].Reward = 0 // at the limit the penalty is 1
	by, e := trainer(usual, plain)
	if st, err = penalised.Step(t.Context(), []int{0}, nil, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := by.Step(t.Context(), []int{0}, nil, 1); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.coefs, e.coefs) || math.Abs(st.RewardMean-2.0/3) > 1e-12 {
		t.Errorf("penalised: %+v, coefficients %v; want %v", st, d.coefs, e.coefs)
	}
}

// The values of the paper: nothing up to 16384 tokens of 20480, then a line down to 1 (DAPO, equation 13).
func TestPenaltyIsTheSoftOverlongPunishment(t *testing.T) {
	c := Config{Overlong: Penalised, Length: 20480}
	for tokens, want := range map[int]float64{0: 0, 16384: 0, 18432: 0.5, 19456: 0.75, 20480: 1} {
		if got := c.penalty(tokens); math.Abs(got-want) > 1e-12 {
			t.Errorf("%d tokens: penalty %v, want %v", tokens, got, want)
		}
	}
}
