package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// A Chat is a conversation to be written as the text a model was trained on.
type Chat struct {
	Messages []Object // each with "role" and "content", and whatever else the template knows
	Tools    []any    // descriptions of functions the model may call; nil for none

	AddGenerationPrompt  bool // ends with the start of an assistant's turn
	ContinueFinalMessage bool // ends inside the last message, to be continued

	// Variables are further variables of the template, such as
	// enable_thinking. They win over the names of the special tokens.
	Variables map[string]any
}

// Turns makes messages from roles and contents in turn: "user", "Hi", ....
func Turns(roleContent ...string) []Object {
	var messages []Object
	for pair := range slices.Chunk(roleContent, 2) {
		m := Object{{Key: "role", Value: pair[0]}}
		if len(pair) == 2 {
			m = append(m, Member{Key: "content", Value: pair[1]})
		}
		messages = append(messages, m)
	}
	return messages
}

// ErrNoTemplate says that the model's files have no chat template.
var ErrNoTemplate = errors.New("this tokenizer has no chat template")

// HasTemplate reports whether Chat can work.
func (t *Tokenizer) HasTemplate() bool { return len(t.chats.byName) > 0 }

// Chat writes a conversation with the model's template. The text already holds
// the special tokens the model wants, so it is encoded without adding any.
func (t *Tokenizer) Chat(c Chat) (string, error) {
	template, err := t.chats.pick(len(c.Tools) > 0)
	if err != nil {
		return "", err
	}
	names := maps.Clone(t.names)
	if names == nil {
		names = map[string]any{}
	}
	maps.Copy(names, c.Variables)
	c.Variables = names
	return template.Chat(c)
}

// templates are the chat templates of a tokenizer; most have one.
type templates struct{ byName map[string]*Template }

const (
	defaultTemplate = "default"
	toolTemplate    = "tool_use"
)

// pick returns the template for a chat, one with tools or one without.
func (t *templates) pick(tools bool) (*Template, error) {
	if k, ok := t.byName[toolTemplate]; ok && tools {
		return k, nil
	}
	if k, ok := t.byName[defaultTemplate]; ok {
		return k, nil
	}
	if len(t.byName) == 0 {
		return nil, ErrNoTemplate
	}
	return nil, fmt.Errorf("there are chat templates %q and none of them is %q", slices.Sorted(maps.Keys(t.byName)), defaultTemplate)
}

// read takes chat_template of tokenizer_config.json: one template, or a list of
// named ones.
func (t *templates) read(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	type named struct{ Name, Template string }
	var list []named
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &list); err != nil {
			return fmt.Errorf("chat_template: %w", err)
		}
	} else {
		list = []named{{Name: defaultTemplate}}
		if err := json.Unmarshal(raw, &list[0].Template); err != nil {
			return fmt.Errorf("chat_template: %w", err)
		}
	}
	t.byName = map[string]*Template{}
	for _, n := range list {
		k, err := ParseTemplate(n.Template)
		if err != nil {
			return fmt.Errorf("chat_template %s: %w", n.Name, err)
		}
		t.byName[n.Name] = k
	}
	return nil
}

// Chat writes a conversation with this template; Variables have to name the
// special tokens it uses (bos_token and so on).
func (t *Template) Chat(c Chat) (string, error) {
	if c.ContinueFinalMessage && c.AddGenerationPrompt {
		return "", fmt.Errorf("chat: a final message cannot be continued and a new one started")
	}
	messages, final := c.Messages, ""
	if c.ContinueFinalMessage {
		var err error
		if messages, final, err = tagFinal(messages); err != nil {
			return "", err
		}
	}
	vars := maps.Clone(c.Variables)
	if vars == nil {
		vars = map[string]any{}
	}
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = aliased(m)
	}
	vars["messages"] = list
	vars["add_generation_prompt"] = c.AddGenerationPrompt
	vars["tools"] = nil
	if c.Tools != nil {
		vars["tools"] = c.Tools
	}
	vars["documents"] = nil
	text, err := t.t.Render(vars)
	if err != nil {
		return "", fmt.Errorf("chat template: %w", err)
	}
	if !c.ContinueFinalMessage {
		return text, nil
	}
	return cutFinal(text, final)
}

// aliased gives a message its reasoning under the names templates read it by
// (transformers does the same): "reasoning_content", and "thinking" where that is missing.
func aliased(m Object) Object {
	for _, name := range []string{"reasoning_content", "thinking", "reasoning"} {
		reasoning, _ := m.Get(name)
		if reasoning == nil {
			continue
		}
		with := slices.Clone(m)
		if _, ok := m.Get("thinking"); !ok {
			with = append(Object{{Key: "thinking", Value: reasoning}}, m...)
		}
		with.Set("reasoning_content", reasoning)
		return with
	}
	return m
}

// finalTag is put behind the last message's content and looked for in the text.
// Its space shows whether the template trims contents. As in transformers.
const finalTag = "CONTINUE_FINAL_MESSAGE_TAG "

// tagFinal returns messages with the tag behind the last one's content, or
// behind the last text of a content in parts, and that content or text.
func tagFinal(messages []Object) (tagged []Object, final string, err error) {
	if len(messages) == 0 {
		return nil, "", fmt.Errorf("chat: there is no final message to continue")
	}
	last := slices.Clone(messages[len(messages)-1])
	content, _ := last.Get("content")
	switch content := content.(type) {
	case string:
		final = content
		last.Set("content", content+finalTag)
	case []any:
		parts := slices.Clone(content)
		if final, err = tagParts(parts); err != nil {
			return nil, "", err
		}
		last.Set("content", parts)
	default:
		return nil, "", fmt.Errorf("chat: the final message has no content to continue")
	}
	return append(slices.Clone(messages[:len(messages)-1]), last), final, nil
}

// tagParts puts the tag behind the last text of parts, which it changes.
func tagParts(parts []any) (final string, err error) {
	for i, p := range slices.Backward(parts) {
		part, _ := p.(Object)
		if text, ok := part.Get("text"); ok {
			final, ok := text.(string)
			if !ok {
				return "", fmt.Errorf("chat: the final message's text is not a string")
			}
			part = slices.Clone(part)
			part.Set("text", final+finalTag)
			parts[i] = part
			return final, nil
		}
	}
	return "", fmt.Errorf("chat: the final message has no text to continue")
}

// cutFinal cuts text where the tag stands, behind the final message.
func cutFinal(text, final string) (string, error) {
	at := strings.LastIndex(text, strings.TrimRight(finalTag, " "))
	if at < 0 || !strings.Contains(text, strings.TrimSpace(final)) {
		return "", fmt.Errorf("chat: the final message cannot be continued: the template changes it or leaves it out")
	}
	if strings.HasPrefix(text[at:], finalTag) {
		return text[:at], nil
	}
	return strings.TrimRightFunc(text[:at], unicode.IsSpace), nil
}
