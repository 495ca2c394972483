package serve

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"

	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/tokenizer"
)

// A toolStyle is how a model's chat template writes calls of tools, which is how the model was taught to.
type toolStyle uint8

const (
	noTools      toolStyle = iota // the template leaves tools out
	unknownTools                  // it has them, and writes calls in a way that is not read here
	hermes                        // <tool_call>\n{"name": …, "arguments": …}\n</tool_call>: Hermes, Qwen 2.5 and 3
	llama                         // {"name": …, "parameters": …} as the whole answer: Llama 3
)

const (
	openCall  = "<tool_call>"
	closeCall = "</tool_call>"
	pythonTag = "<|python_tag|>" // what Llama 3 may begin a call with
)

// toolStyle asks the template, by a tool and a call of it that are unmistakable.
func (h *Host) toolStyle() toolStyle {
	h.tools.Do(func() {
		const name = "probe_of_the_template"
		tool := tokenizer.Object{{Key: "type", Value: "function"}, {Key: "function", Value: tokenizer.Object{
			{Key: "name", Value: name}, {Key: "description", Value: "nothing"},
			{Key: "parameters", Value: tokenizer.Object{{Key: "type", Value: "object"}, {Key: "properties", Value: tokenizer.Object{}}}}}}}
		chat := tokenizer.Chat{Messages: tokenizer.Turns("user", "?"), Tools: []any{tool}, AddGenerationPrompt: true}
		text, err := h.Tokenizer.Chat(chat)
		if err != nil || !strings.Contains(text, name) {
			return
		}
		h.style = unknownTools
		call := tokenizer.Object{{Key: "type", Value: "function"}, {Key: "function", Value: tokenizer.Object{
			{Key: "name", Value: name}, {Key: "arguments", Value: tokenizer.Object{}}}}}
		chat.Messages = append(chat.Messages, tokenizer.Object{{Key: "role", Value: "assistant"}, {Key: "content", Value: ""},
			{Key: "tool_calls", Value: []any{call}}})
		chat.AddGenerationPrompt = false
		with, err := h.Tokenizer.Chat(chat)
		switch at := strings.LastIndex(with, name); {
		case err != nil || strings.Count(with, name) < 2:
		case strings.Contains(with[max(0, at-40):at], openCall):
			h.style = hermes
		case strings.Contains(with[at:], `"parameters"`):
			h.style = llama
		}
	})
	return h.style
}

// forcedTools are those of which one must be called; nil where none must.
func forcedTools(c *openai.Call) []openai.Tool {
	if c.Chat == nil {
		return nil
	}
	if c.Chat.Choice.Mode == "required" {
		return c.Chat.Tools
	}
	for _, t := range c.Chat.Tools {
		if t.Name == c.Chat.Choice.Named {
			return []openai.Tool{t}
		}
	}
	return nil
}

// opening is what a call that must be made begins with.
func (s toolStyle) opening() string {
	if s == hermes {
		return openCall + "\n"
	}
	return ""
}

func (s toolStyle) arguments() string {
	if s == llama {
		return "parameters"
	}
	return "arguments"
}

// schema is that of a call of one of tools.
func (s toolStyle) schema(tools []openai.Tool) (string, error) {
	var calls []json.RawMessage
	for _, t := range tools {
		parameters := t.Parameters
		if parameters == nil {
			parameters = json.RawMessage(`{"type":"object"}`)
		}
		if bytes.Contains(parameters, []byte(`"$ref"`)) {
			return "", errors.New(t.Name + ": parameters with $ref cannot be kept to where a call must be made")
		}
		var b bytes.Buffer
		name, err := json.Marshal(t.Name)
		if err != nil {
			return "", err
		}
		b.WriteString(`{"type":"object","properties":{"name":{"const":` + string(name) + `},"` + s.arguments() + `":`)
		b.Write(parameters)
		b.WriteString(`},"required":["name","` + s.arguments() + `"],"additionalProperties":false}`)
		calls = append(calls, b.Bytes())
	}
	out, err := json.Marshal(map[string]any{"anyOf": calls})
	return string(out), err
}

// A caller finds the calls of tools in a text as it comes: what it returns is the text between them, as far as it is
// certain, and the calls that are whole. Last says that nothing follows.
type caller interface {
	read(text string, last bool) (string, []openai.ToolCall)
}

// caller is nil where the answer is text alone.
func (m *Model) caller(c *openai.Call) caller {
	if c.Chat == nil || len(c.Chat.Tools) == 0 || c.Chat.Choice.Mode == "none" {
		return nil
	}
	style := m.toolStyle()
	switch {
	case forcedTools(c) != nil:
		return &wholeCalls{key: style.arguments()}
	case style == llama:
		return &wholeCalls{key: style.arguments()}
	}
	return &taggedCalls{}
}

// toolCall reads {"name": …, key: {…}}.
func toolCall(text, key string) (openai.ToolCall, bool) {
	var v map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &v) != nil {
		return openai.ToolCall{}, false
	}
	t := openai.ToolCall{ID: "call_" + rand.Text(), Type: "function"}
	arguments := v[key]
	if json.Unmarshal(v["name"], &t.Function.Name) != nil || t.Function.Name == "" || len(arguments) == 0 || arguments[0] != '{' {
		return openai.ToolCall{}, false
	}
	t.Function.Arguments = string(arguments)
	return t, true
}

// taggedCalls are calls between tags. What is no call though it stands between them stays text; the white space
// round a call is not.
type taggedCalls struct {
	held  string
	after bool // a call was last
}

func (r *taggedCalls) read(text string, last bool) (out string, calls []openai.ToolCall) {
	r.held += text
	for {
		if r.after {
			r.held = strings.TrimLeft(r.held, space)
			r.after = r.held == ""
		}
		at := strings.Index(r.held, openCall)
		if at < 0 {
			break
		}
		end := strings.Index(r.held[at:], closeCall)
		if end < 0 {
			if last {
				break
			}
			return out + r.take(trimmed(r.held[:at])), calls
		}
		if t, ok := toolCall(r.held[at+len(openCall):at+end], "arguments"); ok {
			out += r.held[:trimmed(r.held[:at])]
			r.take(at + end + len(closeCall))
			calls = append(calls, t)
			r.after = true
		} else {
			out += r.take(at + end + len(closeCall))
		}
	}
	certain := len(r.held)
	if !last {
		certain = trimmed(r.held[:len(r.held)-openEnd(r.held, openCall)])
	}
	return out + r.take(certain), calls
}

const space = " \n\r\t"

// trimmed is the length of s without the white space at its end.
func trimmed(s string) int { return len(strings.TrimRight(s, space)) }

// take is the first n bytes of what is held.
func (r *taggedCalls) take(n int) string {
	out := r.held[:n]
	r.held = r.held[n:]
	return out
}

// openEnd is the length of the longest end of s that tag begins with.
func openEnd(s, tag string) int {
	for k := min(len(tag)-1, len(s)); k > 0; k-- {
		if strings.HasSuffix(s, tag[:k]) {
			return k
		}
	}
	return 0
}

// wholeCalls are an answer that is nothing but calls, one after another or with ; between them. Any other answer is
// text.
type wholeCalls struct {
	key  string
	held string
	text bool // it does not begin like a call
}

func (r *wholeCalls) read(text string, last bool) (string, []openai.ToolCall) {
	r.held += text
	begins := strings.TrimLeft(r.held, space)
	if !last && !r.text && (begins == "" || begins[0] == '{' || strings.HasPrefix(pythonTag, begins) || strings.HasPrefix(begins, pythonTag)) {
		return "", nil
	}
	if calls := r.all(); calls != nil && !r.text {
		r.held = ""
		return "", calls
	}
	out := r.held
	r.text, r.held = true, ""
	return out, nil
}

// all are the calls, if that is all there is.
func (r *wholeCalls) all() (calls []openai.ToolCall) {
	rest := strings.TrimPrefix(strings.TrimSpace(r.held), pythonTag)
	for rest != "" {
		d := json.NewDecoder(strings.NewReader(rest))
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return nil
		}
		t, ok := toolCall(string(raw), r.key)
		if !ok {
			return nil
		}
		calls = append(calls, t)
		rest = strings.TrimLeft(rest[d.InputOffset():], space+";")
	}
	return calls
}
