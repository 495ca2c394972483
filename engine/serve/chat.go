package serve

import (
	"fmt"

	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/tokenizer"
)

// chat is the prompt of a conversation.
func (m *Model) chat(c *openai.Call) ([]int32, error) {
	text, err := m.render(c.Chat)
	if err != nil {
		return nil, err
	}
	if forcedTools(c) != nil {
		text += m.toolStyle().opening()
	}
	return m.Tokenizer.Encode(text, c.SpecialTokens != nil && *c.SpecialTokens), nil
}

// render writes a conversation by the model's template.
func (h *Host) render(c *openai.Chat) (string, error) {
	t := tokenizer.Chat{AddGenerationPrompt: !c.NoPrompt, ContinueFinalMessage: c.Continue}
	for _, m := range c.Messages {
		o, err := object(m)
		if err != nil {
			return "", refuse("messages", "%v", err)
		}
		t.Messages = append(t.Messages, o)
	}
	if len(c.Tools) > 0 {
		switch h.toolStyle() {
		case noTools:
			return "", refuse("tools", "the model's chat template has no tools")
		case unknownTools:
			return "", refuse("tools", "the model's chat template writes calls in a form that is not known here")
		}
	}
	for _, f := range c.Tools {
		if f.Strict && c.Choice.Mode != "required" && c.Choice.Named == "" {
			return "", refuse("tools", "%s: strict holds only where a call must be made: with tool_choice required, or by name", f.Name)
		}
	}
	if c.Choice.Mode != "none" {
		for _, f := range c.Tools {
			v, err := tokenizer.ParseValue(f.Raw)
			if err != nil {
				return "", refuse("tools", "%s: %v", f.Name, err)
			}
			t.Tools = append(t.Tools, v)
		}
	}
	if c.Variables != nil {
		v, err := tokenizer.ParseValue(c.Variables)
		if err != nil {
			return "", refuse("chat_template_kwargs", "%v", err)
		}
		t.Variables = map[string]any{}
		for _, member := range v.(tokenizer.Object) { // which it was read as
			t.Variables[member.Key] = member.Value
		}
	}
	text, err := h.Tokenizer.Chat(t)
	if err != nil {
		return "", refuse("messages", "%v", err)
	}
	return text, nil
}

// object is a message as templates know it: a developer is a system, and a call's arguments are an object.
func object(m openai.Message) (tokenizer.Object, error) {
	role := m.Role
	if role == "developer" {
		role = "system"
	}
	o := tokenizer.Object{{Key: "role", Value: role}, {Key: "content", Value: m.Content}}
	for _, f := range []struct{ key, value string }{{"name", m.Name}, {"reasoning_content", m.Reasoning}, {"tool_call_id", m.CallID}} {
		if f.value != "" {
			o = append(o, tokenizer.Member{Key: f.key, Value: f.value})
		}
	}
	if len(m.Calls) == 0 {
		return o, nil
	}
	var calls []any
	for i, t := range m.Calls {
		arguments, err := tokenizer.ParseValue([]byte(t.Function.Arguments))
		if err != nil {
			return nil, fmt.Errorf("call %d: arguments: %w", i, err)
		}
		call := tokenizer.Object{{Key: "type", Value: "function"}, {Key: "function", Value: tokenizer.Object{
			{Key: "name", Value: t.Function.Name}, {Key: "arguments", Value: arguments}}}}
		if t.ID != "" {
			call = append(tokenizer.Object{{Key: "id", Value: t.ID}}, call...)
		}
		calls = append(calls, call)
	}
	return append(o, tokenizer.Member{Key: "tool_calls", Value: calls}), nil
}
