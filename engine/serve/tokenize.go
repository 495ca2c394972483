package serve

import (
	"strings"

	"github.com/r2-reasoner/r2/router/openai"
)

// Tokenize gives the ids of a call's one prompt, or of its conversation.
func (m *Model) Tokenize(c *openai.Call) ([]int32, error) {
	if c.Chat != nil {
		return m.chat(c)
	}
	return m.Tokenizer.Encode(c.Prompts[0].Text, c.SpecialTokens == nil || *c.SpecialTokens), nil
}

// Detokenize gives the text of ids, special tokens as they are spelled, and the bytes of each.
func (m *Model) Detokenize(ids []int32) (text string, pieces []string, err error) {
	pieces = make([]string, len(ids))
	for i, id := range ids {
		if int(id) >= m.Vocab {
			return "", nil, refuse("tokens", "token %d is %d, the vocabulary has %d", i, id, m.Vocab)
		}
		pieces[i] = string(m.Tokenizer.Bytes(id))
	}
	return strings.ToValidUTF8(m.Tokenizer.Decode(ids, false), "\uFFFD"), pieces, nil
}
