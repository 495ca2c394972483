package grpo

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/r2-reasoner/r2/model/batch"
)

// completions makes rollouts of a prompt of so many tokens, with completions of so many.
func completions(prompt int, tokens ...int) (g []Rollout) {
	for i, n := range tokens {
		r := Rollout{Prompt: prompt, LogProbs: make([]float32, n), Advantage: 1, Reward: float32(i)}
		for p := range prompt + n {
			r.Tokens = append(r.Tokens, int32(p%letters))
		}
		g = append(g, r)
	}
	return g
}

// A group runs its prompt once: 9 rows, and one for each token of a completion.
func TestGroupRunsItsPromptOnce(t *testing.T) {
	var b batch.Batch
	if n := batch.Pack(&b, sequences(completions(10, 3, 2, 4)), 1000); n != 3 || len(b.Tokens) != 9+3+2+4 || len(b.Want) != 3+2+4 {
		t.Errorf("%d sequences in %d rows, %d wanted", n, len(b.Tokens), len(b.Want))
	}
	other := completions(10, 2)
	other[0].Tokens[4] = 99 // the prompt goes another way there
	if s := sequences(append(completions(10, 2), other...)); s[0].Shared != 0 || s[1].Shared != 4 {
		t.Errorf("%d and %d rows are shared, want 0 and 4", s[0].Shared, s[1].Shared)
	}
	if s := sequences(completions(1, 2, 2)); s[1].Shared != 0 {
		t.Errorf("a prompt of one token is run by each completion, but %d are shared", s[1].Shared)
	}
}

// Rows is room for any group within its bounds, whatever the limit of a batch.
func TestRowsAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prompt, most := rapid.IntRange(1, 1500).Draw(t, "prompt"), rapid.IntRange(1, 1500).Draw(t, "most")
		tokens := rapid.SliceOfN(rapid.IntRange(1, most), 1, 12).Draw(t, "completions")
		seqs := sequences(completions(prompt, tokens...))
		limit := rapid.IntRange(1, 5000).Draw(t, "limit")
		room := max(limit, Rows(prompt, most, len(tokens)))
		var b batch.Batch
		for len(seqs) > 0 {
			seqs = seqs[batch.Pack(&b, seqs, limit):]
			if len(b.Tokens) > room {
				t.Fatalf("a batch of %d rows, there is room for %d", len(b.Tokens), room)
			}
		}
	})
}

// The reference is asked once a step, however many updates there are, and each update is pulled towards it.
func TestReferenceIsAskedOnceAStep(t *testing.T) {
	c := usual
	c.KL = 0.1
	tr, p := trainer(c, []Rollout{rollout(1, 1, 2), rollout(0, 3)}, []Rollout{rollout(0, 1), rollout(1, 2)})
	tr.Updates, tr.TokensPerBatch = 3, 1
	if _, err := tr.Step(t.Context(), []int{0, 0}, nil, 1); err != nil {
		t.Fatal(err)
	}
	count := func(what string) (n int) {
		for _, c := range p.calls {
			if c == what {
				n++
			}
		}
		return n
	}
	if count("reference") != 4 || count("logprobs") != 3*4 || count("update") != 3 {
		t.Errorf("calls %v", p.calls)
	}
	again, q := trainer(c, []Rollout{rollout(1, 1, 2), rollout(0, 3)}, []Rollout{rollout(0, 1), rollout(1, 2)})
	again.Updates, again.TokensPerBatch = 3, 100
	if _, err := again.Step(t.Context(), []int{0, 0}, nil, 1); err != nil || !slices.EqualFunc(p.table, q.table, slices.Equal) {
		t.Errorf("three updates in batches of a rollout and of all differ (%v)", err)
	}
}

// The entropy is the mean of the policy's at the tokens trained on, before the first update: here a prompt's
// distribution is uniform over four letters, and that after letter 1 nearly certain.
func TestEntropyIsThePolicys(t *testing.T) {
	tr, p := trainer(usual, []Rollout{rollout(1, 1, 2), rollout(0, 3)})
	p.table[1][2] = 50
	tr.Updates = 2
	st, err := tr.Step(t.Context(), []int{0}, nil, 1)
	if want := 2 * math.Log(4) / 3; err != nil || math.Abs(st.Entropy-want) > 1e-6 {
		t.Errorf("entropy %v, want %v (%v)", st.Entropy, want, err)
	}
}
