package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
)

// file is tokenizer.json, as the Hugging Face tokenizers library writes it.
type file struct {
	Added  []addedToken `json:"added_tokens"`
	Norm   *component   `json:"normalizer"`
	Pre    *component   `json:"pre_tokenizer"`
	Post   *component   `json:"post_processor"`
	Decode *component   `json:"decoder"`
	Model  *modelFile   `json:"model"`
}

type modelFile struct {
	Type         string           `json:"type"`
	Vocab        json.RawMessage  `json:"vocab"`
	Merges       []mergeFile      `json:"merges"`
	Dropout      *float64         `json:"dropout"`
	Unk          *string          `json:"unk_token"`
	Prefix       *string          `json:"continuing_subword_prefix"`
	Suffix       *string          `json:"end_of_word_suffix"`
	FuseUnk      bool             `json:"fuse_unk"`
	ByteFallback bool             `json:"byte_fallback"`
	IgnoreMerges bool             `json:"ignore_merges"`
	vocab        map[string]int32 // what Vocab holds, once it is known to be BPE's
}

// A mergeFile is a merge as "a b" or as ["a", "b"].
type mergeFile [2]string

func (m *mergeFile) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		var line string
		if err := json.Unmarshal(data, &line); err != nil {
			return err
		}
		p, err := mergePair(line)
		*m = p
		return err
	}
	var two []string
	if err := json.Unmarshal(data, &two); err != nil {
		return err
	}
	if len(two) != 2 {
		return fmt.Errorf("merge %q is not two tokens", two)
	}
	*m = mergeFile(two)
	return nil
}

// A component is a normalizer, pre-tokenizer, post-processor or decoder: the
// fields of all that are known here.
type component struct {
	Type string `json:"type"`

	Normalizers   []component `json:"normalizers"`
	PreTokenizers []component `json:"pretokenizers"`
	Processors    []component `json:"processors"`
	Decoders      []component `json:"decoders"`

	AddPrefixSpace   bool     `json:"add_prefix_space"`
	UseRegex         *bool    `json:"use_regex"` // true where it is not said
	IndividualDigits bool     `json:"individual_digits"`
	Pattern          *pattern `json:"pattern"`
	Behavior         string   `json:"behavior"`
	Invert           bool     `json:"invert"`

	Single        []templateItem         `json:"single"`
	SpecialTokens map[string]templateIDs `json:"special_tokens"`
	Sep           *[2]json.RawMessage    `json:"sep"`
	Cls           *[2]json.RawMessage    `json:"cls"`
}

type pattern struct {
	Regex  *string
	String *string
}

type templateItem struct {
	SpecialToken *struct {
		ID string `json:"id"`
	}
	Sequence *struct {
		ID string `json:"id"`
	}
}

type templateIDs struct {
	IDs []int32 `json:"ids"`
}

// parseJSON reads tokenizer.json.
func parseJSON(data []byte) (*spec, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Model == nil {
		return nil, fmt.Errorf("there is no model in it")
	}
	if err := f.Model.check(&f); err != nil {
		return nil, err
	}
	s := &spec{vocab: f.Model.vocab, added: f.Added, whole: f.Model.IgnoreMerges, fuse: f.Model.FuseUnk}
	for _, m := range f.Model.Merges {
		s.merges = append(s.merges, m)
	}
	if f.Model.Unk != nil {
		s.unk = *f.Model.Unk
	}
	var err error
	if s.nfc, err = normalizer(f.Norm); err != nil {
		return nil, err
	}
	if s.stages, err = preTokenizer(f.Pre); err != nil {
		return nil, err
	}
	if s.prefix, s.suffix, err = postProcessor(f.Post); err != nil {
		return nil, err
	}
	return s, decoder(f.Decode)
}

// check refuses models whose ids would not come out right.
func (m *modelFile) check(f *file) error {
	if m.Type == "" && len(m.Merges) > 0 {
		m.Type = "BPE" // files from before types were written
	}
	switch {
	case m.Type != "BPE":
		return fmt.Errorf("model type %q is not supported, only byte-level BPE is", m.Type)
	case sentencePiece(f):
		return fmt.Errorf("this is a SentencePiece model in BPE's form (Llama 2, Mistral, Phi-3, Gemma), which is not supported: only byte-level BPE is")
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("model dropout %v makes ids random: not supported", *m.Dropout)
	case m.Prefix != nil && *m.Prefix != "":
		return fmt.Errorf("model continuing_subword_prefix %q is not supported", *m.Prefix)
	case m.Suffix != nil && *m.Suffix != "":
		return fmt.Errorf("model end_of_word_suffix %q is not supported", *m.Suffix)
	}
	if err := json.Unmarshal(m.Vocab, &m.vocab); err != nil {
		return fmt.Errorf("model vocab: %w", err)
	}
	if m.ByteFallback {
		for b, r := range byteRune {
			if _, ok := m.vocab[string(r)]; !ok {
				return fmt.Errorf("model byte_fallback is not supported, and byte %#02x has no token", b)
			}
		}
	}
	return nil
}

// sentencePiece recognises the conversions of SentencePiece models: spaces are
// written U+2581, by a normalizer or by Metaspace.
func sentencePiece(f *file) bool {
	if find(f.Pre, "ByteLevel") {
		return false
	}
	return find(f.Pre, "Metaspace") || find(f.Norm, "Prepend") || find(f.Norm, "Replace") ||
		find(f.Decode, "ByteFallback") || find(f.Decode, "Metaspace")
}

func find(c *component, kind string) bool {
	if c == nil {
		return false
	}
	in := func(d component) bool { return find(&d, kind) }
	return c.Type == kind || slices.ContainsFunc(c.Normalizers, in) ||
		slices.ContainsFunc(c.PreTokenizers, in) || slices.ContainsFunc(c.Decoders, in)
}

func normalizer(c *component) (nfc bool, err error) {
	switch {
	case c == nil:
		return false, nil
	case c.Type == "NFC":
		return true, nil
	case c.Type == "Sequence":
		for i := range c.Normalizers {
			one, err := normalizer(&c.Normalizers[i])
			if err != nil {
				return false, err
			}
			nfc = nfc || one
		}
		return nfc, nil
	}
	return false, fmt.Errorf("normalizer %q is not supported, only NFC is", c.Type)
}

// preTokenizer returns the stages of a pre-tokenizer, which must end in ByteLevel.
func preTokenizer(c *component) ([]stage, error) {
	if !find(c, "ByteLevel") {
		kind := "null"
		if c != nil {
			kind = c.Type
		}
		return nil, fmt.Errorf("pre_tokenizer %s has no ByteLevel in it: only byte-level BPE is supported", kind)
	}
	var stages []stage
	done := false
	var walk func(c *component) error
	walk = func(c *component) error {
		if c.Type == "Sequence" {
			for i := range c.PreTokenizers {
				if err := walk(&c.PreTokenizers[i]); err != nil {
					return err
				}
			}
			return nil
		}
		if done {
			return fmt.Errorf("pre_tokenizer %s after ByteLevel is not supported", c.Type)
		}
		st, err := splitter(c)
		if err != nil {
			return err
		}
		done = c.Type == "ByteLevel"
		if st.next != nil || st.prefix {
			stages = append(stages, st)
		}
		return nil
	}
	return stages, walk(c)
}

// splitter returns one pre-tokenizer as a stage.
func splitter(c *component) (stage, error) {
	switch c.Type {
	case "ByteLevel":
		st := stage{prefix: c.AddPrefixSpace}
		if c.UseRegex == nil || *c.UseRegex {
			st.next = gpt2Piece
		}
		return st, nil
	case "Digits":
		if c.IndividualDigits {
			return stage{next: digitPiece}, nil
		}
		return stage{next: func(s string) int { return digitsPiece(s, len(s)) }}, nil
	case "Split":
		if c.Pattern == nil || c.Pattern.Regex == nil {
			return stage{}, fmt.Errorf("pre_tokenizer Split by a string is not supported, only by the expressions of known models")
		}
		k, ok := patterns[*c.Pattern.Regex]
		if !ok {
			return stage{}, fmt.Errorf("pre_tokenizer Split: the expression %q is not one of a known model (GPT-2, Qwen2, Llama 3), and splitting by another one would give other ids", *c.Pattern.Regex)
		}
		// Where matches cover the text, to isolate them or to remove what is
		// between them is the same.
		if c.Behavior != "Isolated" && !(c.Behavior == "Removed" && c.Invert && k.covers) {
			return stage{}, fmt.Errorf("pre_tokenizer Split with behavior %s, invert %v is not supported", c.Behavior, c.Invert)
		}
		return stage{next: k.piece}, nil
	}
	return stage{}, fmt.Errorf("pre_tokenizer %q is not supported (ByteLevel, Digits and Split are)", c.Type)
}

// postProcessor returns the ids put around a sequence.
func postProcessor(c *component) (prefix, suffix []int32, err error) {
	if c == nil {
		return nil, nil, nil
	}
	switch c.Type {
	case "ByteLevel": // moves offsets, not ids
		return nil, nil, nil
	case "Sequence":
		for i := range c.Processors {
			p, s, err := postProcessor(&c.Processors[i])
			if err != nil {
				return nil, nil, err
			}
			prefix, suffix = append(p, prefix...), append(suffix, s...)
		}
		return prefix, suffix, nil
	case "TemplateProcessing":
		return c.template()
	case "RobertaProcessing", "BertProcessing":
		return c.surround()
	}
	return nil, nil, fmt.Errorf("post_processor %q is not supported", c.Type)
}

func (c *component) template() (prefix, suffix []int32, err error) {
	seen := false
	for _, item := range c.Single {
		switch {
		case item.Sequence != nil && !seen:
			seen = true
		case item.SpecialToken != nil:
			k, ok := c.SpecialTokens[item.SpecialToken.ID]
			if !ok {
				return nil, nil, fmt.Errorf("post_processor adds %q and does not say its ids", item.SpecialToken.ID)
			}
			if seen {
				suffix = append(suffix, k.IDs...)
			} else {
				prefix = append(prefix, k.IDs...)
			}
		default:
			return nil, nil, fmt.Errorf("post_processor: a template for one sequence must have it once")
		}
	}
	if !seen {
		return nil, nil, fmt.Errorf("post_processor: a template for one sequence must have it once")
	}
	return prefix, suffix, nil
}

// surround reads RoBERTa's form: cls in front, sep behind, each [token, id].
func (c *component) surround() (prefix, suffix []int32, err error) {
	for _, end := range []struct {
		pair *[2]json.RawMessage
		to   *[]int32
	}{{c.Cls, &prefix}, {c.Sep, &suffix}} {
		var id int32
		if end.pair == nil {
			return nil, nil, fmt.Errorf("post_processor %s lacks cls or sep", c.Type)
		}
		if err := json.Unmarshal(end.pair[1], &id); err != nil {
			return nil, nil, fmt.Errorf("post_processor %s: %w", c.Type, err)
		}
		*end.to = []int32{id}
	}
	return prefix, suffix, nil
}

func decoder(c *component) error {
	switch {
	case c == nil:
		return fmt.Errorf("decoder is null, which would leave byte-level runes in the text: only ByteLevel is supported")
	case c.Type == "ByteLevel":
		return nil
	case c.Type == "Sequence" && len(c.Decoders) == 1:
		return decoder(&c.Decoders[0])
	}
	return fmt.Errorf("decoder %q is not supported, only ByteLevel is", c.Type)
}
