package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Open reads the tokenizer of a model directory: tokenizer.json, and beside it,
// where they exist, tokenizer_config.json (names of special tokens, chat
// template) and chat_template.jinja. A directory with GPT-2's own pair
// encoder.json and vocab.bpe instead is read as GPT-2's tokenizer.
func Open(dir string) (*Tokenizer, error) {
	s, path, err := openVocabulary(dir)
	if err != nil {
		return nil, err
	}
	if err := s.openConfig(filepath.Join(dir, "tokenizer_config.json")); err != nil {
		return nil, err
	}
	if err := s.openTemplate(filepath.Join(dir, "chat_template.jinja")); err != nil {
		return nil, err
	}
	t, err := s.build()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func openVocabulary(dir string) (s *spec, path string, err error) {
	path = filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		encoder, bpe := filepath.Join(dir, "encoder.json"), filepath.Join(dir, "vocab.bpe")
		if exists(encoder) && exists(bpe) {
			s, err = openGPT2(encoder, bpe)
			return s, encoder, err
		}
		if exists(filepath.Join(dir, "tokenizer.model")) {
			return nil, path, fmt.Errorf("%s: only tokenizer.model is there: SentencePiece models are not supported, byte-level BPE in a tokenizer.json is", dir)
		}
	}
	if err != nil {
		return nil, path, fmt.Errorf("tokenizer: %w", err)
	}
	if s, err = parseJSON(data); err != nil {
		return nil, path, fmt.Errorf("%s: %w", path, err)
	}
	return s, path, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openGPT2 reads the two files GPT-2 was published with: the vocabulary, and the
// merges in order after a line with the version.
func openGPT2(encoder, bpe string) (*spec, error) {
	s := &spec{stages: []stage{{next: gpt2Piece}}}
	data, err := os.ReadFile(encoder)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if err := json.Unmarshal(data, &s.vocab); err != nil {
		return nil, fmt.Errorf("%s: %w", encoder, err)
	}
	merges, err := os.ReadFile(bpe)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	for i, line := range strings.Split(string(merges), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || i == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		p, err := mergePair(line)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", bpe, i+1, err)
		}
		s.merges = append(s.merges, p)
	}
	const end = "<|endoftext|>"
	if id, ok := s.vocab[end]; ok {
		s.added = []addedToken{{ID: id, Content: end, Special: true}}
		s.bos, s.eos = end, end
		s.names = map[string]any{"bos_token": end, "eos_token": end}
	}
	return s, nil
}

func mergePair(line string) ([2]string, error) {
	left, right, ok := strings.Cut(line, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return [2]string{}, fmt.Errorf("merge %q is not two tokens with a space between them", line)
	}
	return [2]string{left, right}, nil
}

// configFile is tokenizer_config.json: what of it changes ids or prompts.
type configFile struct {
	Template json.RawMessage       `json:"chat_template"`
	Added    map[string]addedToken `json:"added_tokens_decoder"`
}

// namedTokens are the special tokens a template may ask for by these names.
var namedTokens = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

func (s *spec) openConfig(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	if err := s.parseConfig(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (s *spec) parseConfig(data []byte) error {
	var c configFile
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if s.names == nil {
		s.names = map[string]any{}
	}
	for _, name := range namedTokens {
		text, err := tokenText(all[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if text != "" {
			s.names[name] = text
		}
	}
	if more, err := tokenTexts(all["additional_special_tokens"]); err != nil {
		return fmt.Errorf("additional_special_tokens: %w", err)
	} else if len(more) > 0 {
		s.names["additional_special_tokens"] = more
	}
	s.bos, _ = s.names["bos_token"].(string)
	s.eos, _ = s.names["eos_token"].(string)
	if err := s.addMissing(c.Added); err != nil {
		return err
	}
	return s.chats.read(c.Template)
}

// addMissing adds the tokens of added_tokens_decoder that tokenizer.json lacks.
func (s *spec) addMissing(decoder map[string]addedToken) error {
	known := map[string]bool{}
	for _, a := range s.added {
		known[a.Content] = true
	}
	for key, a := range decoder {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			return fmt.Errorf("added_tokens_decoder: %q is not an id", key)
		}
		if a.ID = int32(id); !known[a.Content] {
			s.added = append(s.added, a)
		}
	}
	return nil
}

// tokenText reads a token given as a string, as {"content": ...} or as null.
func tokenText(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	if raw[0] == '{' {
		var a addedToken
		err := json.Unmarshal(raw, &a)
		return a.Content, err
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err
}

func tokenTexts(raw json.RawMessage) (texts []any, err error) {
	var list []json.RawMessage
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	for _, item := range list {
		text, err := tokenText(item)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func (s *spec) openTemplate(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	t, err := ParseTemplate(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.chats.byName = map[string]*Template{defaultTemplate: t}
	return nil
}
