package tokenizer

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
)

// write makes a model directory of files.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func tinyJSON(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/tiny.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRefused: what a tokenizer.json asks for and cannot get is said by name, in one line.
func TestRefused(t *testing.T) {
	const byteLevel = `{"type": "ByteLevel", "add_prefix_space": false}`
	for _, c := range []struct{ key, value, want string }{
		{"model", `null`, "no model"},
		{"model", `{"type": "Unigram", "vocab": [["a", 0.5]]}`, `"Unigram"`},
		{"model", `{"type": "WordPiece", "vocab": {}}`, `"WordPiece"`},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}`, "dropout"},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"}`, "continuing_subword_prefix"},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}`, "end_of_word_suffix"},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": true}`, "byte_fallback"},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "?"}`, `unknown token "?"`},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}`, `"a b c"`},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}`, "two tokens"},
		{"model", `{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}`, "not all of them are in the vocabulary"},
		{"model", `{"type": "BPE", "vocab": {"a": 7, "b": 7}, "merges": []}`, "share id 7"},
		{"model", `{"type": "BPE", "vocab": {"a": -1}, "merges": []}`, "id -1"},
		{"model", `{"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}`, "id 2000000000"},
		{"model", `{"type": "BPE", "vocab": {"a": 1e99}, "merges": []}`, "vocab"},
		{"model", `{"type": "BPE", "vocab": "a", "merges": []}`, "vocab"},
		{"model", `{"type": "BPE"}`, "vocab"},
		{"normalizer", `{"type": "Lowercase"}`, `"Lowercase"`},
		{"normalizer", `{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}]}`, `"StripAccents"`},
		{"pre_tokenizer", `null`, "ByteLevel"},
		{"pre_tokenizer", `{"type": "Whitespace"}`, "ByteLevel"},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, ` + byteLevel + `]}`, `"Punctuation"`},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [` + byteLevel + `, {"type": "Digits"}]}`, "after ByteLevel"},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"}, ` + byteLevel + `]}`, `\\w+`},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}, ` + byteLevel + `]}`, "by a string"},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "MergedWithNext"}, ` + byteLevel + `]}`, "MergedWithNext"},
		{"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "Removed", "invert": true}, ` + byteLevel + `]}`, "Removed"},
		{"post_processor", `{"type": "Other"}`, `"Other"`},
		{"post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}], "special_tokens": {"<s>": {"ids": [0]}}}`, "must have it once"},
		{"post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {}}`, `"<x>"`},
		{"post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<x>": {"ids": [9999]}}}`, "9999"},
		{"post_processor", `{"type": "RobertaProcessing"}`, "cls or sep"},
		{"decoder", `null`, "decoder"},
		{"decoder", `{"type": "Metaspace"}`, `"Metaspace"`},
		{"added_tokens", `[{"id": 5, "content": "<x>"}]`, "share id 5"},
		{"added_tokens", `[{"id": 500, "content": "<x>"}, {"id": 501, "content": "<x>"}]`, "500 and 501"},
		{"added_tokens", `[{"id": 500, "content": "<x>"}, {"id": 500, "content": "<y>"}]`, "share id 500"},
		{"added_tokens", `[{"id": 500, "content": "a"}]`, "in the vocabulary it has"},
		{"added_tokens", `[{"id": 2000000000, "content": "<x>"}]`, "2000000000"},
		{"added_tokens", `{}`, "added_tokens"},
	} {
		var f map[string]json.RawMessage
		if err := json.Unmarshal([]byte(tinyJSON(t)), &f); err != nil {
			t.Fatal(err)
		}
		f[c.key] = json.RawMessage(c.value)
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		dir := write(t, map[string]string{"tokenizer.json": string(data)})
		_, err = Open(dir)
		checkError(t, err, filepath.Join(dir, "tokenizer.json"), c.want)
	}
}

// checkError wants one line that holds all of parts.
func checkError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q, want one line with %q", err, part)
		}
	}
}

// TestRefusedSentencePiece: Llama 2's and Phi-3's form of a tokenizer.json, and a
// directory with their model file only.
func TestRefusedSentencePiece(t *testing.T) {
	dir := write(t, map[string]string{"tokenizer.json": `{"added_tokens": [], "pre_tokenizer": null,
		"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
		"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
		"model": {"type": "BPE", "vocab": {"<unk>": 0, "▁": 1}, "merges": [], "byte_fallback": true, "unk_token": "<unk>"}}`})
	_, err := Open(dir)
	checkError(t, err, "SentencePiece", "Phi-3")
	_, err = Open(write(t, map[string]string{"tokenizer.model": "x"}))
	checkError(t, err, "SentencePiece", "tokenizer.model")
}

func TestOpenMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nowhere")
	_, err := Open(dir)
	checkError(t, err, filepath.Join(dir, "tokenizer.json"))
	for name, text := range map[string]string{
		"tokenizer.json":        tinyJSON(t)[:500],
		"tokenizer_config.json": `{"bos_token": 7}`,
		"chat_template.jinja":   `{% if %}`,
	} {
		files := map[string]string{"tokenizer.json": tinyJSON(t), name: text}
		_, err := Open(write(t, files))
		checkError(t, err, name)
	}
	for _, config := range []string{
		`{`, `{"chat_template": 5}`, `{"chat_template": "{{ x"}`, `{"chat_template": [5]}`, `{"added_tokens_decoder": {"x": {"content": "y"}}}`,
		`{"additional_special_tokens": 5}`, `{"additional_special_tokens": [5]}`, `{"eos_token": {"content": []}}`,
	} {
		_, err := Open(write(t, map[string]string{"tokenizer.json": tinyJSON(t), "tokenizer_config.json": config}))
		checkError(t, err, "tokenizer_config.json")
	}
}

// TestConfig: special tokens by name, tokens only the config lists, templates by name.
func TestConfig(t *testing.T) {
	dir := write(t, map[string]string{"tokenizer.json": tinyJSON(t), "tokenizer_config.json": `{
		"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null, "unk_token": "<none>",
		"additional_special_tokens": ["<s>", {"content": "<think>"}],
		"added_tokens_decoder": {"0": {"content": "<s>", "special": true}, "450": {"content": "<think>", "special": false}},
		"chat_template": [
			{"name": "default", "template": "{{ bos_token }}{{ pad_token }}{{ messages[0].content }}{{ additional_special_tokens | join }}"},
			{"name": "tool_use", "template": "tools {{ tools | tojson }}"}]}`})
	tok, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	bos, bok := tok.BOS()
	eos, eok := tok.EOS()
	if bos != 0 || eos != 1 || !bok || !eok {
		t.Errorf("BOS %d %v, EOS %d %v", bos, bok, eos, eok)
	}
	if ids := tok.Encode("<think><s>", false); !slices.Equal(ids, []int32{450, 0}) || tok.Special(450) || !tok.Special(0) || tok.Size() != 451 {
		t.Errorf("ids %d, special %v %v, size %d", ids, tok.Special(450), tok.Special(0), tok.Size())
	}
	if _, ok := tok.Token(445); ok || tok.Bytes(445) != nil || tok.Bytes(-1) != nil || tok.Bytes(999) != nil || tok.Decode([]int32{445, -1, 999}, false) != "" {
		t.Error("an id without a token has one")
	}
	checkChat(t, tok, Chat{Messages: Turns("user", "hi")}, "<s>hi<s><think>")
	checkChat(t, tok, Chat{Messages: Turns("user", "hi"), Variables: map[string]any{"bos_token": "B"}}, "Bhi<s><think>")
	checkChat(t, tok, Chat{Messages: Turns("user", "hi"), Tools: []any{Object{{Key: "z", Value: 1}, {Key: "a", Value: 2.0}}}}, `tools [{"z": 1, "a": 2.0}]`)

	if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte("file {{ eos_token }}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tok, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	checkChat(t, tok, Chat{}, "file </s>")
}

func checkChat(t *testing.T, tok *Tokenizer, c Chat, want string) {
	t.Helper()
	if got, err := tok.Chat(c); err != nil || got != want || !tok.HasTemplate() {
		t.Errorf("chat gave %q (%v), want %q", got, err, want)
	}
}

func TestChatRefused(t *testing.T) {
	bare, err := Open(write(t, map[string]string{"tokenizer.json": tinyJSON(t)}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bare.Chat(Chat{}); !errors.Is(err, ErrNoTemplate) || bare.HasTemplate() {
		t.Errorf("got %v", err)
	}
	if _, ok := bare.EOS(); ok {
		t.Error("EOS without a name")
	}
	tok, err := Open(write(t, map[string]string{"tokenizer.json": tinyJSON(t), "tokenizer_config.json": `{"chat_template": "{% for m in messages %}{{ m.content | upper }}{% endfor %}{{ x.y }}"}`}))
	if err != nil {
		t.Fatal(err)
	}
	x := map[string]any{"x": Object{}}
	for name, c := range map[string]Chat{
		"'x' is undefined": {Messages: Turns("user", "hi")},
		"started":          {Messages: Turns("user", "hi"), ContinueFinalMessage: true, AddGenerationPrompt: true, Variables: x},
		"no final message": {ContinueFinalMessage: true, Variables: x},
		"no content":       {Messages: []Object{{{Key: "role", Value: "user"}}}, ContinueFinalMessage: true, Variables: x},
		"no text":          {Messages: []Object{{{Key: "content", Value: []any{}}}}, ContinueFinalMessage: true, Variables: x},
		"changes it":       {Messages: Turns("user", "hi"), ContinueFinalMessage: true, Variables: x},
		"a value of type":  {Messages: Turns("user", "hi"), Variables: map[string]any{"x": make(chan int)}},
	} {
		_, err := tok.Chat(c)
		checkError(t, err, name)
	}
}

// TestQwen3Config: Qwen3's configuration over Qwen2.5's vocabulary has four more tokens.
func TestQwen3Config(t *testing.T) {
	files := map[string]string{}
	for to, from := range map[string]string{"tokenizer.json": "tokenizer.json", "tokenizer_config.json": "qwen3_tokenizer_config.json"} {
		data, err := os.ReadFile(modeltest.Shared(t, "data", "tokenizer_qwen2_5", from))
		if err != nil {
			t.Fatal(err)
		}
		files[to] = string(data)
	}
	tok, err := Open(write(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("<think></think><|im_end|>", true); !slices.Equal(ids, []int32{151667, 151668, 151645}) {
		t.Errorf("got %d", ids)
	}
	if id, ok := tok.EOS(); id != 151645 || !ok {
		t.Errorf("EOS %d %v", id, ok)
	}
	checkChat(t, tok, Chat{Messages: Turns("user", "hi"), AddGenerationPrompt: true, Variables: map[string]any{"enable_thinking": false}},
		"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
}

func TestGGUFRefused(t *testing.T) {
	good := GGUF{Model: "gpt2", Pre: "gpt-2", Tokens: []string{"a", "b", "ab", "<s>"}, Types: []int32{1, 1, 1, 3}, Merges: []string{"a b"}, BOS: 3, EOS: -1, AddBOS: true}
	tok, err := FromGGUF(good)
	if err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("ab<s>", true); !slices.Equal(ids, []int32{3, 2, 3}) {
		t.Errorf("got %d", ids)
	}
	ends := good
	ends.EOS, ends.AddEOS, ends.Template = 3, true, "{{ eos_token }}"
	if tok, err = FromGGUF(ends); err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("ab", true); !slices.Equal(ids, []int32{3, 2, 3}) {
		t.Errorf("got %d", ids)
	}
	checkChat(t, tok, Chat{}, "<s>")
	for want, change := range map[string]func(*GGUF){
		"SentencePiece": func(v *GGUF) { v.Model = "llama" },
		`"bert"`:        func(v *GGUF) { v.Model = "bert" },
		`"tekken"`:      func(v *GGUF) { v.Pre = "tekken" },
		"token types":   func(v *GGUF) { v.Types = v.Types[:2] },
		"ids 0 and 1":   func(v *GGUF) { v.Tokens = []string{"a", "a", "ab", "<s>"} },
		"merge 0":       func(v *GGUF) { v.Merges = []string{"ab"} },
		"a":             func(v *GGUF) { v.Merges = []string{"a c"} },
		"bos_token":     func(v *GGUF) { v.BOS = 4 },
		"none is named": func(v *GGUF) { v.BOS = -1 },
		"chat template": func(v *GGUF) { v.Template = "{{" },
	} {
		v := good
		change(&v)
		_, err := FromGGUF(v)
		checkError(t, err, "gguf", want)
	}
}

// FuzzTokenizerJSON: no tokenizer.json makes reading it panic, nor encoding with
// one that was accepted.
func FuzzTokenizerJSON(f *testing.F) {
	f.Add([]byte(`{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
		"added_tokens": [{"id": 3, "content": "<x>", "lstrip": true, "rstrip": true, "single_word": true, "normalized": true}], "normalizer": {"type": "NFC"}}`))
	golden := readTiny(f)
	for _, c := range golden.Cases {
		over := maps.Clone(c.Over)
		over["model"] = map[string]any{"type": "BPE", "vocab": map[string]any{"a": 0, "b": 1, "ab": 2}, "merges": []any{"a b"}, "unk_token": "a"}
		data, err := json.Marshal(over)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseJSON(data)
		if err != nil {
			return
		}
		tok, err := s.build()
		if err != nil {
			return
		}
		for _, text := range golden.Texts {
			checkStream(t, tok, tok.Encode(text, true))
		}
	})
}
