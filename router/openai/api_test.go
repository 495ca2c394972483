package openai

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/router"
)

var update = flag.Bool("update", false, "write the table of parameters in docs/api.md")

// A parameter is a row of the table in docs/api.md: everything that OpenAI's and vLLM's two endpoints take.
type parameter struct {
	name string
	at   string // chat, text or both
	test string // that shows it honoured, PACKAGE NAME; "": it is refused
	good string // a value that is honoured, or refused because it is not
	bad  string // one that is not
	note string
}

var parameters = []parameter{
	{"model", "both", "router/openai TestParametersRefused", `"m"`, `3`, "a name that `/v1/models` lists"},
	{"messages", "chat", "engine/serve TestTemplate", `[{"role":"user","content":"x"}]`, `[]`, "roles system, developer, user, assistant, tool; contents of text"},
	{"prompt", "text", "engine/serve TestPrompts", `[[1,2],[3]]`, `{}`, "a text, token ids, or a list of either"},
	{"n", "both", "engine/serve TestSeeds", `3`, `0`, "1 to 128; answer i is the one that seed + i gives alone"},
	{"best_of", "both", "engine/serve TestBestOf", `3`, `"a"`, "those of the highest log-probability a token are returned; not with `stream`"},
	{"max_tokens", "both", "engine/serve TestEnds", `5`, `0`, "by default 16 of a completion, the rest of the context of a chat; 0 with `echo` or `prompt_logprobs`"},
	{"max_completion_tokens", "chat", "engine/serve TestLimits", `5`, `-1`, "the same"},
	{"min_tokens", "both", "engine/serve TestEnds", `1`, `-1`, "no end-of-text token can be drawn, and no stop string counts, before"},
	{"temperature", "both", "engine/serve TestDraws", `0.5`, `2.5`, "0 to 2; 0 takes the likeliest"},
	{"top_p", "both", "engine/serve TestDraws", `0.5`, `0`, "more than 0, to 1"},
	{"top_k", "both", "engine/serve TestDraws", `5`, `-2`, "0 or -1: all"},
	{"min_p", "both", "engine/serve TestDraws", `0.5`, `1.5`, "0 to 1; before top_k and top_p, as in vLLM"},
	{"seed", "both", "engine/serve TestSeeds", `-1`, `1.5`, "without one, each call gets another, drawn from `--seed`"},
	{"repetition_penalty", "both", "engine/serve TestDraws", `1.5`, `0`, "over prompt and answer"},
	{"presence_penalty", "both", "engine/serve TestDraws", `-1`, `3`, "-2 to 2, over the answer"},
	{"frequency_penalty", "both", "engine/serve TestDraws", `2`, `-3`, "-2 to 2, over the answer"},
	{"logit_bias", "both", "engine/serve TestDraws", `{"5":1}`, `{"5":101}`, "-100 to 100 by token id"},
	{"allowed_token_ids", "both", "engine/serve TestDraws", `[1]`, `["a"]`, ""},
	{"bad_words", "both", "engine/serve TestDraws", `["x"]`, `[""]`, "alone and behind a space"},
	{"stop", "both", "engine/serve TestEnds", `["a","b"]`, `[""]`, "never a part of one is sent"},
	{"stop_token_ids", "both", "engine/serve TestEnds", `[1]`, `[-1]`, ""},
	{"include_stop_str_in_output", "both", "engine/serve TestEnds", `true`, `1`, ""},
	{"ignore_eos", "both", "engine/serve TestEnds", `true`, `1`, ""},
	{"skip_special_tokens", "both", "engine/serve TestEnds", `false`, `0`, ""},
	{"logprobs", "chat", "engine/serve TestLogProbs", `true`, `1`, "of the distribution a token was drawn from: after penalties, temperature, mask and truncation"},
	{"logprobs", "text", "engine/serve TestLogProbs", `2`, `21`, "the same, with so many of the likeliest, 0 to 20"},
	{"top_logprobs", "chat", "engine/serve TestLogProbs", `2`, `21`, "0 to 20, with `logprobs`"},
	{"raw_logprobs", "both", "engine/serve TestLogProbs", `true`, `1`, "ours: those of the unmodified distribution beside them, with `logprobs`"},
	{"prompt_logprobs", "both", "engine/serve TestPromptLogProbs", `2`, `-1`, "0 to 20; of the unmodified distribution; not with `stream`"},
	{"echo", "both", "engine/serve TestEcho", `true`, `1`, ""},
	{"response_format", "both", "engine/serve TestForms", `{"type":"json_object"}`, `{"type":"xml"}`, "text, json_object, json_schema"},
	{"structured_outputs", "both", "engine/serve TestForms", `{"choice":["a"]}`, `{"grammar":"a"}`, "one of choice, regex, json, json_object"},
	{"tools", "chat", "engine/serve TestToolCalls", `[{"type":"function","function":{"name":"f"}}]`, `[{"type":"retrieval"}]`, "where the model's template has tools, in the forms of Hermes and Qwen, and of Llama 3; `strict` with a call that must be made"},
	{"tool_choice", "chat", "engine/serve TestToolCalls", `"none"`, `"maybe"`, "none, auto, required, or a function by its name"},
	{"parallel_tool_calls", "chat", "engine/serve TestToolCalls", `false`, `0`, "false: the answer ends with its first call"},
	{"add_generation_prompt", "chat", "engine/serve TestTemplate", `false`, `0`, ""},
	{"continue_final_message", "chat", "engine/serve TestTemplate", `true`, `1`, ""},
	{"chat_template_kwargs", "chat", "engine/serve TestTemplate", `{"a":1}`, `{"messages":1}`, "variables of the template"},
	{"add_special_tokens", "both", "engine/serve TestPrompts", `true`, `1`, "by default true of a completion, false of a chat"},
	{"truncate_prompt_tokens", "both", "engine/serve TestPrompts", `5`, `0`, "keeps the last so many; -1: as many as leave room for max_tokens"},
	{"return_token_ids", "both", "engine/serve TestPrompts", `true`, `1`, ""},
	{"return_tokens_as_token_ids", "both", "engine/serve TestTokensAsIDs", `true`, `1`, "with `logprobs`"},
	{"priority", "both", "engine/serve TestPriority", `-1`, `0.5`, "a smaller one runs first"},
	{"cache_salt", "both", "engine/serve TestSalt", `"s"`, `""`, ""},
	{"request_id", "both", "engine/serve TestRequestID", `"a"`, `" "`, "so does the header X-Request-Id"},
	{"stream", "both", "engine/serve TestBestOf", `true`, `1`, "every test of an answer reads it whole and streamed"},
	{"stream_options", "both", "engine/serve TestUsage", `{"include_usage":true}`, `{"x":1}`, "include_usage, continuous_usage_stats; with `stream`"},
	{"r2", "both", "router/openai TestLimitsOfACall", `{"trace":true}`, `{"x":1}`, "trace, and limits {subtasks, calls, usd} below the server's; of the model r2"},
	{"use_beam_search", "both", "router/openai TestAPI", `false`, `true`, "false"},
	{"length_penalty", "both", "router/openai TestAPI", `1.0`, `2`, "1"},
	{"spaces_between_special_tokens", "both", "router/openai TestAPI", `true`, `false`, "true"},
	{"truncation_side", "both", "router/openai TestAPI", `"left"`, `"right"`, "left"},
	{"include_reasoning", "chat", "router/openai TestAPI", `true`, `false`, "true"},
	{"modalities", "chat", "router/openai TestAPI", `["text"]`, `["text","audio"]`, "text"},
	{"service_tier", "chat", "router/openai TestAPI", `"default"`, `"flex"`, "auto, default"},
	{"store", "chat", "router/openai TestAPI", `false`, `true`, "false"},
	{"user", "both", "router/openai TestRecord", `"a"`, `1`, "goes into the log"},

	{"suffix", "text", "", `"a"`, "", ""}, {"prompt_embeds", "text", "", `"a"`, "", ""},
	{"audio", "chat", "", `{}`, "", ""}, {"prediction", "chat", "", `{}`, "", ""},
	{"function_call", "chat", "", `"auto"`, "", "use `tool_choice`"}, {"functions", "chat", "", `[]`, "", "use `tools`"},
	{"reasoning_effort", "chat", "", `"low"`, "", "use `chat_template_kwargs`"},
	{"verbosity", "chat", "", `"low"`, "", ""}, {"web_search_options", "chat", "", `{}`, "", ""},
	{"metadata", "chat", "", `{}`, "", ""}, {"safety_identifier", "chat", "", `"a"`, "", ""},
	{"prompt_cache_key", "chat", "", `"a"`, "", "use `cache_salt`"}, {"documents", "chat", "", `[]`, "", ""},
	{"chat_template", "chat", "", `"a"`, "", "a template is the model's"}, {"chat_template_content_format", "chat", "", `"string"`, "", ""},
	{"mm_processor_kwargs", "chat", "", `{}`, "", ""}, {"media_io_kwargs", "chat", "", `{}`, "", ""},
	{"logprob_token_ids", "both", "", `[1]`, "", ""}, {"logits_processors", "both", "", `[]`, "", ""},
	{"guided_json", "both", "", `{}`, "", "use `structured_outputs`"}, {"guided_regex", "both", "", `"a"`, "", "use `structured_outputs`"},
	{"guided_choice", "both", "", `["a"]`, "", "use `structured_outputs`"}, {"guided_grammar", "both", "", `"a"`, "", ""},
	{"return_token_offsets", "both", "", `true`, "", ""}, {"kv_transfer_params", "both", "", `{}`, "", ""}, {"ec_transfer_params", "both", "", `{}`, "", ""},
	{"vllm_xargs", "both", "", `{}`, "", ""}, {"repetition_detection", "both", "", `{}`, "", ""}, {"thinking_token_budget", "both", "", `5`, "", ""},
}

// A willing model takes everything.
type willing struct{}

func (willing) Answer(_ context.Context, c *Call) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for i := range c.Draws() {
			if !yield(Part{Index: i, Text: "x", Done: &Done{Finish: "stop"}}, nil) {
				return
			}
		}
	}
}

type catalog map[string]Model

func (c catalog) Cards() []Card                  { return nil }
func (c catalog) Find(name string) (Model, bool) { m, ok := c[name]; return m, ok }

// needs is what a parameter does not go without.
var needs = map[string]string{"top_logprobs": `"logprobs":true,`, "stream_options": `"stream":true,`, "tool_choice": `"tools":[{"type":"function","function":{"name":"f"}}],`}

// Every parameter there is is honoured, and a wrong value refused by its name; or it is refused by its name. The table
// of them in docs/api.md says which test shows it.
func TestAPI(t *testing.T) {
	h := &Handler{Models: catalog{"m": willing{}}}
	rest := map[bool]map[string]string{true: {"model": `"m"`, "messages": `[{"role":"user","content":"x"}]`}, false: {"model": `"m"`, "prompt": `"x"`}}
	ask := func(p parameter, chat bool, value string) (int, Error, string) {
		body := `{`
		for name, v := range rest[chat] {
			if name != p.name {
				body += `"` + name + `":` + v + `,`
			}
		}
		extra := needs[p.name]
		if (p.name == "raw_logprobs" || p.name == "return_tokens_as_token_ids") && chat {
			extra = `"logprobs":true,`
		} else if p.name == "raw_logprobs" || p.name == "return_tokens_as_token_ids" {
			extra = `"logprobs":0,`
		}
		path := map[bool]string{true: "/v1/chat/completions", false: "/v1/completions"}[chat]
		status, answer := do(h, "POST", path, body+extra+`"`+p.name+`":`+value+`}`)
		var f failed
		if status != 200 {
			f.Error = wireError(t, answer)
		}
		return status, f.Error, answer
	}
	known := map[bool]map[string]bool{true: {}, false: {}}
	for _, p := range parameters {
		for _, chat := range []bool{true, false} {
			if p.at == "chat" && !chat || p.at == "text" && chat {
				continue
			}
			known[chat][p.name] = true
			refused := func(value string) {
				t.Helper()
				if status, e, body := ask(p, chat, value); status != 400 || e.Param == nil || *e.Param != p.name {
					t.Errorf("chat %v: %s %s: %d %s; want 400 naming it", chat, p.name, value, status, body)
				}
			}
			if p.test == "" {
				refused(p.good)
				if _, e, _ := ask(p, chat, p.good); strings.HasPrefix(p.note, "use ") && !strings.HasSuffix(e.Message, strings.ReplaceAll(p.note, "`", "")) {
					t.Errorf("%s: %s; want it to say: %s", p.name, e.Message, p.note)
				}
				continue
			}
			if status, _, body := ask(p, chat, p.good); status != 200 {
				t.Errorf("chat %v: %s %s: %d %s", chat, p.name, p.good, status, body)
			}
			refused(p.bad)
			shows(t, p)
		}
	}
	for chat, setters := range map[bool]map[string]setter{true: ofChats, false: ofTexts} {
		for name := range setters {
			if !known[chat][name] {
				t.Errorf("%s is taken and not in the table", name)
			}
		}
	}
	checkTable(t)
}

// shows checks that a row's test is there and speaks of the parameter.
func shows(t *testing.T, p parameter) {
	t.Helper()
	pkg, name, _ := strings.Cut(p.test, " ")
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := strings.Index(string(b), "\nfunc "+name+"(")
		if at < 0 {
			continue
		}
		body, _, _ := strings.Cut(string(b[at+1:]), "\n}\n")
		if name != "TestAPI" && !strings.Contains(body, `"`+p.name+`":`) {
			t.Errorf("%s does not speak of %s", p.test, p.name)
		}
		return
	}
	t.Errorf("%s: there is no %s", p.name, p.test)
}

const tableBegins, tableEnds = "<!-- parameters: written by go test ./router/openai -run TestAPI -update -->\n", "<!-- end of parameters -->\n"

// checkTable compares the table in docs/api.md with the rows above, or writes it.
func checkTable(t *testing.T) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| parameter | of | | its test |\n|---|---|---|---|\n")
	rows := slices.Clone(parameters)
	slices.SortStableFunc(rows, func(x, y parameter) int { return strings.Compare(x.name, y.name) })
	of := map[string]string{"both": "both", "chat": "chats", "text": "completions"}
	for _, p := range rows {
		if p.test == "" {
			fmt.Fprintf(&b, "| `%s` | %s | **refused** %s | router/openai TestAPI |\n", p.name, of[p.at], p.note)
		} else {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.name, of[p.at], p.note, p.test)
		}
	}
	file := filepath.Join("..", "..", "docs", "api.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	region := regexp.MustCompile("(?s)" + regexp.QuoteMeta(tableBegins) + ".*" + regexp.QuoteMeta(tableEnds))
	if !region.Match(text) {
		t.Fatalf("%s has no place for the table", file)
	}
	want := region.ReplaceAllLiteralString(string(text), tableBegins+b.String()+tableEnds)
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(file, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table in %s is not that of the tests: go test ./router/openai -run TestAPI -update", file)
	}
}

// A call can be given lower limits than the router has, and no higher ones.
func TestLimitsOfACall(t *testing.T) {
	w := newWorld(t)
	for limits, code := range map[string]string{`{"calls":2}`: "limit_reached", `{"subtasks":1}`: "limit_reached", `{"usd":0.000001}`: "limit_reached", `{"calls":1000000,"usd":100}`: ""} {
		h := &Handler{Models: Completers{"r2": router.Service{Router: w.router}}}
		status, body := do(h, "POST", "/v1/chat/completions", `{"model":"r2","messages":[{"role":"user","content":"walk left and jump"}],"r2":{"trace":true,"limits":`+limits+`}}`)
		var f failed
		if err := json.Unmarshal([]byte(body), &f); err != nil {
			t.Fatal(err)
		}
		if (code == "") != (status == 200) || code != "" && (f.Error.Code == nil || *f.Error.Code != code) {
			t.Errorf("%s: %d %s, want %q", limits, status, body, code)
		}
	}
	for _, limits := range []string{`{"calls":0}`, `{"usd":-1}`, `{"usd":"much"}`, `{"x":1}`} {
		status, body := do(&Handler{Models: Completers{"r2": router.Service{Router: w.router}}}, "POST", "/v1/chat/completions", `{"model":"r2","messages":[{"role":"user","content":"q"}],"r2":{"limits":`+limits+`}}`)
		if e := wireError(t, body); status != 400 || *e.Param != "r2" {
			t.Errorf("%s: %d %s", limits, status, body)
		}
	}
}
