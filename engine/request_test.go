package engine

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/sample"
)

// A request that has no meaning, or cannot fit, is refused at once with one clear error.
func TestRefused(t *testing.T) {
	o := Options{Vocab: testVocab, Context: 20, Adapters: 2}
	r := newRig(t, o, 3, 4)
	nan := float32(math.NaN())
	ok := Request{Prompt: seq(0, 3), Samples: 1, Limit: 4}
	for _, c := range []struct {
		change func(*Request)
		want   string
	}{
		{func(r *Request) { r.Prompt = nil }, "prompt: it is empty"},
		{func(r *Request) { r.Samples = 0 }, "samples 0: want at least 1"},
		{func(r *Request) { r.Samples = -3 }, "samples -3"},
		{func(r *Request) { r.Limit = -1 }, "limit -1"},
		{func(r *Request) { r.Limit = 0 }, "limit 0: there is nothing to do"},
		{func(r *Request) { r.Limit, r.PromptLogProbs, r.Samples = 0, true, 2 }, "limit 0 with 2 samples"},
		{func(r *Request) { r.Limit = 18 }, "prompt of 3 tokens and limit of 18 exceed the context of 20"},
		{func(r *Request) { r.Limit = math.MaxInt }, "exceed the context of 20"},
		{func(r *Request) { r.Limit = 11 }, "need 4 cache pages of 4 tokens, there are 3"},
		{func(r *Request) { r.Prompt = []int32{0, testVocab} }, "prompt: token 1 has id 37, the vocabulary has 37"},
		{func(r *Request) { r.Prompt = []int32{-1} }, "prompt: token 0 has id -1"},
		{func(r *Request) { r.Stop = []int32{99} }, "stop: entry 0 has id 99"},
		{func(r *Request) { r.Adapter = 3 }, "adapter 3: there is no such adapter"},
		{func(r *Request) { r.Adapter = -1 }, "adapter -1"},
		{func(r *Request) { r.Sampling.Temperature = -0.1 }, "temperature -0.1"},
		{func(r *Request) { r.Sampling.Temperature = nan }, "temperature NaN"},
		{func(r *Request) { r.Sampling.TopP = 1.1 }, "top_p 1.1: want more than 0 and at most 1"},
		{func(r *Request) { r.Sampling.TopK = -1 }, "top_k -1"},
		{func(r *Request) { r.Sampling.MinP = nan }, "min_p NaN"},
		{func(r *Request) { r.Sampling.Repetition = -1 }, "repetition_penalty -1"},
		{func(r *Request) { r.Sampling.Bias = []sample.Bias{{ID: 37, Add: 1}} }, "logit_bias: entry 0 has id 37"},
		{func(r *Request) { r.Allowed = []int32{} }, "allowed_token_ids: the list is empty"},
		{func(r *Request) { r.Allowed = []int32{1, -2} }, "allowed_token_ids: entry 1 has id -2"},
		{func(r *Request) { r.BadWords = [][]int32{{1}, {}} }, "bad_words: entry 1 is empty"},
		{func(r *Request) { r.BadWords = [][]int32{{1, 40}} }, "bad_words: entry 0: token 1 has id 40"},
		{func(r *Request) { r.Allowed, r.BadWords = []int32{5}, [][]int32{{5}} }, "together leave no token to draw"},
		{func(r *Request) { r.Allowed, r.Stop, r.MinTokens = []int32{5}, []int32{5}, 1 }, "together leave no token to draw"},
		{func(r *Request) { r.MinTokens = 5 }, "min_tokens 5: want 0 to the limit of 4"},
		{func(r *Request) { r.MinTokens, r.Choices = 1, [][]int32{{1}} }, "min_tokens 1 with choices or a form"},
		{func(r *Request) { r.Top = 21 }, "top 21: want 0 to 20"},
		{func(r *Request) { r.RawTop = -1 }, "raw top -1"},
		{func(r *Request) { r.PromptTop = 3 }, "without prompt log-probabilities"},
		{func(r *Request) { r.Choices = [][]int32{} }, "choices: there are none"},
		{func(r *Request) { r.Choices = [][]int32{{1}, {}} }, "choices: choice 1 is empty"},
		{func(r *Request) { r.Choices = [][]int32{{99}} }, "choices: choice 0 has token 99"},
		{func(r *Request) { r.Choices = [][]int32{{1}, {1, 2}} }, "begins with choice 0"},
		{func(r *Request) { r.Choices = [][]int32{seq(0, 5)} }, "the longest has 5 tokens, the limit is 4"},
	} {
		req := ok
		c.change(&req)
		_, err := r.collect(t.Context(), req)
		if err == nil || !strings.HasPrefix(err.Error(), "engine: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	r.want(t, ok)
	if r.fake.steps != ok.Limit {
		t.Errorf("%d steps for one request of %d tokens", r.fake.steps, ok.Limit)
	}
	ok.Limit = 10 // exactly fills 3 pages: the last token is never stored
	r.want(t, ok)
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Vocab: 3}, {Context: 3}, {Vocab: 3, Context: 3, MaxSequences: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v passes", o)
				}
			}()
			New(nil, kvcache.New(1, 1), o)
		}()
	}
}

func TestScoreOnly(t *testing.T) {
	for _, n := range []int{1, 2, 9, 30} {
		r := newRig(t, Options{Vocab: testVocab, Context: 64, TokensPerStep: 7, MaxSequences: 3}, 8, 4)
		req := Request{Prompt: seq(4, n), Samples: 1, PromptLogProbs: true}
		r.want(t, req)
		if s := r.Stats(); s.Drawn != 0 || s.Scored != int64(n-1) || s.Tokens != int64(n-1) {
			t.Errorf("prompt of %d: %+v", n, s)
		}
	}
}

// A choice is all that can be drawn, and its mask is in the log-probability, beside requests without.
func TestChoices(t *testing.T) {
	r := newRig(t, Options{Vocab: testVocab, Context: 64}, 40, 4)
	choices := [][]int32{{1, 2, 3}, {1, 2, 4}, {30}, {30, 36, 1}}
	req := Request{Prompt: seq(0, 9), Samples: 40, Limit: 5, Stop: []int32{9}, Choices: choices, Sampling: warm}
	go func() {
		for range r.Generate(t.Context(), Request{Prompt: seq(5, 5), Samples: 1, Limit: 50, Sampling: warm}) {
		}
	}()
	r.want(t, req)
	got, err := r.collect(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	count := make([]int, len(choices))
	for _, events := range got {
		var ids []int32
		for _, e := range events {
			ids = append(ids, e.Token.ID)
		}
		if ids[len(ids)-1] == 9 {
			ids = ids[:len(ids)-1]
		}
		i := slices.IndexFunc(choices, func(c []int32) bool { return slices.Equal(c, ids) })
		if i < 0 || events[len(events)-1].Done != Stop {
			t.Fatalf("%v, %v", ids, events[len(events)-1].Done)
		}
		count[i]++
	}
	if slices.Contains(count, 0) {
		t.Errorf("drawn %v times of 40", count)
	}
}
