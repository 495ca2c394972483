package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/router"
)

// fit reports the first part of a conversation that does not go with another. Prompted: add_generation_prompt is given.
func (t *Chat) fit(c *Call, prompted bool) error {
	named := func(name string) bool {
		return slices.ContainsFunc(t.Tools, func(f Tool) bool { return f.Name == name })
	}
	forced := t.Choice.Mode == "required" || t.Choice.Named != ""
	last := t.Messages[len(t.Messages)-1]
	for _, rule := range []struct {
		broken        bool
		param, reason string
	}{
		{t.Continue && prompted && !t.NoPrompt, "continue_final_message", "not with add_generation_prompt: a final message is continued or a new one begun"},
		{t.Continue && len(last.Calls) > 0, "continue_final_message", "the final message calls tools: only a text is continued"},
		{len(t.Tools) == 0 && t.Choice.Mode != "" && t.Choice.Mode != "none", "tool_choice", "only with tools"},
		{t.Choice.Named != "" && !named(t.Choice.Named), "tool_choice", fmt.Sprintf("%q is none of the tools", t.Choice.Named)},
		{forced && c.Form.Given(), "tool_choice", "a call of a tool that must be made has its own form: not with structured_outputs or response_format"},
		{forced && t.Continue, "tool_choice", "a call of a tool that must be made does not continue a message"},
	} {
		if rule.broken {
			return &router.ParamError{Param: rule.param, Reason: rule.reason}
		}
	}
	t.NoPrompt = t.NoPrompt || t.Continue
	return nil
}

// Roles of messages.
var roles = []string{"system", "developer", "user", "assistant", "tool"}

func messages(c *Call, raw json.RawMessage) error {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return errors.New("want an array of messages, at least one")
	}
	for i, item := range items {
		m, err := message(item)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		c.Chat.Messages = append(c.Chat.Messages, m)
	}
	return nil
}

func message(raw json.RawMessage) (m Message, err error) {
	content := false
	err = object(raw, map[string]func(json.RawMessage) error{
		"role": func(raw json.RawMessage) error {
			if err := str(raw, &m.Role); err != nil {
				return err
			}
			if !slices.Contains(roles, m.Role) {
				return fmt.Errorf("%q is none of %s", m.Role, strings.Join(roles, ", "))
			}
			return nil
		},
		"content": func(raw json.RawMessage) error {
			content = true
			if len(raw) > 0 && raw[0] == '[' {
				return parts(raw, &m.Content)
			}
			return str(raw, &m.Content)
		},
		"name":              func(raw json.RawMessage) error { return str(raw, &m.Name) },
		"reasoning_content": func(raw json.RawMessage) error { return str(raw, &m.Reasoning) },
		"refusal":           func(raw json.RawMessage) error { return errors.New("want null: there is nothing to refuse here") },
		"tool_call_id":      func(raw json.RawMessage) error { return str(raw, &m.CallID) },
		"tool_calls": func(raw json.RawMessage) (err error) {
			m.Calls, err = toolCalls(raw)
			return err
		},
	}, "role")
	switch {
	case err != nil:
	case !content && len(m.Calls) == 0:
		err = errors.New("content is missing")
	case m.Role != "assistant" && (len(m.Calls) > 0 || m.Reasoning != ""):
		err = errors.New("tool_calls and reasoning_content are for role assistant")
	case m.Role != "tool" && m.CallID != "":
		err = errors.New("tool_call_id is for role tool")
	}
	return m, err
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

// toolCalls reads the calls an assistant has made.
func toolCalls(raw json.RawMessage) (calls []ToolCall, err error) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) > mostStrings {
		return nil, fmt.Errorf("want an array of at most %d calls", mostStrings)
	}
	for i, item := range items {
		var t ToolCall
		err := object(item, map[string]func(json.RawMessage) error{
			"id":   func(raw json.RawMessage) error { return str(raw, &t.ID) },
			"type": func(raw json.RawMessage) error { return function(raw, &t.Type) },
			"function": func(raw json.RawMessage) error {
				return object(raw, map[string]func(json.RawMessage) error{
					"name": func(raw json.RawMessage) error { return str(raw, &t.Function.Name) },
					"arguments": func(raw json.RawMessage) error {
						if err := str(raw, &t.Function.Arguments); err != nil {
							return err
						}
						if _, err := members([]byte(t.Function.Arguments)); err != nil {
							return err
						}
						return unicode([]byte(t.Function.Arguments))
					},
				}, "name", "arguments")
			},
		}, "function")
		if err != nil {
			return nil, fmt.Errorf("call %d: %w", i, err)
		}
		t.Type = "function"
		calls = append(calls, t)
	}
	return calls, nil
}

// function reads the only type a tool has.
func function(raw json.RawMessage, to *string) error {
	if err := str(raw, to); err != nil {
		return err
	}
	if *to != "function" {
		return fmt.Errorf("%q is not supported: only function", *to)
	}
	return nil
}

// OpenAI's names of functions.
var functionName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

func tools(c *Call, raw json.RawMessage) error {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) > mostStrings {
		return fmt.Errorf("want an array of at most %d tools", mostStrings)
	}
	for i, item := range items {
		t := Tool{Raw: item}
		var kind, description string
		err := object(item, map[string]func(json.RawMessage) error{
			"type": func(raw json.RawMessage) error { return function(raw, &kind) },
			"function": func(raw json.RawMessage) error {
				return object(raw, map[string]func(json.RawMessage) error{
					"name":        func(raw json.RawMessage) error { return str(raw, &t.Name) },
					"description": func(raw json.RawMessage) error { return str(raw, &description) },
					"parameters": func(raw json.RawMessage) error {
						t.Parameters = raw
						_, err := members(raw)
						return err
					},
					"strict": func(raw json.RawMessage) error { return boolean(raw, &t.Strict) },
				}, "name")
			},
		}, "type", "function")
		switch {
		case err != nil:
		case !functionName.MatchString(t.Name):
			err = fmt.Errorf("name %.80q: want 1 to 64 letters, digits, _, . or -", t.Name)
		case slices.ContainsFunc(c.Chat.Tools, func(o Tool) bool { return o.Name == t.Name }):
			err = fmt.Errorf("name %q is there twice", t.Name)
		}
		if err != nil {
			return fmt.Errorf("tool %d: %w", i, err)
		}
		c.Chat.Tools = append(c.Chat.Tools, t)
	}
	return nil
}

func toolChoice(c *Call, raw json.RawMessage) error {
	choice := &c.Chat.Choice
	if len(raw) > 0 && raw[0] == '{' {
		var kind string
		return object(raw, map[string]func(json.RawMessage) error{
			"type": func(raw json.RawMessage) error { return function(raw, &kind) },
			"function": func(raw json.RawMessage) error {
				return object(raw, map[string]func(json.RawMessage) error{
					"name": func(raw json.RawMessage) error { return name(raw, &choice.Named) },
				}, "name")
			},
		}, "type", "function")
	}
	if err := str(raw, &choice.Mode); err != nil {
		return err
	}
	if !slices.Contains([]string{"none", "auto", "required"}, choice.Mode) {
		return fmt.Errorf("%.40q is none of none, auto, required", choice.Mode)
	}
	return nil
}

// variables are the template's own, but for those that other parameters give.
func variables(c *Call, raw json.RawMessage) error {
	m, err := members(raw)
	if err != nil {
		return err
	}
	for _, taken := range []string{"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"} {
		if _, ok := m[taken]; ok {
			return fmt.Errorf("%s is not a variable of the template here: give it as a parameter of its own", taken)
		}
	}
	c.Chat.Variables = raw
	return nil
}
