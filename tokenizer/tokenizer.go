// Package tokenizer turns text into token ids and back, and conversations into
// the text a model was trained on.
//
// It reads the byte-level BPE tokenizers of GPT-2, Llama 3, Qwen2, Qwen3 and
// SmolLM2, from tokenizer.json or from the metadata of a GGUF file, and gives
// the ids of the Hugging Face tokenizers library: added tokens are cut out of
// the text first, what lies between them is normalized (NFC), split into pieces
// by the model's pre-tokenizer, and each piece is merged by BPE over its bytes
// (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).
// Every step takes time linear in the text, merging n log n in a single piece.
// Whatever a file asks for that is not built here is refused by name.
//
// Vocabulary, merge table and the merging of ordinary pieces are those of
// github.com/nlpodyssey/gotokenizers.
//
// A Tokenizer and a Template are safe for concurrent use; a Stream is not.
package tokenizer

import (
	"github.com/nlpodyssey/gotokenizers/vocabulary"
)

// A Tokenizer maps text to ids and ids to text.
type Tokenizer struct {
	vocab  *vocabulary.Vocabulary // the model's tokens, spelled in byte-level runes
	merge  *merger
	nfc    bool
	stages []stage
	before *matcher // added tokens found in the raw text
	after  *matcher // added tokens found in the normalized text
	added  map[string]int32
	tokens []token // by id
	prefix []int32 // what the post-processor puts in front
	suffix []int32 // and behind
	names  map[string]any
	chats  templates
	bos    int32
	eos    int32
}

// A token is what one id stands for. An id nobody uses has kind unused.
type token struct {
	text  string // as the file spells it
	bytes []byte // what it decodes to
	kind  kind
}

type kind uint8

const (
	unused  kind = iota
	model        // of the BPE vocabulary
	plain        // added, not special
	special      // added and special
)

// Size returns how many ids there are: the largest id plus one. Some of them
// may stand for no token.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// Token returns the token of an id as the file spells it: in byte-level runes
// ("Ġthe") unless it is an added one.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if !t.has(id) {
		return "", false
	}
	return t.tokens[id].text, true
}

// ID returns the id of a token spelled as Token spells it.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added[token]; ok {
		return id, true
	}
	id, ok := t.vocab.GetID(token)
	if !ok || !t.has(int32(id)) {
		return 0, false
	}
	return int32(id), true
}

// Special reports whether id is a special token: one that stands for structure,
// not for text.
func (t *Tokenizer) Special(id int32) bool {
	return t.has(id) && t.tokens[id].kind == special
}

// Bytes returns the bytes a token decodes to, which need not be whole runes;
// nil for an id without a token. The caller must not change them.
func (t *Tokenizer) Bytes(id int32) []byte {
	if !t.has(id) {
		return nil
	}
	return t.tokens[id].bytes
}

// BOS returns the id of the token that begins a sequence, if the files name one.
// Whether Encode adds it is the post-processor's decision.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos >= 0 }

// EOS returns the id of the token that ends a sequence or a turn, if the files
// name one.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos >= 0 }

func (t *Tokenizer) has(id int32) bool {
	return id >= 0 && int(id) < len(t.tokens) && t.tokens[id].kind != unused
}

// Encode returns the ids of text. Added tokens written in the text become their
// ids whether special is set or not; special adds what the model's
// post-processor puts around a sequence, such as a BOS token. A byte that has
// no token (some vocabularies lack a few) is left out, as in the reference.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	ids := make([]int32, 0, len(text)/3+8)
	if special {
		ids = append(ids, t.prefix...)
	}
	t.before.split(text, func(s string, id int32) {
		if id >= 0 {
			ids = append(ids, id)
			return
		}
		if t.nfc {
			s = compose(s)
		}
		t.after.split(s, func(s string, id int32) {
			if id >= 0 {
				ids = append(ids, id)
				return
			}
			ids = t.pieces(ids, s, t.stages)
		})
	})
	if special {
		ids = append(ids, t.suffix...)
	}
	return ids
}

// pieces splits s by the first stage and each part by the rest, and appends the
// ids of the pieces that come out.
func (t *Tokenizer) pieces(ids []int32, s string, stages []stage) []int32 {
	if len(stages) == 0 {
		return t.merge.encode(ids, s)
	}
	st := stages[0]
	if st.prefix && s != "" && s[0] != ' ' {
		s = " " + s
	}
	for len(s) > 0 {
		n := len(s)
		if st.next != nil {
			n = st.next(s)
		}
		ids = t.pieces(ids, s[:n], stages[1:])
		s = s[n:]
	}
	return ids
}
