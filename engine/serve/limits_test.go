package serve

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/router/openai"
)

// How long an answer may be: what the call says, else 16 tokens of a completion and generation_config.json's of a chat,
// and never more than the context holds.
func TestLimits(t *testing.T) {
	s := &script{texts: []string{strings.Repeat("x", 5000)}}
	host := play(t, s, plainTemplate)
	host.MaxTokens = 21
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	h := &openai.Handler{Models: c}
	prompt := len("user: hi\nassistant:")
	for _, x := range []struct {
		path, fields string
		want         int
	}{
		{"/v1/completions", `"prompt":"p"`, 16}, {"/v1/completions", `"prompt":"p","max_tokens":3`, 3},
		{"/v1/chat/completions", ask1 + `"n":1`, 21}, {"/v1/chat/completions", ask1 + `"max_completion_tokens":4`, 4},
		{"/v1/chat/completions", ask1 + `"max_tokens":30`, 30}, {"/v1/chat/completions", ask1 + `"max_tokens":100000`, context4096 - prompt},
	} {
		if got := ask(t, h, x.path, x.fields); got.Usage.Completion != x.want || *got.Choices[0].Finish != "length" {
			t.Errorf("%s: %d tokens, %s; want %d", x.fields, got.Usage.Completion, *got.Choices[0].Finish, x.want)
		}
	}
}

// Usage is told at the end of a stream, or with every chunk.
func TestUsage(t *testing.T) {
	h := handler(t, &script{texts: []string{"abc", "d"}}, plainTemplate)
	all := events(t, h, "/v1/completions", `"prompt":"p","seed":0,"n":2,"stream_options":{"include_usage":true}`)
	for _, c := range all[:len(all)-1] {
		if c.Usage != nil {
			t.Errorf("usage before the end: %+v", c.Usage)
		}
	}
	last := all[len(all)-1]
	if u := last.Usage; len(last.Choices) != 0 || u.Prompt != 2 || u.Completion != 4+2 || u.Total != 8 {
		t.Errorf("%+v", last)
	}
	all = events(t, h, "/v1/completions", `"prompt":"p","seed":0,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`)
	var counts []int
	for _, c := range all {
		counts = append(counts, c.Usage.Completion)
	}
	same(t, "tokens so far", counts, []int{1, 2, 3, 4, 4})
}

// The pages of a prompt are shared by calls of the same salt only.
func TestSalt(t *testing.T) {
	h := handler(t, &script{texts: []string{"x"}}, plainTemplate)
	for _, c := range []struct {
		salt   string
		cached int
	}{{`"a"`, 0}, {`"a"`, 32}, {`"b"`, 0}, {`null`, 0}, {`"b"`, 32}} {
		r := complete(t, h, `"prompt":"`+strings.Repeat("p", 40)+`","cache_salt":`+c.salt)
		cached := 0
		if d := r.Usage.Details; d != nil {
			cached = d.Cached
		}
		if cached != c.cached {
			t.Errorf("salt %s: %d tokens of the cache, want %d", c.salt, cached, c.cached)
		}
	}
}

// Who is more urgent comes first, whoever came first.
func TestPriority(t *testing.T) {
	s := &script{texts: []string{"first", "second", "third"}, wait: make(chan struct{})}
	host := playFew(t, s, plainTemplate, 1)
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	h := &openai.Handler{Models: c}
	done := make(chan string, 3)
	begin := func(seed int, fields string) {
		go func() { done <- texts(complete(t, h, fmt.Sprintf(`"prompt":"p","seed":%d,%s`, seed, fields)))[0] }()
	}
	begin(0, `"priority":0`)
	s.wait <- struct{}{} // it is under way, and the second step waits
	begin(1, `"priority":2`)
	begin(2, `"priority":1`)
	time.Sleep(100 * time.Millisecond) // both have come
	close(s.wait)
	for range 3 {
		<-done
	}
	var order []uint64
	for _, d := range s.draws {
		order = append(order, d.Seed)
	}
	same(t, "order", slices.Compact(order), []uint64{0, 2, 1})
}

func TestRequestID(t *testing.T) {
	h := handler(t, &script{texts: []string{"x"}}, plainTemplate)
	if r := complete(t, h, `"prompt":"p","request_id":"mine-1"`); r.ID != "cmpl-mine-1" {
		t.Errorf("id %q", r.ID)
	}
	if status, body := post(h, "/v1/completions", `"prompt":"p","request_id":"a b"`); status != 400 || !strings.Contains(body, `"param":"request_id"`) {
		t.Errorf("%d %s", status, body)
	}
}

// Tokens can be written by their ids.
func TestTokensAsIDs(t *testing.T) {
	h := handler(t, &script{texts: []string{"é"}}, plainTemplate)
	lp := complete(t, h, `"prompt":"p","logprobs":1,"return_tokens_as_token_ids":true`).Choices[0].LogProbs
	same(t, "tokens", lp.Tokens, []string{"token_id:195", "token_id:169", "token_id:257"})
	if _, ok := lp.TopLogProbs[0]["token_id:97"]; !ok {
		t.Errorf("%v", lp.TopLogProbs)
	}
}
