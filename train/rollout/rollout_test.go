package rollout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/train/grpo"
)

const vocab = 70 // three words of mask

// uniform is a model that finds every id as likely as every other, and remembers what it was asked. Two
// ids are then drawn the same only where their random numbers are, or by chance.
type uniform struct {
	sync.Mutex
	masks  map[place][]uint32
	broken bool
}

// A place is what tells one draw from another.
type place struct {
	temperature  float32
	seed         uint64
	sample, step uint32
}

func (u *uniform) Step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	u.Lock()
	defer u.Unlock()
	if u.broken {
		return nil, errors.New("no current")
	}
	const words = (vocab + 31) / 32
	out := make([]engine.Token, len(draws))
	for i, d := range draws {
		var mask []uint32
		if len(b.Masks) > 0 {
			mask = b.Masks[i*words : (i+1)*words]
		}
		u.masks[place{d.Temperature, d.Seed, d.Sample, d.Step}] = slices.Clone(mask)
		id, lp := sample.Choose(make([]float32, vocab), d, mask, d.Uniform(), &sample.Scratch{})
		out[i] = engine.Token{ID: id, LogProb: lp}
	}
	return out, nil
}

func source(t *testing.T, sequences int) (*Source, *uniform) {
	t.Helper()
	u := &uniform{masks: map[place][]uint32{}}
	e := engine.New(u, kvcache.New(64, 4), engine.Options{Vocab: vocab, Context: 64, TokensPerStep: 16, MaxSequences: sequences})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &Source{Engine: e, Limit: 6, Temperature: 0.5, Vocab: vocab, Seed: 11}, u
}

func draw(t *testing.T, s *Source, prompts [][]int32, n int) [][]grpo.Rollout {
	t.Helper()
	groups, err := s.Sample(t.Context(), prompts, n)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

var prompts = [][]int32{{1, 2, 3}, {4}, {1, 2, 3}}

// A rollout is its prompt, what was drawn and what each token was drawn with: here always 1/vocab.
func TestRollouts(t *testing.T) {
	s, _ := source(t, 8)
	s.Stop = []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	whole, cut := 0, 0
	for i, g := range draw(t, s, prompts, 20) {
		if len(g) != 20 {
			t.Fatalf("%d completions", len(g))
		}
		for _, r := range g {
			n := len(r.Tokens) - r.Prompt
			if !slices.Equal(r.Tokens[:r.Prompt], prompts[i]) || len(r.LogProbs) != n || n < 1 || n > s.Limit || r.Temperature != 0.5 || r.Masks != nil {
				t.Fatalf("%+v", r)
			}
			for j, lp := range r.LogProbs {
				stop := slices.Contains(s.Stop, r.Tokens[r.Prompt+j])
				if math.Abs(float64(lp)+math.Log(vocab)) > 1e-6 || stop && j < n-1 {
					t.Errorf("token %d of %+v", j, r)
				}
			}
			stopped := slices.Contains(s.Stop, r.Tokens[len(r.Tokens)-1])
			if r.Truncated == stopped || r.Truncated && n != s.Limit {
				t.Errorf("truncated is %t: %v", r.Truncated, r.Tokens)
			}
			if stopped {
				whole++
			} else {
				cut++
			}
		}
	}
	if whole == 0 || cut == 0 {
		t.Errorf("%d stopped, %d were cut: the test saw one kind only", whole, cut)
	}
}

// What is drawn is a function of seed, step, call and place, and of nothing else: not of what was drawn
// before or of how many run at once.
func TestSeeds(t *testing.T) {
	s, _ := source(t, 8)
	s.Begin(3)
	first, second := draw(t, s, prompts, 4), draw(t, s, prompts, 4)
	s.Begin(4)
	later := draw(t, s, prompts, 4)
	s.Begin(3)
	if diff := cmp.Diff(first, draw(t, s, prompts, 4)); diff != "" {
		t.Errorf("a step begun again (-was +is):\n%s", diff)
	}

	again, _ := source(t, 2)
	again.Begin(3)
	if diff := cmp.Diff([][][]grpo.Rollout{first, second}, [][][]grpo.Rollout{draw(t, again, prompts, 4), draw(t, again, prompts, 4)}); diff != "" {
		t.Errorf("the same step drawn again (-was +is):\n%s", diff)
	}
	other, _ := source(t, 8)
	other.Seed = 12
	other.Begin(3)

	seen := map[string]string{}
	for name, groups := range map[string][][]grpo.Rollout{"step 3": first, "its second call": second, "step 4": later, "another seed": draw(t, other, prompts, 4)} {
		for i, g := range groups {
			for j, r := range g {
				key, place := fmt.Sprint(r.Tokens[r.Prompt:]), fmt.Sprintf("%s, prompt %d, sample %d", name, i, j)
				if was, ok := seen[key]; ok {
					t.Errorf("%s draws %s as %s does", place, key, was)
				}
				seen[key] = place
			}
		}
	}
}

// The masks of a rollout are those that its tokens were drawn under, and each completion is a choice.
func TestMasks(t *testing.T) {
	s, u := source(t, 8)
	s.Choices, s.Stop = [][]int32{{5, 6}, {5, 69}, {33}, {5, 6, 7}}, []int32{0}
	drawn := map[string]bool{}
	for i, g := range draw(t, s, prompts, 16) {
		seed := mix(mix(mix(s.Seed, 0), 0), uint64(i))
		for j, r := range g {
			completion := r.Tokens[r.Prompt:]
			drawn[fmt.Sprint(completion)] = true
			if len(r.Masks) != len(completion) || r.Truncated {
				t.Fatalf("%+v", r)
			}
			for k, m := range r.Masks {
				d := place{s.Temperature, seed, uint32(j), uint32(k)}
				if want, ok := u.masks[d]; !ok || !slices.Equal(m, want) {
					t.Errorf("prompt %d, sample %d, token %d: mask %x, drawn under %x", i, j, k, m, want)
				}
			}
		}
	}
	want := map[string]bool{"[5 6 0]": true, "[5 69]": true, "[33]": true, "[5 6 7]": true} // 5 6 goes on, so a stop id ends it
	if diff := cmp.Diff(want, drawn); diff != "" {
		t.Errorf("completions (-want +got):\n%s", diff)
	}
}

func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*Source, *uniform){
		"temperature 0":            func(s *Source, _ *uniform) { s.Temperature = 0 },
		"temperature NaN":          func(s *Source, _ *uniform) { s.Temperature = float32(math.NaN()) },
		"rollout: ":                func(s *Source, _ *uniform) { s.Choices = [][]int32{{vocab}} },
		"exceed the context of 64": func(s *Source, _ *uniform) { s.Limit = 64 },
		"no current":               func(_ *Source, u *uniform) { u.broken = true },
		context.Canceled.Error():   nil,
	} {
		s, u := source(t, 8)
		ctx, cancel := context.WithCancel(t.Context())
		if change == nil {
			cancel()
		} else {
			change(s, u)
		}
		if _, err := s.Sample(ctx, prompts, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		cancel()
	}
}
