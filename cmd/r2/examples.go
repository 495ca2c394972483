package main

import (
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/train/sft"
)

// An example is a row to train on or to score, as the files of sft and logprobs have it: messages,
// prompt and completion, or tokens with the mask of those to learn.
type example struct {
	Messages   []router.Message `json:"messages"`
	Prompt     *string          `json:"prompt"`
	Completion *string          `json:"completion"`
	Tokens     []int32          `json:"tokens"`
	Mask       []int            `json:"mask"`
}

// A vocabulary checks and makes token ids. text is nil for a model without a tokenizer.
type vocabulary struct {
	text *tokenizer.Tokenizer
	size int
	eos  []int32
}

// check reports the first id that is not in the vocabulary.
func (v *vocabulary) check(ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= v.size {
			return fmt.Errorf("token %d is id %d; the vocabulary has ids 0 to %d", i, id, v.size-1)
		}
	}
	return nil
}

func (v *vocabulary) need() error {
	if v.text == nil {
		return fmt.Errorf("the model has no tokenizer: give rows of {\"tokens\"}")
	}
	return nil
}

// learn turns a row into an example to train on. end appends the end-of-text token to a completion.
func (v *vocabulary) learn(e *example, end bool) (sft.Example, error) {
	tokens, mask, err := v.tokens(e, end)
	if err == nil && !slices.Contains(mask[1:], true) {
		err = fmt.Errorf("there is nothing to learn in the row: no assistant's turn, an empty completion, or a mask of zeros")
	}
	return sft.Example{Tokens: tokens, Mask: mask}, err
}

// tokens gives a row's ids, and which of them are the part to learn: the completion, what assistants
// say, or what the mask says.
func (v *vocabulary) tokens(e *example, end bool) (ids []int32, mask []bool, err error) {
	switch {
	case e.Tokens != nil:
		ids, mask, err = v.given(e)
	case e.Messages != nil:
		ids, mask, err = v.conversation(e.Messages)
	case e.Prompt != nil && e.Completion != nil:
		ids, mask, err = v.completion(*e.Prompt, *e.Completion, end)
	default:
		return nil, nil, fmt.Errorf(`want "messages", "prompt" and "completion", or "tokens"`)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(ids) == 0 {
		return nil, nil, fmt.Errorf("the row is empty")
	}
	return ids, mask, v.check(ids)
}

func (v *vocabulary) given(e *example) ([]int32, []bool, error) {
	mask := make([]bool, len(e.Tokens))
	if e.Mask != nil && len(e.Mask) != len(e.Tokens) {
		return nil, nil, fmt.Errorf("mask has %d entries for %d tokens", len(e.Mask), len(e.Tokens))
	}
	for i := range mask {
		mask[i] = e.Mask == nil || e.Mask[i] != 0
	}
	return e.Tokens, mask, nil
}

func (v *vocabulary) completion(prompt, completion string, end bool) (ids []int32, mask []bool, err error) {
	if err := v.need(); err != nil {
		return nil, nil, err
	}
	ids = v.text.Encode(prompt, true)
	n := len(ids)
	ids = append(ids, v.text.Encode(completion, false)...)
	if end && len(v.eos) > 0 && (len(ids) == n || !slices.Contains(v.eos, ids[len(ids)-1])) {
		eos := v.eos[0]
		if id, ok := v.text.EOS(); ok {
			eos = id
		}
		ids = append(ids, eos)
	}
	mask = make([]bool, len(ids))
	for i := n; i < len(ids); i++ {
		mask[i] = true
	}
	return ids, mask, nil
}

// conversation renders messages with the chat template. An assistant's turn is what the template adds
// to the prompt for it, up to the first end-of-text token; it is encoded apart from that prompt, as
// it is when the model writes it.
func (v *vocabulary) conversation(ms []router.Message) (ids []int32, mask []bool, err error) {
	if err := v.need(); err != nil {
		return nil, nil, err
	}
	done := ""
	add := func(text string, learn bool) {
		for _, id := range v.text.Encode(text, false) {
			ids, mask = append(ids, id), append(mask, learn)
			learn = learn && !slices.Contains(v.eos, id)
		}
	}
	for i, m := range ms {
		if m.Role != "assistant" {
			continue
		}
		prompt, err := v.render(ms[:i], true)
		if err != nil {
			return nil, nil, err
		}
		turn, err := v.render(ms[:i+1], false)
		if err != nil {
			return nil, nil, err
		}
		if len(prompt) < len(done) || prompt[:len(done)] != done || len(turn) < len(prompt) || turn[:len(prompt)] != prompt {
			return nil, nil, fmt.Errorf("the chat template rewrites earlier turns, so an assistant's part cannot be told apart; give prompt and completion")
		}
		add(prompt[len(done):], false)
		add(turn[len(prompt):], true)
		done = turn
	}
	if len(ms) > 0 && ms[len(ms)-1].Role != "assistant" { // what follows the last answer is only read
		all, err := v.render(ms, false)
		if err != nil {
			return nil, nil, err
		}
		if len(all) > len(done) && all[:len(done)] == done {
			add(all[len(done):], false)
		}
	}
	return ids, mask, nil
}

// render is the chat template's text for messages.
func (v *vocabulary) render(ms []router.Message, generate bool) (string, error) {
	var turns []string
	for _, m := range ms {
		turns = append(turns, m.Role, m.Content)
	}
	return v.text.Chat(tokenizer.Chat{Messages: tokenizer.Turns(turns...), AddGenerationPrompt: generate})
}
