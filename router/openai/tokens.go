package openai

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"

	"github.com/r2-reasoner/r2/router"
)

// A Tokenizer is a Model whose text can be taken apart.
type Tokenizer interface {
	// Tokenize gives the ids of a completion's one prompt, or of a chat's conversation.
	Tokenize(c *Call) ([]int32, error)
	// Detokenize gives the text of ids, and the bytes of each.
	Detokenize(ids []int32) (text string, pieces []string, err error)
}

// What tokenize takes of the two endpoints' parameters.
var ofTokenize = map[bool][]string{
	false: {"model", "prompt", "add_special_tokens"},
	true: {"model", "messages", "add_special_tokens", "add_generation_prompt", "continue_final_message", "tools", "tool_choice",
		"chat_template_kwargs"},
}

func (h *Handler) tokenizer(model string) (Tokenizer, error) {
	m, ok := h.find(model)
	if !ok {
		return nil, &unknownModel{model}
	}
	t, ok := m.(Tokenizer)
	if !ok {
		return nil, &router.ParamError{Param: "model", Reason: "this one has no tokens here: it is not in this process"}
	}
	return t, nil
}

func (h *Handler) tokenize(w http.ResponseWriter, _ *http.Request, body []byte) {
	values, err := envelope(body)
	if err != nil {
		fail(w, err, nil)
		return
	}
	_, chat := values["messages"]
	known, pieces := map[string]setter{}, false
	for _, name := range ofTokenize[chat] {
		known[name] = params(chat)[name]
	}
	known["return_token_strs"] = func(_ *Call, raw json.RawMessage) error { return boolean(raw, &pieces) }
	c, err := call(maps.Clone(values), chat, known)
	if err == nil && len(c.Prompts) > 1 || err == nil && len(c.Prompts) == 1 && c.Prompts[0].IDs != nil {
		err = &router.ParamError{Param: "prompt", Reason: "want one text"}
	}
	var t Tokenizer
	if err == nil {
		t, err = h.tokenizer(c.Model)
	}
	var ids []int32
	if err == nil {
		ids, err = t.Tokenize(c)
	}
	var strs []string
	if err == nil && pieces {
		_, strs, err = t.Detokenize(ids)
	}
	if err != nil {
		fail(w, err, nil)
		return
	}
	out := map[string]any{"count": len(ids), "tokens": append([]int32{}, ids...), "token_strs": strs}
	for _, card := range h.cards() {
		if card.Name == c.Model && card.Context > 0 {
			out["max_model_len"] = card.Context
		}
	}
	reply(w, http.StatusOK, out)
}

func (h *Handler) detokenize(w http.ResponseWriter, _ *http.Request, body []byte) {
	model, list := "", []int32(nil)
	err := fields(body, map[string]func(json.RawMessage) error{
		"model":  func(raw json.RawMessage) error { return str(raw, &model) },
		"tokens": func(raw json.RawMessage) (err error) { list, err = ids(raw, math.MaxInt32); return err },
	}, "model", "tokens")
	var t Tokenizer
	if err == nil {
		t, err = h.tokenizer(model)
	}
	text := ""
	if err == nil {
		text, _, err = t.Detokenize(list)
	}
	if err != nil {
		fail(w, err, nil)
		return
	}
	reply(w, http.StatusOK, map[string]string{"prompt": text})
}
