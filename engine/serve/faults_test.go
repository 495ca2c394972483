package serve

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router/openai"
)

// What cannot be served is refused by its name, with the numbers.
func TestRefused(t *testing.T) {
	h := handler(t, &script{texts: []string{"x"}}, plainTemplate)
	for _, c := range []struct{ fields, param, says string }{
		{`"prompt":"` + strings.Repeat("a", 4096) + `"`, "prompt", "4097 tokens leave no room in the context of 4096"},
		{`"prompt":"` + strings.Repeat("a", 4095) + `"`, "prompt", "4096 tokens leave no room"},
		{`"prompt":"` + strings.Repeat("a", 4096) + `","max_tokens":0,"echo":true`, "prompt", "4097 tokens do not fit"},
		{`"prompt":[1,259]`, "prompt", "token 1 is 259, the vocabulary has 259"},
		{`"prompt":[1,-1]`, "prompt", "item 1"},
		{`"prompt":[1,"a"]`, "prompt", "token ids"},
		{`"prompt":[]`, "prompt", "at least one"},
		{`"prompt":[[]]`, "prompt", "empty"},
		{`"prompt":"x","stop_token_ids":[300]`, "stop_token_ids", "300"},
		{`"prompt":"x","allowed_token_ids":[300]`, "allowed_token_ids", "300"},
		{`"prompt":"x","allowed_token_ids":[]`, "allowed_token_ids", "empty"},
		{`"prompt":"x","logit_bias":{"300":1}`, "logit_bias", "300"},
		{`"prompt":"x","logit_bias":{"a":1}`, "logit_bias", "not a token id"},
		{`"prompt":"x","logit_bias":{"7":1,"07":1}`, "logit_bias", "twice"},
		{`"prompt":"x","truncate_prompt_tokens":5000`, "truncate_prompt_tokens", "the context is 4096"},
		{`"prompt":"x","truncate_prompt_tokens":-1,"max_tokens":4096`, "max_tokens", "no room for a prompt"},
		{`"prompt":"x","min_tokens":20,"max_tokens":10`, "min_tokens", "more than max_tokens"},
		{`"prompt":"x","min_tokens":20`, "min_tokens", "16 at most"},
		{`"prompt":"x","min_tokens":2,"structured_outputs":{"choice":["a"]}`, "min_tokens", "form"},
		{`"prompt":"x","temperature":1e999`, "temperature", "number"},
		{`"prompt":"x","temperature":-0.1`, "temperature", "from 0 to 2"},
		{`"prompt":"x","repetition_penalty":0`, "repetition_penalty", "from 0.01"},
		{`"prompt":"x","structured_outputs":{"regex":"("}`, "regex", "missing closing"},
		{`"prompt":"x","structured_outputs":{"regex":"a{1000}{1000}"}`, "regex", ""},
		{`"prompt":"x","structured_outputs":{"json":{"type":"integer","multipleOf":3}}`, "json_schema", "multipleOf"},
		{`"prompt":"x","structured_outputs":{"json":{"enum":[]}}`, "json_schema", ""},
		{`"prompt":"x","structured_outputs":{"regex":"a","choice":["a"]}`, "structured_outputs", "not several"},
		{`"prompt":"x","r2":{"trace":true}`, "r2", "only the router"},
		{`"prompt":"x","r2":{"limits":{"calls":3}}`, "r2", "only the router"},
		{`"prompt":"x","max_tokens":3,"structured_outputs":{"choice":["abcdef"]}`, "structured_outputs", "longest has 6 tokens, the limit is 3"},
	} {
		status, body := post(h, "/v1/completions", c.fields)
		if status != 400 || !strings.Contains(body, `"param":"`+c.param+`"`) || !strings.Contains(body, c.says) {
			t.Errorf("%.80s: %d %s; want 400 naming %s: %s", c.fields, status, body, c.param, c.says)
		}
	}
}

// quiet waits until nothing is under way and every page is free again.
func quiet(t *testing.T, e *engine.Engine) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := e.Exclusive(t.Context(), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		s := e.Stats()
		if s.Running == 0 && s.Waiting == 0 && s.Idle == s.Pages {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pages are not given back: %+v", s)
		}
	}
}

// A client that goes away in the middle of a stream has its pages freed before the next step, and disturbs nobody.
func TestClientVanishes(t *testing.T) {
	s := &script{texts: []string{strings.Repeat("long ", 700), "short"}, wait: make(chan struct{})}
	host := play(t, s, plainTemplate)
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&openai.Guard{Next: &openai.Handler{Models: c}})
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/v1/completions", strings.NewReader(`{"model":"m","prompt":"p","seed":0,"n":2,"max_tokens":3000,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	go func() { s.wait <- struct{}{} }() // the first tokens
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		t.Fatalf("%q, %v", line, err)
	}
	leave()
	resp.Body.Close()
	time.Sleep(100 * time.Millisecond) // the server has seen it
	steps := 0
	for host.Engine.Stats().Running > 0 && steps < 50 {
		select {
		case s.wait <- struct{}{}:
			steps++
		case <-time.After(time.Second):
		}
	}
	if steps > 2 { // one is planned already, one may be under way
		t.Errorf("%d steps were made for a client that had gone", steps)
	}
	close(s.wait)
	quiet(t, host.Engine)
	if got := texts(complete(t, server.Config.Handler, `"prompt":"p","seed":1`)); got[0] != "short" {
		t.Errorf("another's answer: %q", got)
	}
}

// A client that stops reading holds up nobody, and is left after a while.
func TestClientStopsReading(t *testing.T) {
	h := handler(t, &script{texts: []string{strings.Repeat("x", 3000), "short"}}, plainTemplate)
	server := httptest.NewServer(h)
	defer server.Close()
	resp, err := server.Client().Post(server.URL+"/v1/completions", "application/json",
		strings.NewReader(`{"model":"m","prompt":"p","seed":0,"max_tokens":3000,"stream":true,"logprobs":20}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := texts(complete(t, h, `"prompt":"p","seed":1`)); got[0] != "short" {
		t.Errorf("%q", got)
	}
}

// However the text is cut, the same text and the same calls come out, and nothing is lost where there is no call.
func FuzzToolCalls(f *testing.F) {
	for _, s := range []string{callF, "a " + callF + "\n" + callG + " b", "<tool_call>{}</tool_call>", "<tool_call>", "<<tool_call>x</tool_call", `{"name":"f","parameters":{}};{"name":"g","parameters":{}}`, "  {", pythonTag + `{"name":"f","parameters":{}}`} {
		f.Add(s, uint64(3))
	}
	f.Fuzz(func(t *testing.T, text string, cuts uint64) {
		for name, begin := range map[string]func() caller{"tagged": func() caller { return &taggedCalls{} }, "whole": func() caller { return &wholeCalls{key: "parameters"} }} {
			whole, calls := begin().read(text, true)
			r, rest := begin(), text
			var got string
			var parts []openai.ToolCall
			rng := rand.New(rand.NewPCG(cuts, 1))
			for {
				n := min(len(rest), 1+rng.IntN(8))
				out, more := r.read(rest[:n], n == len(rest))
				got, parts = got+out, append(parts, more...)
				if rest = rest[n:]; rest == "" {
					break
				}
			}
			if got != whole || len(parts) != len(calls) {
				t.Fatalf("%s: %q in parts gives %q and %d calls, whole %q and %d", name, text, got, len(parts), whole, len(calls))
			}
			for i := range calls {
				if calls[i].Function != parts[i].Function {
					t.Fatalf("%s: call %d: %+v, whole %+v", name, i, parts[i], calls[i])
				}
			}
			if len(calls) == 0 && whole != text {
				t.Fatalf("%s: %q without a call became %q", name, text, whole)
			}
		}
	})
}

// Under a load of everything at once, for as long as R2_SOAK says, no answer is another's, and neither memory nor
// goroutines grow.
func TestSoak(t *testing.T) {
	long := 300 * time.Millisecond
	if s := os.Getenv("R2_SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	s := newShelf(t)
	s.script.forget = true
	s.script.texts = []string{"zero zero", "one", "two two two", callF}
	s.write(t, "a", "adapter a")
	s.write(t, "b", "adapter b")
	s.load(t, `"lora_name":"x","lora_path":"a"`, 200, "")
	go func() {
		for range s.removed {
		}
	}()
	defer close(s.removed)
	server := httptest.NewServer(&openai.Guard{Next: s.Handler})
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	end := time.Now().Add(long)
	var first uint64
	var most int
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
				for range 20 {
					s.soakOne(t, server, rng)
				}
			})
		}
		wg.Wait()
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, runtime.NumGoroutine())
		if round == 20 {
			first = m.HeapAlloc
		}
		if round > 20 && m.HeapAlloc > first+first/4+16<<20 {
			t.Fatalf("round %d: %d bytes are held, in round 20 it were %d", round, m.HeapAlloc, first)
		}
	}
	t.Logf("at most %d goroutines between rounds", most)
	if most > 60 {
		t.Errorf("%d goroutines between rounds", most)
	}
	quiet(t, s.host.Engine)
}

// soakOne makes one call of some kind.
func (s *shelf) soakOne(t *testing.T, server *httptest.Server, rng *rand.Rand) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seed := rng.IntN(3)
	body, want := fmt.Sprintf(`{"model":"m","prompt":"p%d","seed":%d`, rng.IntN(3), seed), s.script.texts[seed]
	path := "/v1/completions"
	switch rng.IntN(6) {
	case 0:
		body += `,"stream":true`
		want = ""
	case 1:
		body += `,"n":3,"logprobs":2`
	case 2:
		body = `{"model":"x","prompt":"p"`
		want = "adapter "
	case 3:
		path, want = "/v1/load_lora_adapter", "generation"
		body = `{"lora_name":"x","load_inplace":true,"lora_path":"` + []string{"a", "b"}[rng.IntN(2)] + `"`
	case 4:
		body += `,"n":99999`
		want = "invalid_parameter"
	case 5:
		want = ""
		time.AfterFunc(time.Duration(rng.IntN(3))*time.Millisecond, cancel)
	}
	r, err := http.NewRequestWithContext(ctx, "POST", server.URL+path, strings.NewReader(body+"}"))
	if err != nil {
		t.Error(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := server.Client().Do(r)
	if err != nil {
		if ctx.Err() == nil {
			t.Error(err)
		}
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if ctx.Err() == nil && (err != nil || !strings.Contains(string(b), want)) {
		t.Errorf("%s: %s, %v; want %q", body, b, err, want)
	}
}

// shipped is a host of a model that the program ships.
func shipped(t *testing.T) *Host {
	t.Helper()
	host, _ := openShipped(t, filepath.Join("..", "..", "cmd", "r2", "miniature", "maxi"))
	return host
}

// A call's answer is the same to the bit alone and among others, whole and streamed, and its raw log-probabilities are
// those that scoring the answer gives.
func TestOneAnswer(t *testing.T) {
	host := shipped(t)
	c := &Catalog{}
	if err := c.Add(openai.Card{Name: "m"}, &Model{Host: host}); err != nil {
		t.Fatal(err)
	}
	h := &openai.Handler{Models: c}
	fields := func(i int) string {
		return fmt.Sprintf(`"prompt":"<user>jump opposite left thrice<assistant>","seed":%d,"temperature":2,"max_tokens":12,"logprobs":0,"raw_logprobs":true,"return_token_ids":true,"repetition_penalty":1.2`, i)
	}
	spell := func(ch openai.Choice) string {
		out := fmt.Sprint(*ch.Text, ch.IDs)
		for i, x := range ch.LogProbs.TokenLogProbs {
			out += fmt.Sprintf(" %08x %08x", math.Float32bits(*x), math.Float32bits(*ch.LogProbs.Raw[i]))
		}
		return out
	}
	alone := make([]string, 12)
	for i := range alone {
		alone[i] = spell(complete(t, h, fields(i)).Choices[0])
	}
	if alone[0] == alone[1] {
		t.Error("two seeds draw the same")
	}
	var wg sync.WaitGroup
	for i := range alone {
		wg.Go(func() {
			if got := spell(complete(t, h, fields(i)).Choices[0]); got != alone[i] {
				t.Errorf("seed %d among others: %s, alone %s", i, got, alone[i])
			}
		})
	}
	wg.Wait()
	for i, ch := range complete(t, h, fields(3)+`,"n":5`).Choices {
		if got := spell(ch); got != alone[3+i] {
			t.Errorf("answer %d of 5: %s, alone %s", i, got, alone[3+i])
		}
	}
	r := complete(t, h, fields(0)+`,"echo":true`)
	ids := append(r.Choices[0].PromptIDs, complete(t, h, fields(0)).Choices[0].IDs...)
	var list []string
	for _, id := range ids {
		list = append(list, strconv.Itoa(int(id)))
	}
	scored := complete(t, h, `"prompt":[`+strings.Join(list, ",")+`],"max_tokens":0,"prompt_logprobs":0`).Choices[0].PromptLogProbs
	lp := complete(t, h, fields(0)).Choices[0].LogProbs
	from := len(ids) - len(lp.Raw)
	for i, raw := range lp.Raw {
		if got := scored[from+i][list[from+i]].LogProb; math.Float32bits(got) != math.Float32bits(*raw) {
			t.Errorf("token %d: scored %v, drawn at %v", i, got, *raw)
		}
	}
}
