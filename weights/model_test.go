package weights_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// models are the goldens that are computed here, with their configurations.
var models = []struct {
	name string
	want weights.Config
}{
	{"qwen2_f32", weights.Config{
		Architecture: "qwen2", Layers: 2, Hidden: 64, Heads: 4, KVHeads: 2, HeadDim: 16, FFN: 80, Vocab: 384, Context: 512,
		Theta: 1e4, Eps: 1e-6, QKVBias: true, DType: "float32", BOS: 1, PAD: 0, EOS: []int{2},
	}},
	{"qwen2_tied_bf16_sharded", weights.Config{
		Architecture: "qwen2", Layers: 3, Hidden: 64, Heads: 4, KVHeads: 1, HeadDim: 16, FFN: 112, Vocab: 416, Context: 512,
		Theta: 1e6, Eps: 1e-6, QKVBias: true, TieEmbeddings: true, DType: "bfloat16", BOS: 1, PAD: 0, EOS: []int{2},
	}},
	{"llama_rope3", weights.Config{
		Architecture: "llama", Layers: 2, Hidden: 72, Heads: 6, KVHeads: 2, HeadDim: 24, FFN: 80, Vocab: 400, Context: 512,
		Theta: 1e4, Eps: 1e-5, DType: "float16", BOS: 1, PAD: 0, EOS: []int{2},
		RopeScaling: &weights.Llama3Scaling{Factor: 8, LowFreq: 1, HighFreq: 4, Original: 128},
	}},
	{"qwen3", weights.Config{
		Architecture: "qwen3", Layers: 2, Hidden: 64, Heads: 4, KVHeads: 2, HeadDim: 32, FFN: 72, Vocab: 384, Context: 512,
		Theta: 1e6, Eps: 1e-6, QKNorm: true, TieEmbeddings: true, DType: "float32", BOS: 1, PAD: 0, EOS: []int{2},
	}},
	{"llama_plain", weights.Config{
		Architecture: "llama", Layers: 2, Hidden: 64, Heads: 4, KVHeads: 4, HeadDim: 16, FFN: 72, Vocab: 384, Context: 512,
		Theta: 1e4, Eps: 1e-5, QKVBias: true, OutBias: true, MLPBias: true, DType: "float32", BOS: 1, PAD: 0, EOS: []int{2},
	}},
	{"qwen2_swa_off", weights.Config{
		Architecture: "qwen2", Layers: 2, Hidden: 48, Heads: 4, KVHeads: 2, HeadDim: 12, FFN: 72, Vocab: 384, Context: 512,
		Theta: 1e6, Eps: 1e-6, QKVBias: true, TieEmbeddings: true, DType: "bfloat16", BOS: 1, PAD: 0, EOS: []int{2},
	}},
}

func open(t *testing.T, elem ...string) *weights.Model {
	t.Helper()
	m, err := weights.Open(modeltest.Shared(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestOpenGoldens(t *testing.T) {
	for _, tt := range models {
		t.Run(tt.name, func(t *testing.T) {
			m := open(t, "goldens", tt.name)
			if d := cmp.Diff(tt.want, m.Config); d != "" {
				t.Errorf("config (-want +have):\n%s", d)
			}
			if m.Vocabulary() != nil {
				t.Error("a directory has no vocabulary of its own")
			}
			// The README lists the stored tensors; the type is in the name of the case's config.
			want := map[string]weights.DType{"float32": weights.F32, "float16": weights.F16, "bfloat16": weights.BF16}[m.Config.DType]
			for _, name := range m.Names() {
				x, err := m.Tensor(name)
				if err != nil || x.Type != want || x.Name != name {
					t.Fatalf("%s: %v %v, %v", name, x.Name, x.Type, err)
				}
				if ok, i := x.Finite(); !ok {
					t.Errorf("%s: element %d is not finite", name, i)
				}
			}
			if _, err := m.Tensor("model.layers.9.nothing"); err == nil {
				t.Error("a tensor that is not there was found")
			}
		})
	}
}

// The two spellings of one configuration mean the same, and what JSON writes means it too.
func TestConfigSpellings(t *testing.T) {
	for _, tt := range models {
		for _, file := range []string{"config.json", "config_v4.json"} {
			path := filepath.Join(modeltest.Shared(t, "goldens", tt.name), file)
			b, err := os.ReadFile(path)
			if os.IsNotExist(err) && tt.name == "qwen2_swa_off" {
				continue // its config.json is in the old spelling already
			}
			if err != nil {
				t.Fatal(err)
			}
			c, err := weights.ParseConfig(b)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if d := cmp.Diff(tt.want, c); d != "" {
				t.Errorf("%s (-want +have):\n%s", path, d)
			}
		}
		again, err := weights.ParseConfig(tt.want.JSON())
		if d := cmp.Diff(tt.want, again); err != nil || d != "" {
			t.Errorf("%s: written and read (-want +have): %v\n%s", tt.name, err, d)
		}
	}
}

func TestMistralRefused(t *testing.T) {
	for _, name := range []string{"config.json", "config_v4.json"} {
		b, err := os.ReadFile(filepath.Join(modeltest.Shared(t, "goldens", "mistral_swa"), name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := weights.ParseConfig(b); err == nil || !strings.Contains(err.Error(), `"mistral" with sliding_window 12`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := weights.Open(modeltest.Shared(t, "goldens", "mistral_swa")); err == nil || !strings.Contains(err.Error(), "mistral") {
		t.Errorf("open: %v", err)
	}
}

func TestGeneration(t *testing.T) {
	m := open(t, "goldens", "qwen2_f32")
	number := func(v float64) *float64 { return &v }
	yes, twenty := true, 20
	want := weights.Generation{
		EOS: []int{2, 3}, BOS: 1, PAD: 0, DoSample: &yes,
		Temperature: number(0.7), TopP: number(0.8), TopK: &twenty, RepetitionPenalty: number(1.05),
	}
	if d := cmp.Diff(want, m.Generation); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
	want.MaxNewTokens = &twenty
	again, err := weights.ParseGeneration(want.JSON())
	if d := cmp.Diff(want, again); err != nil || d != "" {
		t.Errorf("written and read (-want +have): %v\n%s", err, d)
	}
	plain := open(t, "goldens", "llama_plain")
	if d := cmp.Diff(weights.Generation{EOS: []int{2}, BOS: 1, PAD: 0}, plain.Generation); d != "" {
		t.Errorf("llama_plain (-want +have):\n%s", d)
	}
}

// Each safetensors file of the goldens, read and written again, is the same file: the writer follows
// the format's own library to the byte.
func TestSafetensorsRewrite(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(modeltest.Shared(t, "goldens"), "*", "*.safetensors"))
	adapters, _ := filepath.Glob(filepath.Join(modeltest.Shared(t, "goldens"), "*", "adapter*", "*.safetensors"))
	files = append(files, adapters...)
	if len(files) < 20 {
		t.Fatalf("only %d files", len(files))
	}
	for _, path := range files {
		s, err := weights.OpenSafetensors(path)
		if err != nil {
			t.Fatal(err)
		}
		var list []weights.Tensor
		for _, name := range s.Names() {
			x, err := s.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, x)
		}
		var b bytes.Buffer
		if err := weights.EncodeSafetensors(&b, list, s.Metadata); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: %d bytes written differ from %d read", path, b.Len(), len(want))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

const smollm = "SmolLM2-135M-Instruct.Q4_1.gguf"

// The whole path through the GGUF (blocks, permutation, names) against the hashes that the model's
// README gives for safetensors made by other programs.
func TestSmolLM2Hashes(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 800 MB")
	}
	m := open(t, "models", "smollm2-135m-instruct", smollm)
	for _, tt := range []struct {
		as   weights.DType
		size int
		want string
	}{
		{weights.F32, 538090408, "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"},
		{weights.BF16, 269060552, "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"},
	} {
		var list []weights.Tensor
		for _, name := range m.Names() {
			x, err := m.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, weights.Encode(name, tt.as, x.Shape, x.Float32(nil)))
		}
		h := sha256.New()
		n := &counter{}
		if err := weights.EncodeSafetensors(io.MultiWriter(h, n), list, map[string]string{"format": "pt"}); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != tt.want || n.n != tt.size {
			t.Errorf("%v: %d bytes with hash %s, want %d with %s", tt.as, n.n, got, tt.size, tt.want)
		}
	}
}

type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) { c.n += len(b); return len(b), nil }

// The GGUF's configuration is that of the config.json beside it, and its metadata hold the tokenizer.
func TestSmolLM2Metadata(t *testing.T) {
	m := open(t, "models", "smollm2-135m-instruct", smollm)
	dir := modeltest.Shared(t, "models", "smollm2-135m-instruct")
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := weights.ParseConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	want.DType = "" // the file's types are its own
	if d := cmp.Diff(want, m.Config); d != "" {
		t.Errorf("config (-config.json +gguf):\n%s", d)
	}
	v := m.Vocabulary()
	if v == nil || v.Model != "gpt2" || v.Pre != "smollm" || v.BOS != 1 || v.EOS != 2 || v.AddBOS || v.AddEOS {
		t.Fatalf("vocabulary %+.100v", v)
	}
	var tok struct {
		Model struct {
			Vocab  map[string]int
			Merges []string
		}
	}
	var cfg struct {
		Template string `json:"chat_template"`
	}
	for name, to := range map[string]any{"tokenizer.json": &tok, "tokenizer_config.json": &cfg} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.Tokens) != 49152 || len(v.Types) != 49152 || !slices.Equal(v.Merges, tok.Model.Merges) {
		t.Errorf("%d tokens, %d types, %d merges", len(v.Tokens), len(v.Types), len(v.Merges))
	}
	for token, id := range tok.Model.Vocab {
		if v.Tokens[id] != token {
			t.Fatalf("token %d is %q, want %q", id, v.Tokens[id], token)
		}
	}
	for id, kind := range v.Types {
		if control := id < 17; control != (kind == weights.TokenControl) {
			t.Errorf("token %d, %q, has type %d", id, v.Tokens[id], kind)
		}
	}
	if v.ChatTemplate != cfg.Template || v.ChatTemplate == "" {
		t.Errorf("chat template %q", v.ChatTemplate)
	}
}

func TestVocabularyFiles(t *testing.T) {
	for _, tt := range []struct {
		name                string
		keys, tokens, merge int
		model, pre          string
		addBOS              bool
	}{ // from data/README.md, and for Qwen2 tokenizer_qwen2_5/tokenizer.json
		{"gpt-2", 16, 50257, 50000, "gpt2", "gpt-2", false},
		{"qwen2", 20, 151936, 151387, "gpt2", "qwen2", false},
		{"phi-3", 26, 32064, 0, "llama", "default", true},
	} {
		g, err := weights.OpenGGUF(filepath.Join(modeltest.Shared(t, "data", "ggml_vocab"), "ggml-vocab-"+tt.name+".gguf"))
		if err != nil {
			t.Fatal(err)
		}
		v := g.Vocabulary()
		if len(g.Keys()) != tt.keys || len(v.Tokens) != tt.tokens || len(v.Merges) != tt.merge || len(v.Types) != tt.tokens ||
			v.Model != tt.model || v.Pre != tt.pre || v.AddBOS != tt.addBOS || len(g.Names()) != 0 {
			t.Errorf("%s: %d keys, %d tokens, %d types, %d merges, model %q, pre %q, add bos %v", tt.name, len(g.Keys()), len(v.Tokens), len(v.Types), len(v.Merges), v.Model, v.Pre, v.AddBOS)
		}
		if _, err := g.Config(); err == nil {
			t.Errorf("%s: a vocabulary alone became a model", tt.name)
		}
		g.Close()
	}
}

// A written model opens as what it was.
func TestModelRoundTrip(t *testing.T) {
	m := open(t, "goldens", "qwen2_tied_bf16_sharded")
	var list []weights.Tensor
	for _, name := range m.Names() {
		x, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, x)
	}
	dir := filepath.Join(t.TempDir(), "model")
	err := weights.WriteDir(dir, func(tmp string) error {
		return errors.Join(
			weights.WriteSafetensors(filepath.Join(tmp, "model.safetensors"), list, nil),
			os.WriteFile(filepath.Join(tmp, "config.json"), m.Config.JSON(), 0o666),
			os.WriteFile(filepath.Join(tmp, "generation_config.json"), m.Generation.JSON(), 0o666))
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if d := cmp.Diff(m.Config, again.Config) + cmp.Diff(m.Generation, again.Generation); d != "" {
		t.Error(d)
	}
	for _, want := range list {
		have, err := again.Tensor(want.Name)
		if err != nil || have.Type != want.Type || !bytes.Equal(have.Data, want.Data) {
			t.Errorf("%s: %v", want.Name, err)
		}
	}
}

// F64 goldens are exact.
func TestFloat64(t *testing.T) {
	s, err := weights.OpenSafetensors(filepath.Join(modeltest.Shared(t, "goldens", "qwen2_f32"), "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x, err := s.Tensor("sampling.0.probs")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, p := range x.Float64(nil) {
		sum += p
	}
	if x.Type != weights.F64 || math.Abs(sum-1) > 1e-14 {
		t.Errorf("%v: probabilities sum to 1%+g", x.Type, sum-1)
	}
}
