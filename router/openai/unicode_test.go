package openai

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Every text field of every body, with X where its text is.
var textFields = []struct{ path, body string }{
	{"/v1/completions", `{"model":"X","prompt":"p"}`},
	{"/v1/completions", `{"model":"m","prompt":"X"}`},
	{"/v1/completions", `{"model":"m","prompt":["p","X"]}`},
	{"/v1/completions", `{"model":"m","prompt":"p","X":1}`},
	{"/v1/completions", `{"model":"m","prompt":"p","user":"X"}`},
	{"/v1/completions", `{"model":"m","prompt":"p","stop":"X"}`},
	{"/v1/completions", `{"model":"m","prompt":"p","stop":["a","X"]}`},
	{"/v1/completions", `{"model":"m","prompt":"p","bad_words":["X"]}`},
	{"/v1/completions", `{"model":"m","prompt":"p","cache_salt":"X"}`},
	{"/v1/completions", `{"model":"m","prompt":"p","request_id":"X"}`},
	{"/v1/completions", `{"model":"m","prompt":"p","logit_bias":{"X":1}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","structured_outputs":{"choice":["a","X"]}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","structured_outputs":{"regex":"X"}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","structured_outputs":{"json":{"const":"X"}}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","response_format":{"type":"X"}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","response_format":{"type":"json_schema","json_schema":{"name":"X","schema":{}}}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","response_format":{"type":"json_schema","json_schema":{"name":"a","description":"X","schema":{}}}}`},
	{"/v1/completions", `{"model":"m","prompt":"p","response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"properties":{"X":{}}}}}}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"X","content":"c"}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"X"}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"X"}]}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c","name":"X"}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","content":"c","reasoning_content":"X"}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"tool","content":"c","tool_call_id":"X"}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"X","function":{"name":"f","arguments":"{}"}}]}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"X","arguments":"{}"}}]}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"X\"}"}}]}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"tools":[{"type":"function","function":{"name":"X"}}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"tools":[{"type":"function","function":{"name":"f","description":"X"}}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"title":"X"}}}]}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"tool_choice":{"type":"function","function":{"name":"X"}}}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"chat_template_kwargs":{"a":"X"}}`},
	{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c"}],"chat_template_kwargs":{"X":"a"}}`},
	{"/tokenize", `{"model":"m","prompt":"X"}`},
	{"/tokenize", `{"model":"m","messages":[{"role":"user","content":"X"}]}`},
	{"/detokenize", `{"model":"X","tokens":[1]}`},
	{"/v1/load_lora_adapter", `{"lora_name":"X","lora_path":"p"}`},
	{"/v1/load_lora_adapter", `{"lora_name":"n","lora_path":"X"}`},
	{"/v1/unload_lora_adapter", `{"lora_name":"X"}`},
}

// A text that is not one is refused wherever it stands, for it would become another; no model sees it.
func TestNotUnicode(t *testing.T) {
	e := &echo{}
	h := &Handler{Models: Completers{"m": e}}
	for _, f := range textFields {
		for _, x := range []struct{ text, says string }{
			{"\xff", "not UTF-8"}, {"a\xc3", "not UTF-8"}, {"\xed\xa0\x80", "not UTF-8"}, {"\xc0\xaf", "not UTF-8"}, {"\xf5\x80\x80\x80", "not UTF-8"},
			{`\ud83d`, "half of a surrogate pair"}, {`\ude00`, "half of"}, {`\uDE00\uD83D`, "half of"}, {`\ud83d\\ude00`, "half of"}, {`\\\ud83dx`, "half of"},
		} {
			body := strings.Replace(f.body, "X", x.text, 1)
			status, answer := do(h, "POST", f.path, body)
			if e := wireError(t, answer); status != 400 || e.Param == nil || *e.Param != "body" || !strings.Contains(e.Message, x.says) {
				t.Errorf("%s %+q: %d %s, want it to say %q", f.path, body, status, answer, x.says)
			}
		}
	}
	// arguments are JSON within JSON
	status, answer := do(h, "POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"\\ud83d\"}"}}]}]}`)
	if status != 400 || !strings.Contains(answer, "half of a surrogate pair") {
		t.Errorf("arguments: %d %s", status, answer)
	}
	if len(e.seen) > 0 {
		t.Errorf("the model was asked %+v", e.seen)
	}
}

// Every text that is one comes to the model as it is.
func TestUnicode(t *testing.T) {
	e := &echo{}
	h := &Handler{Models: Completers{"m": e}}
	for written, text := range map[string]string{
		`\ud83d\ude00`: "😀", `😀`: "😀", `\\ud83d`: `\ud83d`, `\\\\ude00`: `\\ude00`, `\ufffd`: "\ufffd", "\ufffd": "\ufffd", `\u0000`: "\x00", `\"\ud83d\ude00\"`: `"😀"`,
	} {
		e.seen = nil
		if status, answer := do(h, "POST", "/v1/completions", `{"model":"m","prompt":"`+written+`"}`); status != 200 || len(e.seen) != 1 || e.seen[0].Prompt != text {
			t.Errorf("%s: %d %s, the model saw %+v", written, status, answer, e.seen)
		}
	}
}

// unicode agrees with a decoder that may put U+FFFD only where it is written.
func FuzzUnicode(f *testing.F) {
	for _, s := range []string{"a", `\ud83d`, `\ud83d\ude00`, `\\ud83d`, "\xff", `\ufffd`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := []byte(`"` + s + `"`)
		var got string
		if str(text, &got) != nil {
			return
		}
		lost := strings.Count(got, "\ufffd") - strings.Count(s, "\ufffd")
		for at := 0; at < len(s); { // those that are written as an escape
			switch {
			case s[at] != '\\':
				at++
			case len(s) >= at+6 && strings.EqualFold(s[at:at+6], `\ufffd`):
				lost--
				at += 6
			default:
				at += 2
			}
		}
		if err := unicode(text); (err != nil) != (lost > 0) || err == nil && !utf8.ValidString(s) {
			t.Errorf("%+q: %v, and %d are lost", s, err, lost)
		}
	})
}
