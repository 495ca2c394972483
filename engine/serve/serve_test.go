package serve

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/router/openai"
)

const ask1 = `"messages":[{"role":"user","content":"hi"}],`

// Where an answer ends, what of the end is in its text, and what it says of it, whole and streamed: one byte is one
// token, so every stop string begins and ends inside the stream, and none of its beginning leaks.
func TestEnds(t *testing.T) {
	h := handler(t, &script{texts: []string{"one €two three"}}, plainTemplate)
	for _, c := range []struct{ fields, text, finish, stop string }{
		{``, "one €two three", "stop", "<nil>"},
		{`"max_tokens":5,`, "one €", "length", "<nil>"},
		{`"stop":"two",`, "one €", "stop", "two"},
		{`"stop":["x","e t","two"],`, "one €", "stop", "two"},
		{`"stop":["€"],"include_stop_str_in_output":true,`, "one €", "stop", "€"},
		{`"stop":["two","e €"],`, "on", "stop", "e €"},
		{`"stop":["two thrXX"],`, "one €two three", "stop", "<nil>"},
		{`"stop_token_ids":[119],`, "one €t", "stop", "119"}, // w
		{`"stop_token_ids":[119],"include_stop_str_in_output":true,`, "one €tw", "stop", "119"},
		{`"stop":["one","three"],"min_tokens":3,`, "one €two ", "stop", "three"},
		{`"stop_token_ids":[101],"min_tokens":3,`, "on\x00 €two thr", "stop", "101"}, // the first e cannot be drawn
		{`"ignore_eos":true,"max_tokens":17,`, "one €two three", "length", "<nil>"},
		{`"ignore_eos":true,"max_tokens":15,"skip_special_tokens":false,`, "one €two three</s>", "length", "<nil>"},
	} {
		for path, prompt := range map[string]string{"/v1/completions": `"prompt":"p"`, "/v1/chat/completions": strings.TrimSuffix(ask1, ",")} {
			r := ask(t, h, path, c.fields+more(c.fields)+prompt)
			ch := r.Choices[0]
			if got := texts(r)[0]; got != c.text || *ch.Finish != c.finish || fmt.Sprint(ch.Stop) != c.stop {
				t.Errorf("%s %s: %q %s %v, want %q %s %s", path, c.fields, got, *ch.Finish, ch.Stop, c.text, c.finish, c.stop)
			}
			text, finish, stop, _ := streamed(t, h, path, c.fields+more(c.fields)+prompt)
			if text != c.text || finish != c.finish || fmt.Sprint(stop) != c.stop {
				t.Errorf("%s %s streamed: %q %s %v, want %q %s %s", path, c.fields, text, finish, stop, c.text, c.finish, c.stop)
			}
		}
	}
}

// more is a max_tokens where there is none: a completion's is 16 by default.
func more(fields string) string {
	if strings.Contains(fields, "max_tokens") {
		return ""
	}
	return `"max_tokens":30,`
}

// What is streamed before a stop string is certain: its beginning is held back until it is none.
func TestHeldBack(t *testing.T) {
	h := handler(t, &script{texts: []string{"abcabd!"}}, plainTemplate)
	_, _, _, parts := streamed(t, h, "/v1/completions", `"prompt":"p","stop":"abd"`)
	same(t, "parts", parts, []string{"abc"})
	_, _, _, parts = streamed(t, h, "/v1/completions", `"prompt":"p","stop":"abx"`)
	same(t, "parts", parts, []string{"abc", "abd", "!"})
}

// Prompts are texts, ids, or lists of either; each has its answers, in order.
func TestPrompts(t *testing.T) {
	s := &script{texts: []string{"zero", "one", "two"}}
	h := handler(t, s, plainTemplate)
	for _, c := range []struct {
		fields string
		want   []string
		in     int
		ids    [][]int32
	}{
		{`"prompt":"ab"`, []string{"zero"}, 3, [][]int32{{begin, 'a', 'b'}}},
		{`"prompt":"ab","add_special_tokens":false`, []string{"zero"}, 2, [][]int32{{'a', 'b'}}},
		{`"prompt":["a","bcd"]`, []string{"zero", "zero"}, 6, [][]int32{{begin, 'a'}, {begin, 'b', 'c', 'd'}}},
		{`"prompt":[97,98]`, []string{"zero"}, 2, [][]int32{{'a', 'b'}}},
		{`"prompt":[[97],[98,99]],"n":2`, []string{"zero", "one", "zero", "one"}, 3, [][]int32{{'a'}, nil, {'b', 'c'}, nil}},
		{`"prompt":"abcdef","truncate_prompt_tokens":2`, []string{"zero"}, 2, [][]int32{{'e', 'f'}}},
		{`"prompt":"abcdef","truncate_prompt_tokens":-1`, []string{"zero"}, 7, [][]int32{{begin, 'a', 'b', 'c', 'd', 'e', 'f'}}},
		{`"prompt":"` + strings.Repeat("a", 5000) + `","truncate_prompt_tokens":-1,"max_tokens":8`, []string{"zero"}, 4088, nil},
	} {
		r := complete(t, h, `"return_token_ids":true,"seed":0,`+c.fields)
		same(t, c.fields, texts(r), c.want)
		if r.Usage.Prompt != c.in {
			t.Errorf("%.60s: %d prompt tokens, want %d", c.fields, r.Usage.Prompt, c.in)
		}
		for i, ids := range c.ids {
			same(t, c.fields, r.Choices[i].PromptIDs, ids)
		}
		same(t, c.fields+" token ids", r.Choices[0].IDs, []int32{'z', 'e', 'r', 'o', end})
	}
}

// The n-th answer is the one that a call with the seed after the n-th gives alone, and without a seed no two calls are
// given the same.
func TestSeeds(t *testing.T) {
	s := &script{texts: []string{"a", "b", "c", "d", "e", "f", "g"}}
	h := handler(t, s, plainTemplate)
	same(t, "n", texts(complete(t, h, `"prompt":"p","seed":5,"n":4`)), []string{"f", "g", "a", "b"})
	for range 3 {
		complete(t, h, `"prompt":"p"`)
	}
	seeds := map[uint64]bool{}
	for _, d := range s.draws {
		seeds[d.Seed] = true
	}
	if len(seeds) != 4+3 {
		t.Errorf("%d seeds of 4 answers and 3 calls", len(seeds))
	}
}

// The best of those drawn are the ones of the highest log-probability a token, and all of them count.
func TestBestOf(t *testing.T) {
	// of n tokens (the end is one) of seed s the mean is -(n+1)/16 - s/1000
	s := &script{texts: []string{"aaaa", "bb", "c", "dd", "eeeee"}}
	h := handler(t, s, plainTemplate)
	r := complete(t, h, `"prompt":"p","seed":0,"n":3,"best_of":5,"logprobs":0`)
	same(t, "best", texts(r), []string{"c", "bb", "dd"})
	if u := r.Usage; u.Prompt != 2 || u.Completion != 5+3+2+3+6 {
		t.Errorf("usage %+v", u)
	}
	if r.Choices[1].Index != 1 || *r.Choices[2].LogProbs.TokenLogProbs[0] != -0.125-0.003 {
		t.Errorf("%+v", r.Choices[2].LogProbs)
	}
	status, body := post(h, "/v1/completions", `"prompt":"p","n":1,"best_of":2,"stream":true`)
	if status != 400 || !strings.Contains(body, `"param":"best_of"`) {
		t.Errorf("%d %s", status, body)
	}
}

// Log-probabilities of both endpoints: of the tokens drawn, the likeliest beside them, those of the unmodified
// distribution on request, and where each token stands in the text.
func TestLogProbs(t *testing.T) {
	h := handler(t, &script{texts: []string{"a€b"}}, plainTemplate)
	lp := complete(t, h, `"prompt":"p","seed":0,"logprobs":2,"raw_logprobs":true`).Choices[0].LogProbs
	same(t, "tokens", lp.Tokens, []string{"a", "€", "b", "</s>"})
	same(t, "offsets", lp.TextOffset, []int{0, 1, 2, 3})
	for i, x := range lp.TokenLogProbs {
		if want := -float32(i+1) / 8; *x != want || *lp.Raw[i] != -float32(i+1) {
			t.Errorf("token %d: %v and %v raw, want %v and %d", i, *x, *lp.Raw[i], want, -(i + 1))
		}
	}
	if top := lp.TopLogProbs[1]; len(top) != 3 || top["a"] != -0.25 || top["b"] != -0.5 || top["€"] != -0.25 {
		t.Errorf("top %v", top)
	}
	if lp := complete(t, h, `"prompt":"p","logprobs":0`).Choices[0].LogProbs; lp.TopLogProbs != nil || lp.Raw != nil || len(lp.Tokens) != 4 {
		t.Errorf("%+v", lp)
	}
	c := chat(t, h, ask1+`"seed":0,"logprobs":true,"top_logprobs":1,"raw_logprobs":true`).Choices[0].LogProbs.Content
	if len(c) != 4 || c[1].Token != "€" || c[1].LogProb != -0.25 || *c[1].Raw != -2 || !slices.Equal(c[1].Bytes, []int{0xE2, 0x82, 0xAC}) ||
		len(c[1].Top) != 1 || c[1].Top[0].Token != "a" || c[1].Top[0].LogProb != -0.25 {
		t.Errorf("%+v", c)
	}
	var got []string
	for _, r := range events(t, h, "/v1/completions", `"prompt":"p","logprobs":0,"n":2`) {
		if l := r.Choices[0].LogProbs; r.Choices[0].Index == 1 && l != nil {
			got = append(got, fmt.Sprint(l.Tokens, l.TextOffset))
		}
	}
	same(t, "streamed", got, []string{"[a] [0]", "[€] [1]", "[b] [2]", "[</s>] [3]"})
}

// A prompt can be scored and said again; nothing need be drawn.
func TestEcho(t *testing.T) {
	h := handler(t, &script{texts: []string{"xy"}}, plainTemplate)
	r := complete(t, h, `"prompt":"ab","echo":true,"logprobs":1,"seed":0`)
	lp := r.Choices[0].LogProbs
	same(t, "text", texts(r), []string{"abxy"})
	same(t, "tokens", lp.Tokens, []string{"<s>", "a", "b", "x", "y", "</s>"})
	if lp.TokenLogProbs[0] != nil || lp.TopLogProbs[0] != nil || *lp.TokenLogProbs[1] != -0.097 || *lp.TokenLogProbs[3] != -0.125 {
		t.Errorf("%+v", lp)
	}
	if top := lp.TopLogProbs[2]; len(top) != 2 || top["b"] != -0.098 || top["\x00"] != 0 {
		t.Errorf("top %v", top)
	}
	r = complete(t, h, `"prompt":"ab","echo":true,"logprobs":0,"max_tokens":0`)
	same(t, "prompt only", texts(r), []string{"ab"})
	if l := r.Choices[0].LogProbs; len(l.Tokens) != 3 || r.Usage.Completion != 0 || *r.Choices[0].Finish != "length" {
		t.Errorf("%+v", r)
	}
	same(t, "neither", texts(complete(t, h, `"prompt":"ab","echo":true,"max_tokens":0`)), []string{"ab"})
	text, _, _, _ := streamed(t, h, "/v1/completions", `"prompt":"ab","echo":true`)
	same(t, "streamed", []string{text}, []string{"abxy"})
	same(t, "a chat's", texts(chat(t, h, `"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"so "}],"continue_final_message":true,"echo":true`)), []string{"so xy"})
	same(t, "a chat's own", texts(chat(t, h, ask1+`"echo":true`)), []string{"xy"})
}

func TestPromptLogProbs(t *testing.T) {
	h := handler(t, &script{texts: []string{"xy"}}, plainTemplate)
	check := func(list []map[string]openai.PromptLogProb, n int) {
		t.Helper()
		if len(list) != n || list[0] != nil {
			t.Fatalf("%d entries, want %d, the first null: %v", len(list), n, list)
		}
		if e := list[1]["97"]; e.LogProb != -0.097 || e.Rank != 98 || e.Token != "a" {
			t.Errorf("%+v", list[1])
		}
		if e := list[1]["1"]; len(list[1]) != 3 || e.LogProb != -0.001 || e.Rank != 2 {
			t.Errorf("%+v", list[1])
		}
	}
	r := complete(t, h, `"prompt":"ab","prompt_logprobs":2,"n":2`)
	check(r.Choices[0].PromptLogProbs, 3)
	if r.Choices[1].PromptLogProbs != nil {
		t.Error("the prompt is scored twice")
	}
	chatted := chat(t, h, `"messages":[{"role":"user","content":"x"}],"prompt_logprobs":0,"max_tokens":0`)
	if n := len("user: x\nassistant:"); len(chatted.PromptLogProbs) != n || chatted.PromptLogProbs[1]["115"].Token != "s" {
		t.Errorf("%v", chatted.PromptLogProbs)
	}
}

// What the template is told.
func TestTemplate(t *testing.T) {
	h := handler(t, &script{texts: []string{"!"}}, plainTemplate)
	for fields, want := range map[string]string{
		`"messages":[{"role":"system","content":"S"},{"role":"user","content":"u"}]`:                                  "system: S\nuser: u\nassistant:",
		`"messages":[{"role":"developer","content":"S"},{"role":"user","content":"u"}]`:                               "system: S\nuser: u\nassistant:",
		`"messages":[{"role":"user","content":"u"}],"add_generation_prompt":false`:                                    "user: u",
		`"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"v"}],"continue_final_message":true`: "user: u\nassistant: v",
		`"messages":[{"role":"user","content":"u"}],"chat_template_kwargs":{"shout":true}`:                            "user: U\nassistant:",
		`"messages":[{"role":"user","content":"u"}],"add_special_tokens":true`:                                        "<s>user: u\nassistant:",
		`"messages":[{"role":"user","content":[{"type":"text","text":"u"},{"type":"text","text":"v"}]}]`:              "user: uv\nassistant:",
	} {
		r := chat(t, h, fields+`,"return_token_ids":true`)
		var text []byte
		for _, id := range r.PromptIDs {
			if id == begin {
				text = append(text, "<s>"...)
			} else {
				text = append(text, byte(id))
			}
		}
		if string(text) != want {
			t.Errorf("%s: %q, want %q", fields, text, want)
		}
	}
}

// A parameter of drawing reaches the draw.
func TestDraws(t *testing.T) {
	s := &script{texts: []string{"!"}}
	h := handler(t, s, plainTemplate)
	complete(t, h, `"prompt":"p","temperature":0.5,"top_p":0.25,"top_k":3,"min_p":0.125,"seed":9,"repetition_penalty":1.5,"presence_penalty":-1,
		"frequency_penalty":2,"logit_bias":{"7":-100,"3":1.5},"logprobs":4,"raw_logprobs":true`)
	d := s.draws[0]
	got := fmt.Sprint(d.Temperature, d.TopP, d.TopK, d.MinP, d.MinPFirst, d.Seed, d.Repetition, d.Presence, d.Frequency, d.Bias, d.Top, d.Raw)
	if want := "0.5 0.25 3 0.125 true 9 1.5 -1 2 [{3 1.5} {7 -100}] 4 true"; got != want {
		t.Errorf("drawn with %s, want %s", got, want)
	}
	complete(t, h, `"prompt":"p","top_k":-1`)
	if d := s.draws[len(s.draws)-1]; d.TopK != 0 {
		t.Errorf("top_k -1 draws with %d", d.TopK)
	}
	same(t, "allowed", texts(complete(t, h, `"prompt":"p","allowed_token_ids":[98,99],"max_tokens":3`)), []string{"bbb"})
	same(t, "bad words", texts(complete(t, h, `"prompt":"p","bad_words":["!"]`))[0:1], []string{"\x00"})
}

// Answers keep to their form.
func TestForms(t *testing.T) {
	h := handler(t, &script{texts: []string{`{"a": 7}`, "left-07", "yes"}}, plainTemplate)
	for fields, want := range map[string]string{
		`"seed":0,"response_format":{"type":"json_object"}`: `{"a": 7}`,
		`"seed":0,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"a":{"enum":[7,8]}},"required":["a"]}}}`: `{"a": 7}`,
		`"seed":1,"structured_outputs":{"regex":"(left|right)-[0-9]{2}"}`:                                                                                            "left-07",
		`"seed":2,"structured_outputs":{"choice":["no","yes"]}`:                                                                                                      "yes",
		`"seed":0,"structured_outputs":{"choice":["no","yes"]}`:                                                                                                      "no", // what it would say is not allowed
	} {
		if got := texts(chat(t, h, ask1+fields))[0]; got != want {
			t.Errorf("%s: %q, want %q", fields, got, want)
		}
	}
}
