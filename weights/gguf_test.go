package weights

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A ggufFile writes GGUF for tests; its fields can be put wrong one by one.
type ggufFile struct {
	magic    string
	version  uint32
	tensors  int64 // the count in the header, when not -1
	keys     int64 // likewise
	metadata [][]byte
	infos    [][]byte
	body     []byte
}

func newGGUF() *ggufFile { return &ggufFile{magic: "GGUF", version: 3, tensors: -1, keys: -1} }

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
func str(s string) []byte  { return append(le64(uint64(len(s))), s...) }

// raw adds metadata of that type.
func (g *ggufFile) raw(key string, kind uint32, value ...[]byte) *ggufFile {
	g.metadata = append(g.metadata, slices.Concat(str(key), le32(kind), slices.Concat(value...)))
	return g
}

func (g *ggufFile) u32(key string, v int) *ggufFile { return g.raw(key, ggufU32, le32(uint32(v))) }
func (g *ggufFile) f32(key string, v float32) *ggufFile {
	return g.raw(key, ggufF32, le32(math.Float32bits(v)))
}
func (g *ggufFile) text(key, v string) *ggufFile { return g.raw(key, ggufString, str(v)) }

// info adds a tensor's description; dims stand as in the file, the fastest first.
func (g *ggufFile) info(name string, kind uint32, offset uint64, dims ...uint64) *ggufFile {
	b := slices.Concat(str(name), le32(uint32(len(dims))))
	for _, d := range dims {
		b = append(b, le64(d)...)
	}
	g.infos = append(g.infos, slices.Concat(b, le32(kind), le64(offset)))
	return g
}

// tensor adds a tensor with its bytes.
func (g *ggufFile) tensor(name string, kind uint32, data []byte, dims ...uint64) *ggufFile {
	g.info(name, kind, uint64(len(g.body)), dims...)
	g.body = append(g.body, data...)
	g.body = append(g.body, make([]byte, -len(g.body)&31)...)
	return g
}

func (g *ggufFile) bytes() []byte {
	if g.tensors == -1 {
		g.tensors = int64(len(g.infos))
	}
	if g.keys == -1 {
		g.keys = int64(len(g.metadata))
	}
	b := slices.Concat([]byte(g.magic), le32(g.version), le64(uint64(g.tensors)), le64(uint64(g.keys)), slices.Concat(g.metadata...), slices.Concat(g.infos...))
	if len(g.body) > 0 {
		b = append(b, make([]byte, -len(b)&31)...)
	}
	return append(b, g.body...)
}

var hostileGGUF = map[string]struct {
	file []byte
	want string
}{
	"empty":               {nil, "not a GGUF file"},
	"other magic":         {[]byte("GGML\x03\x00\x00\x00"), "not a GGUF file"},
	"magic alone":         {[]byte("GGUF"), "truncated"},
	"version 1":           {func() []byte { g := newGGUF(); g.version = 1; return g.bytes() }(), "version 1"},
	"big-endian":          {func() []byte { g := newGGUF(); g.version = 3 << 24; return g.bytes() }(), "big-endian"},
	"absurd tensors":      {func() []byte { g := newGGUF(); g.tensors = math.MaxInt64; return g.bytes() }(), "tensors do not fit"},
	"absurd metadata":     {func() []byte { g := newGGUF(); g.keys = 1 << 40; return g.bytes() }(), "metadata do not fit"},
	"fewer tensors":       {func() []byte { g := newGGUF().text("a", strings.Repeat(" ", 99)); g.tensors = 1; return g.bytes() }(), "truncated"},
	"key beyond the file": {slices.Concat([]byte("GGUF"), le32(3), le64(0), le64(1), le64(math.MaxUint64), make([]byte, 20)), "truncated"},
	"text beyond":         {newGGUF().raw("a", ggufString, le64(1<<62)).bytes(), "truncated"},
	"unknown type":        {newGGUF().raw("a", 13, le64(0)).bytes(), "unknown type 13"},
	"array of arrays":     {newGGUF().raw("a", ggufArray, le32(ggufArray), le64(1), le32(ggufU8), le64(0)).bytes(), "array of arrays"},
	"array too long":      {newGGUF().raw("a", ggufArray, le32(ggufF64), le64(1<<60)).bytes(), "elements of a do not fit"},
	"array of unknown":    {newGGUF().raw("a", ggufArray, le32(99), le64(1), le64(0)).bytes(), "unknown type 99"},
	"cut array of texts":  {newGGUF().raw("a", ggufArray, le32(ggufString), le64(2), str("x"), le64(9)).bytes(), "truncated"},
	"key twice":           {newGGUF().u32("a", 1).u32("a", 2).bytes(), `"a" occurs twice`},
	"split":               {newGGUF().u32("split.count", 3).bytes(), "split GGUF"},
	"alignment 0":         {newGGUF().u32("general.alignment", 0).bytes(), "general.alignment 0"},
	"alignment 48":        {newGGUF().u32("general.alignment", 48).bytes(), "general.alignment 48"},
	"no dimensions":       {newGGUF().info("a", 0, 0).bytes(), "0 dimensions"},
	"five dimensions":     {newGGUF().info("a", 0, 0, 1, 1, 1, 1, 1).bytes(), "5 dimensions"},
	"huge dimension":      {newGGUF().info("a", 0, 0, 1<<60).bytes(), "a dimension of"},
	"overflowing shape":   {newGGUF().info("a", 0, 0, 1<<30, 1<<30, 1<<30).bytes(), "impossible shape"},
	"other type":          {newGGUF().info("a", 15, 0, 256).bytes(), "type Q8_K"},
	"unheard-of type":     {newGGUF().info("a", 77, 0, 256).bytes(), "type number 77"},
	"part of a block":     {newGGUF().tensor("a", 8, make([]byte, 34), 33).bytes(), "impossible shape"},
	"cut data":            {newGGUF().tensor("a", 0, make([]byte, 32), 9).bytes(), "truncated"},
	"no data":             {newGGUF().info("a", 0, 0, 9).bytes(), "truncated"},
	"offset beyond":       {newGGUF().tensor("a", 0, make([]byte, 32), 8).info("b", 0, 1<<63, 8).bytes(), "truncated"},
	"odd offset":          {newGGUF().tensor("a", 0, make([]byte, 64), 8).info("b", 0, 4, 8).bytes(), "not aligned"},
	"overlap":             {newGGUF().tensor("a", 0, make([]byte, 64), 16).info("b", 0, 32, 8).bytes(), "overlap"},
	"tensor twice":        {newGGUF().tensor("a", 0, make([]byte, 32), 8).tensor("a", 0, make([]byte, 32), 8).bytes(), `"a" occurs twice`},
}

func TestGGUFHostile(t *testing.T) {
	for name, tt := range hostileGGUF {
		err := allocates(t, name, len(tt.file), func() error { _, err := parseGGUF(tt.file); return err })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// tinyLlama is a Llama GGUF with a tensor of every type, and the values that its tensors have under
// Hugging Face names and in that order.
func tinyLlama(arch string) (*ggufFile, map[string][]float32) {
	const hidden, heads, kv, dim, ffn, vocab = 32, 4, 2, 8, 64, 3
	g := newGGUF().text("general.architecture", arch)
	for key, v := range map[string]int{
		"block_count": 1, "context_length": 64, "embedding_length": hidden, "feed_forward_length": ffn,
		"attention.head_count": heads, "attention.head_count_kv": kv, "rope.dimension_count": dim,
	} {
		g.u32(arch+"."+key, v)
	}
	g.f32(arch+".attention.layer_norm_rms_epsilon", 1e-5).f32(arch+".rope.freq_base", 500000)
	want := map[string][]float32{}
	seed := 0
	add := func(stored, name string, dt DType, kind uint32, rows, cols, permutedHeads int) {
		data := make([]byte, dt.RowSize(rows*cols))
		for i := range data {
			seed = (seed*1103515245 + 12345) & 0x7fffffff
			if data[i] = byte(seed >> 16); i%2 == 1 {
				data[i] &= 0x3f // finite, whatever is read as a half or a float
			}
		}
		values := Tensor{Type: dt, Shape: []int{rows, cols}, Data: data}.Float32(nil)
		if permutedHeads > 0 { // as the converter does: reshape(heads, 2, d/2, cols).swapaxes(1, 2)
			hf := make([]float32, len(values))
			d := rows / permutedHeads
			for h := range permutedHeads {
				for j := range 2 {
					for i := range d / 2 {
						from, to := h*d+2*i+j, h*d+j*d/2+i
						copy(hf[to*cols:(to+1)*cols], values[from*cols:])
					}
				}
			}
			values = hf
		}
		want[name] = values
		dims := []uint64{uint64(cols)}
		if strings.HasSuffix(name, "proj.weight") || rows > 1 {
			dims = append(dims, uint64(rows))
		}
		g.tensor(stored, kind, data, dims...)
	}
	q, k := heads, kv
	if arch != "llama" {
		q, k = 0, 0
	}
	const layer = "model.layers.0."
	add("token_embd.weight", "model.embed_tokens.weight", Q8_0, 8, vocab, hidden, 0)
	add("output.weight", "lm_head.weight", F16, 1, vocab, hidden, 0)
	add("output_norm.weight", "model.norm.weight", F32, 0, 1, hidden, 0)
	add("blk.0.attn_norm.weight", layer+"input_layernorm.weight", F32, 0, 1, hidden, 0)
	add("blk.0.ffn_norm.weight", layer+"post_attention_layernorm.weight", F32, 0, 1, hidden, 0)
	add("blk.0.attn_q.weight", layer+"self_attn.q_proj.weight", Q4_0, 2, heads*dim, hidden, q)
	add("blk.0.attn_k.weight", layer+"self_attn.k_proj.weight", BF16, 30, kv*dim, hidden, k)
	add("blk.0.attn_v.weight", layer+"self_attn.v_proj.weight", Q4_1, 3, kv*dim, hidden, 0)
	add("blk.0.attn_output.weight", layer+"self_attn.o_proj.weight", Q8_0, 8, hidden, heads*dim, 0)
	add("blk.0.ffn_gate.weight", layer+"mlp.gate_proj.weight", Q4_0, 2, ffn, hidden, 0)
	add("blk.0.ffn_up.weight", layer+"mlp.up_proj.weight", F16, 1, ffn, hidden, 0)
	add("blk.0.ffn_down.weight", layer+"mlp.down_proj.weight", Q4_1, 3, hidden, ffn, 0)
	if arch == "qwen2" {
		for _, p := range []string{"q", "k", "v"} {
			rows := map[string]int{"q": heads * dim, "k": kv * dim, "v": kv * dim}[p]
			add("blk.0.attn_"+p+".bias", layer+"self_attn."+p+"_proj.bias", F32, 0, 1, rows, 0)
		}
	}
	return g, want
}

func openTiny(t *testing.T, g *ggufFile) (*Model, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := os.WriteFile(path, g.bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err == nil {
		t.Cleanup(func() { m.Close() })
	}
	return m, err
}

func TestGGUFTypesAndOrder(t *testing.T) {
	for _, arch := range []string{"llama", "qwen2"} {
		g, want := tinyLlama(arch)
		m, err := openTiny(t, g)
		if err != nil {
			t.Fatal(err)
		}
		config := Config{
			Architecture: arch, Layers: 1, Hidden: 32, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 3, Context: 64,
			Theta: 500000, Eps: 1e-5, BOS: -1, PAD: -1, QKVBias: arch == "qwen2",
		}
		if d := cmp.Diff(config, m.Config); d != "" {
			t.Errorf("(-want +have):\n%s", d)
		}
		if len(m.Names()) != len(want) {
			t.Errorf("%d names, want %d", len(m.Names()), len(want))
		}
		for _, name := range m.Names() {
			x, err := m.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(x.Float32(nil), want[name]) {
				t.Errorf("%s: %s: %v%v has other values", arch, name, x.Type, x.Shape)
			}
		}
	}
}

func TestGGUFRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*ggufFile)
		want   string
	}{
		"experts":      {func(g *ggufFile) { g.u32("llama.expert_count", 8) }, "expert_count 8"},
		"window":       {func(g *ggufFile) { g.u32("llama.attention.sliding_window", 4096) }, "sliding_window 4096"},
		"yarn":         {func(g *ggufFile) { g.text("llama.rope.scaling.type", "yarn") }, `"yarn"`},
		"scale":        {func(g *ggufFile) { g.f32("llama.logit_scale", 0.5) }, "logit_scale 0.5"},
		"long rope":    {func(g *ggufFile) { g.tensor("rope_factors_long.weight", 0, make([]byte, 16), 4) }, "rope_factors_long"},
		"other rope":   {func(g *ggufFile) { g.tensor("rope_freqs.weight", 0, make([]byte, 16), 4) }, "rope_freqs.weight: factor 0"},
		"short rope":   {func(g *ggufFile) { g.tensor("rope_freqs.weight", 0, make([]byte, 12), 3) }, "rope_freqs.weight"},
		"a bias alone": {func(g *ggufFile) { g.tensor("blk.0.attn_output.bias", 0, make([]byte, 128), 16, 2) }, "shape"},
		"a stranger":   {func(g *ggufFile) { g.tensor("blk.0.attn_gate.weight", 0, make([]byte, 128), 32) }, "attn_gate"},
		"second layer": {func(g *ggufFile) { g.tensor("blk.1.attn_norm.weight", 0, make([]byte, 128), 32) }, "blk.1.attn_norm"},
	} {
		g, _ := tinyLlama("llama")
		tt.change(g)
		if _, err := openTiny(t, g); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	phi, _ := tinyLlama("phi3")
	if _, err := openTiny(t, phi); err == nil || !strings.Contains(err.Error(), `"phi3"`) {
		t.Errorf("phi3: %v", err)
	}
	none := newGGUF().text("general.architecture", "llama")
	if _, err := openTiny(t, none); err == nil || !strings.Contains(err.Error(), "llama.block_count") {
		t.Errorf("no metadata: %v", err)
	}
}

// Llama 3.1's factors, by the formula of its release (wavelengths), are recognised; others are not.
func TestGGUFLlama3Scaling(t *testing.T) {
	factors := func(original float64) []byte {
		var b []byte
		for i := range 4 {
			wavelength := 2 * math.Pi * math.Pow(500000, float64(i)/4)
			f := 1.0
			switch smooth := (original/wavelength - 1) / (4 - 1); {
			case wavelength > original/1:
				f = 8
			case wavelength >= original/4:
				f = 1 / ((1-smooth)/8 + smooth)
			}
			b = append(b, le32(math.Float32bits(float32(f)))...)
		}
		return b
	}
	g, _ := tinyLlama("llama")
	m, err := openTiny(t, g.tensor("rope_freqs.weight", 0, factors(8192), 4))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&Llama3Scaling{Factor: 8, LowFreq: 1, HighFreq: 4, Original: 8192}, m.Config.RopeScaling); d != "" {
		t.Error(d)
	}
	g, _ = tinyLlama("llama")
	if _, err := openTiny(t, g.tensor("rope_freqs.weight", 0, factors(100000), 4)); err == nil || !strings.Contains(err.Error(), "not that of Llama 3") {
		t.Errorf("factors of another context: %v", err)
	}
}

// Every type of number in the metadata.
func TestGGUFNumbers(t *testing.T) {
	g := newGGUF().raw("u8", ggufU8, []byte{200}).raw("i8", ggufI8, []byte{200}).raw("u16", ggufU16, []byte{0, 200}).raw("i16", ggufI16, []byte{0, 200})
	g.raw("u32", ggufU32, le32(1<<31)).raw("i32", ggufI32, le32(1<<31)).raw("u64", ggufU64, le64(1<<40)).raw("i64", ggufI64, le64(1<<64-5))
	g.raw("f64", ggufF64, le64(math.Float64bits(0.1))).f32("f32", 0.1).raw("bool", ggufBool, []byte{1}).raw("huge", ggufU64, le64(1<<64-5)).text("text", "7")
	p, err := parseGGUF(g.raw("list", ggufArray, le32(ggufU8), le64(1), []byte{7}).bytes())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{
		"u8": 200, "i8": 200 - 256, "u16": 200 << 8, "i16": 200<<8 - 65536, "u32": 1 << 31, "i32": -1 << 31, "u64": 1 << 40, "i64": -5,
		"f64": 0.1, "f32": 0.1, "bool": 1, // a float32 means the decimal number that it was
	} {
		if have, ok := p.number(key); !ok || have != want {
			t.Errorf("%s: %v %v, want %v", key, have, ok, want)
		}
	}
	for _, key := range []string{"huge", "text", "list", "none"} {
		if have, ok := p.integer(key); ok {
			t.Errorf("%s is no integer, but gave %d", key, have)
		}
	}
}

func TestGGUFVocabulary(t *testing.T) {
	texts := func(s ...string) []byte {
		b := slices.Concat(le32(ggufString), le64(uint64(len(s))))
		for _, s := range s {
			b = append(b, str(s)...)
		}
		return b
	}
	const key = "tokenizer.ggml."
	g := newGGUF().text(key+"model", "gpt2").text(key+"pre", "llama-bpe").text("tokenizer.chat_template", "{{x}}")
	g.raw(key+"tokens", ggufArray, texts("a", "b", "")).raw(key+"merges", ggufArray, texts("a b"))
	g.raw(key+"token_type", ggufArray, le32(ggufI32), le64(3), le32(1), le32(3), le32(4))
	g.raw(key+"scores", ggufArray, le32(ggufF32), le64(1), le32(math.Float32bits(-1.5)))
	g.u32(key+"bos_token_id", 1).raw(key+"eos_token_id", ggufI32, le32(2)).raw(key+"padding_token_id", ggufI32, le32(0xffffffff))
	p, err := parseGGUF(g.raw(key+"add_eos_token", ggufBool, []byte{1}).bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := &Vocabulary{
		Model: "gpt2", Pre: "llama-bpe", Tokens: []string{"a", "b", ""}, Merges: []string{"a b"}, Types: []int32{1, 3, 4}, Scores: []float32{-1.5},
		BOS: 1, EOS: 2, EOT: -1, PAD: -1, UNK: -1, AddBOS: true, AddEOS: true, ChatTemplate: "{{x}}",
	}
	if d := cmp.Diff(want, p.Vocabulary()); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
}

// Any file is refused or everything in it can be read.
func FuzzGGUF(f *testing.F) {
	for _, tt := range hostileGGUF {
		f.Add(tt.file)
	}
	for _, arch := range []string{"llama", "qwen2", "qwen3"} {
		g, _ := tinyLlama(arch)
		f.Add(g.raw("tokenizer.ggml.tokens", ggufArray, le32(ggufString), le64(1), str("a")).bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := parseGGUF(b)
		if err != nil {
			return
		}
		for _, name := range g.Names() {
			x, err := g.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(x.Float32(nil)); n != x.Len() {
				t.Fatalf("%q: %d values of %v", name, n, x.Shape)
			}
			x.Finite()
		}
		g.Vocabulary()
		c, err := g.Config()
		if err != nil {
			return
		}
		m := &Model{Config: c}
		if m.tensors, m.permuted, err = g.named(c); err != nil || m.check() != nil {
			return
		}
		for _, name := range m.Names() {
			if _, err := m.Tensor(name); err != nil {
				t.Fatal(err)
			}
		}
	})
}
