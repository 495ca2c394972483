package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/router"
)

// A call is a request as the handler understands it.
type call struct {
	chat    bool
	model   string
	prompts []string       // of a completion
	request router.Request // without prompt
	n       int
	stream  bool
	usage   bool // wanted at the end of the stream
	trace   bool
}

// requests are those to be made: n for each prompt, with seeds that follow one another.
func (c *call) requests() []router.Request {
	prompts := c.prompts
	if c.chat {
		prompts = []string{""}
	}
	var rs []router.Request
	for _, p := range prompts {
		for i := range c.n {
			r := c.request
			r.Prompt = p
			if i > 0 {
				seed := uint64(i)
				if r.Seed != nil {
					seed += *r.Seed
				}
				r.Seed = &seed
			}
			rs = append(rs, r)
		}
	}
	return rs
}

const (
	mostAnswers = 128
	mostStrings = 1024 // stop strings or choices
)

// A setter reads one parameter.
type setter func(c *call, raw json.RawMessage) error

// common are the parameters of both endpoints.
var common = map[string]setter{
	"model":       func(c *call, raw json.RawMessage) error { return str(raw, &c.model) },
	"max_tokens":  func(c *call, raw json.RawMessage) error { return integer(raw, &c.request.Limit, 1, math.MaxInt32) },
	"temperature": func(c *call, raw json.RawMessage) error { return number(raw, &c.request.Temperature, 0, 2) },
	"top_p": func(c *call, raw json.RawMessage) error {
		return number(raw, &c.request.TopP, math.SmallestNonzeroFloat64, 1)
	},
	"min_p": func(c *call, raw json.RawMessage) error { return number(raw, &c.request.MinP, 0, 1) },
	"top_k": func(c *call, raw json.RawMessage) error {
		c.request.TopK = new(int)
		return integer(raw, c.request.TopK, -1, math.MaxInt32)
	},
	"seed": func(c *call, raw json.RawMessage) error {
		var n int64
		if err := integer(raw, &n, math.MinInt64, math.MaxInt64); err != nil {
			return err
		}
		c.request.Seed = new(uint64(n))
		return nil
	},
	"stop": func(c *call, raw json.RawMessage) (err error) {
		if only("[]")(c, raw) == nil {
			return nil
		}
		c.request.Stop, err = texts(raw)
		return err
	},
	"n":                  func(c *call, raw json.RawMessage) error { return integer(raw, &c.n, 1, mostAnswers) },
	"stream":             func(c *call, raw json.RawMessage) error { return boolean(raw, &c.stream) },
	"ignore_eos":         func(c *call, raw json.RawMessage) error { return boolean(raw, &c.request.IgnoreEOS) },
	"frequency_penalty":  only("0"),
	"presence_penalty":   only("0"),
	"repetition_penalty": only("1"),
	"logit_bias":         only("{}"),
	"stream_options": func(c *call, raw json.RawMessage) error {
		return object(raw, map[string]func(json.RawMessage) error{
			"include_usage": func(raw json.RawMessage) error { return boolean(raw, &c.usage) },
		})
	},
	"structured_outputs": func(c *call, raw json.RawMessage) error {
		return object(raw, map[string]func(json.RawMessage) error{
			"choice": func(raw json.RawMessage) (err error) {
				c.request.Choices, err = texts(raw)
				return err
			},
			"regex":       func(raw json.RawMessage) error { return str(raw, &c.request.Pattern) },
			"json":        func(raw json.RawMessage) error { return schema(c, raw) },
			"json_object": func(raw json.RawMessage) error { return boolean(raw, &c.request.JSONObject) },
		})
	},
	"r2": func(c *call, raw json.RawMessage) error {
		return object(raw, map[string]func(json.RawMessage) error{
			"trace": func(raw json.RawMessage) error { return boolean(raw, &c.trace) },
		})
	},
}

// chatOnly and textOnly are those of one.
var chatOnly = map[string]setter{
	"messages":              messages,
	"max_completion_tokens": common["max_tokens"],
	"logprobs":              func(c *call, raw json.RawMessage) error { return boolean(raw, &c.request.LogProbs) },
	"top_logprobs":          only("0"),
	"response_format":       responseFormat,
}

var textOnly = map[string]setter{
	"prompt": func(c *call, raw json.RawMessage) (err error) {
		c.prompts, err = texts(raw)
		if err == nil && len(c.prompts)*c.n > mostAnswers {
			err = fmt.Errorf("more than %d answers", mostAnswers)
		}
		return err
	},
	"logprobs": func(c *call, raw json.RawMessage) error {
		c.request.LogProbs = true
		return only("0")(c, raw)
	},
	"echo": only("false"),
	"best_of": func(c *call, raw json.RawMessage) error {
		var n int
		if err := integer(raw, &n, 1, mostAnswers); err != nil {
			return err
		}
		if n != c.n {
			return fmt.Errorf("%d is not supported: only n", n)
		}
		return nil
	},
}

// decode reads the body of a request. Every parameter is honoured or refused; null is as if it were not there.
func decode(body []byte, chat bool) (*call, error) {
	values, err := members(body)
	if err != nil {
		return nil, &router.ParamError{Param: "body", Reason: err.Error()}
	}
	c := &call{chat: chat, n: 1}
	own, need := textOnly, "prompt"
	if chat {
		own, need = chatOnly, "messages"
	}
	names := append([]string{"n"}, slices.Sorted(maps.Keys(values))...) // n first: others depend on it
	for _, name := range names {
		raw := values[name]
		if raw == nil || string(raw) == "null" {
			continue
		}
		set, ok := common[name]
		if !ok {
			set, ok = own[name]
		}
		if !ok {
			return nil, &router.ParamError{Param: name, Reason: "this parameter is not supported here"}
		}
		if err := set(c, raw); err != nil {
			return nil, &router.ParamError{Param: name, Reason: err.Error()}
		}
	}
	for _, name := range []string{"model", need} {
		if raw, ok := values[name]; !ok || string(raw) == "null" {
			return nil, &router.ParamError{Param: name, Reason: "this parameter is required"}
		}
	}
	if a, b := values["max_tokens"], values["max_completion_tokens"]; a != nil && b != nil && !bytes.Equal(a, b) {
		return nil, &router.ParamError{Param: "max_completion_tokens", Reason: "it differs from max_tokens"}
	}
	if c.trace && c.n > 1 {
		return nil, &router.ParamError{Param: "n", Reason: "one answer only when the trace is asked for"}
	}
	if c.usage && !c.stream {
		return nil, &router.ParamError{Param: "stream_options", Reason: "only with stream"}
	}
	return c, nil
}

// schema reads a JSON schema, which may also stand in a string.
func schema(c *call, raw json.RawMessage) error {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(text)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return errors.New("want a JSON schema")
	}
	c.request.Schema = b.String()
	return nil
}

// responseFormat reads OpenAI's way to ask for JSON: {"type": "text" | "json_object"}, or {"type": "json_schema",
// "json_schema": {"name", "schema", …}}.
func responseFormat(c *call, raw json.RawMessage) error {
	kind := ""
	err := object(raw, map[string]func(json.RawMessage) error{
		"type": func(raw json.RawMessage) error { return str(raw, &kind) },
		"json_schema": func(raw json.RawMessage) error {
			var name, description string
			var strict bool // an answer is valid, asked for or not
			return object(raw, map[string]func(json.RawMessage) error{
				"name":        func(raw json.RawMessage) error { return str(raw, &name) },
				"description": func(raw json.RawMessage) error { return str(raw, &description) },
				"strict":      func(raw json.RawMessage) error { return boolean(raw, &strict) },
				"schema":      func(raw json.RawMessage) error { return schema(c, raw) },
			})
		},
	})
	switch {
	case err != nil:
		return err
	case kind == "json_schema" && c.request.Schema == "":
		return errors.New("type json_schema needs json_schema: {schema}")
	case kind != "json_schema" && c.request.Schema != "":
		return errors.New("json_schema is for type json_schema")
	case kind == "json_object":
		c.request.JSONObject = true
	case kind != "text" && kind != "json_schema":
		return errors.New("type: want text, json_object or json_schema")
	}
	return nil
}

func messages(c *call, raw json.RawMessage) error {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return errors.New("want an array of messages, at least one")
	}
	for i, item := range items {
		m, err := message(item)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		c.request.Messages = append(c.request.Messages, m)
	}
	return nil
}

func message(raw json.RawMessage) (m router.Message, err error) {
	return m, object(raw, map[string]func(json.RawMessage) error{
		"role": func(raw json.RawMessage) error {
			if err := str(raw, &m.Role); err != nil {
				return err
			}
			if !slices.Contains([]string{"system", "user", "assistant"}, m.Role) {
				return fmt.Errorf("%q is none of system, user, assistant", m.Role)
			}
			return nil
		},
		"content": func(raw json.RawMessage) error {
			if len(raw) > 0 && raw[0] == '[' {
				return parts(raw, &m.Content)
			}
			return str(raw, &m.Content)
		},
	}, "role", "content")
}

// parts joins the content parts of a message, which are all text.
func parts(raw json.RawMessage, to *string) error {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return err
	}
	var b strings.Builder
	for i, item := range items {
		var kind, text string
		if err := object(item, map[string]func(json.RawMessage) error{
			"type": func(raw json.RawMessage) error { return str(raw, &kind) },
			"text": func(raw json.RawMessage) error { return str(raw, &text) },
		}, "type", "text"); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
		if kind != "text" {
			return fmt.Errorf("part %d: type %q is not supported: only text", i, kind)
		}
		b.WriteString(text)
	}
	*to = b.String()
	return nil
}

// members are the fields of a JSON object that is all of the text; none comes twice.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("want a JSON object: %w", err)
		}
		name := t.(string) // a key of an object is one
		if name == "" {
			return nil, errors.New("a name in it is empty")
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("want a JSON object: %q: %w", name, err)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		m[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("want a JSON object: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more after the JSON object")
	}
	return m, nil
}

// object reads an object whose fields are known.
func object(raw json.RawMessage, known map[string]func(json.RawMessage) error, required ...string) error {
	m, err := members(raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		set, ok := known[name]
		switch {
		case string(m[name]) == "null":
			delete(m, name)
		case !ok:
			return fmt.Errorf("%s is not supported", name)
		default:
			if err := set(m[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, name := range required {
		if _, ok := m[name]; !ok {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}
