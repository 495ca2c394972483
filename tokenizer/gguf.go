package tokenizer

import (
	"fmt"
)

// A GGUF is what the metadata of a GGUF file says of its tokenizer.
type GGUF struct {
	Model    string   // tokenizer.ggml.model: "gpt2" for byte-level BPE
	Pre      string   // tokenizer.ggml.pre: the pre-tokenizer's name
	Tokens   []string // by id
	Types    []int32  // of each token, as llama.cpp numbers them; may be empty
	Merges   []string // "a b", in order of rank
	BOS, EOS int      // ids, -1 for none
	AddBOS   bool     // Encode with special begins with BOS
	AddEOS   bool     // and ends with EOS
	Template string   // chat template, "" for none
}

// Token types of GGUF.
const (
	ggufNormal  = 1
	ggufUnknown = 2
	ggufControl = 3
	ggufUser    = 4
)

// ggufPre says how the models behind tokenizer.ggml.pre prepare text.
var ggufPre = map[string]struct {
	stages []stage
	nfc    bool
	whole  bool
}{
	"gpt-2":            {stages: []stage{{next: gpt2Piece}}},
	"qwen2":            {stages: []stage{{next: patterns[qwen2Pattern].piece}}, nfc: true},
	"deepseek-r1-qwen": {stages: []stage{{next: patterns[qwen2Pattern].piece}}},
	"llama3":           {stages: []stage{{next: patterns[llama3Pattern].piece}}, whole: true},
	"llama-v3":         {stages: []stage{{next: patterns[llama3Pattern].piece}}, whole: true},
	"llama-bpe":        {stages: []stage{{next: patterns[llama3Pattern].piece}}, whole: true},
	"smollm":           {stages: []stage{{next: digitPiece}, {next: gpt2Piece}}},
}

// FromGGUF builds a tokenizer from GGUF metadata.
func FromGGUF(v GGUF) (*Tokenizer, error) {
	s, err := v.spec()
	if err != nil {
		return nil, fmt.Errorf("gguf tokenizer: %w", err)
	}
	t, err := s.build()
	if err != nil {
		return nil, fmt.Errorf("gguf tokenizer: %w", err)
	}
	return t, nil
}

func (v *GGUF) spec() (*spec, error) {
	switch v.Model {
	case "gpt2":
	case "llama":
		return nil, fmt.Errorf("tokenizer.ggml.model %q is a SentencePiece model (Llama 2, Mistral, Phi-3), which is not supported: only byte-level BPE (gpt2) is", v.Model)
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model %q is not supported: only byte-level BPE (gpt2) is", v.Model)
	}
	pre, ok := ggufPre[v.Pre]
	if !ok {
		return nil, fmt.Errorf("tokenizer.ggml.pre %q is not a known pre-tokenizer (gpt-2, llama-bpe, qwen2, deepseek-r1-qwen, smollm)", v.Pre)
	}
	if len(v.Types) != 0 && len(v.Types) != len(v.Tokens) {
		return nil, fmt.Errorf("%d tokens and %d token types", len(v.Tokens), len(v.Types))
	}
	s := &spec{
		vocab:  make(map[string]int32, len(v.Tokens)),
		stages: pre.stages, nfc: pre.nfc, whole: pre.whole,
		names: map[string]any{},
	}
	for i, text := range v.Tokens {
		kind := int32(ggufNormal)
		if len(v.Types) != 0 {
			kind = v.Types[i]
		}
		switch kind {
		case ggufControl, ggufUnknown, ggufUser:
			s.added = append(s.added, addedToken{ID: int32(i), Content: text, Special: kind != ggufUser})
		default:
			if first, twice := s.vocab[text]; twice {
				return nil, fmt.Errorf("token %q has ids %d and %d", text, first, i)
			}
			s.vocab[text] = int32(i)
		}
	}
	for i, line := range v.Merges {
		p, err := mergePair(line)
		if err != nil {
			return nil, fmt.Errorf("merge %d: %w", i, err)
		}
		s.merges = append(s.merges, p)
	}
	return s, v.ends(s)
}

// ends enters BOS, EOS and the template.
func (v *GGUF) ends(s *spec) error {
	for _, end := range []struct {
		id   int
		name string
		text *string
	}{{v.BOS, "bos_token", &s.bos}, {v.EOS, "eos_token", &s.eos}} {
		if end.id < 0 {
			continue
		}
		if end.id >= len(v.Tokens) {
			return fmt.Errorf("%s has id %d, there are %d tokens", end.name, end.id, len(v.Tokens))
		}
		*end.text = v.Tokens[end.id]
		s.names[end.name] = *end.text
	}
	if v.AddBOS {
		if v.BOS < 0 {
			return fmt.Errorf("a BOS token is to be added and none is named")
		}
		s.prefix = []int32{int32(v.BOS)}
	}
	if v.AddEOS {
		if v.EOS < 0 {
			return fmt.Errorf("an EOS token is to be added and none is named")
		}
		s.suffix = []int32{int32(v.EOS)}
	}
	if v.Template == "" {
		return nil
	}
	t, err := ParseTemplate(v.Template)
	s.chats.byName = map[string]*Template{defaultTemplate: t}
	return err
}
