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
	messages := c.Messages
	if c.ContinueFinalMessage {
		var err error
		if messages, err = tagFinal(messages); err != nil {
			return "", err
		}
	}
	vars := maps.Clone(c.Variables)
	if vars == nil {
		vars = map[string]any{}
	}
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = m
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
	return cutFinal(text, messages[len(messages)-1])
}

// finalTag is put behind the last message's content and looked for in the text.
// Its space shows whether the template trims contents. As in transformers.
const finalTag = "CONTINUE_FINAL_MESSAGE_TAG "

// tagFinal returns messages with the tag behind the last one's content, or
// behind the last text of a content in parts.
func tagFinal(messages []Object) ([]Object, error) {
	if len(messages) == 0 {
		return nil, fmt.Errorf("chat: there is no final message to continue")
	}
	last := slices.Clone(messages[len(messages)-1])
	content, _ := last.Get("content")
	switch content := content.(type) {
	case string:
		last.Set("content", content+finalTag)
	case []any:
		parts := slices.Clone(content)
		i := len(parts) - 1
		for ; i >= 0; i-- {
			part, _ := parts[i].(Object)
			if text, ok := part.Get("text"); ok {
				s, ok := text.(string)
				if !ok {
					return nil, fmt.Errorf("chat: the final message's text is not a string")
				}
				part = slices.Clone(part)
				part.Set("text", s+finalTag)
				parts[i] = part
				break
			}
		}
		if i < 0 {
			return nil, fmt.Errorf("chat: the final message has no text to continue")
		}
		last.Set("content", parts)
	default:
		return nil, fmt.Errorf("chat: the final message has no content to continue")
	}
	return append(slices.Clone(messages[:len(messages)-1]), last), nil
}

// cutFinal cuts text where the tag stands.
func cutFinal(text string, last Object) (string, error) {
	tag := strings.TrimRight(finalTag, " ")
	at := strings.LastIndex(text, tag)
	if at < 0 {
		return "", fmt.Errorf("chat: the final message cannot be continued: the template leaves it out")
	}
	if strings.HasPrefix(text[at:], finalTag) {
		return text[:at], nil
	}
	return strings.TrimRightFunc(text[:at], unicode.IsSpace), nil
}
