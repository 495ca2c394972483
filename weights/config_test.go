package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// configWith is a small Qwen2 configuration with members put in or (null) taken out.
func configWith(t testing.TB, members string) []byte {
	t.Helper()
	c := map[string]any{
		"model_type": "qwen2", "architectures": []string{"Qwen2ForCausalLM"}, "num_hidden_layers": 2, "hidden_size": 8,
		"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 16,
		"max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000, "hidden_act": "silu",
	}
	if err := json.Unmarshal([]byte("{"+members+"}"), &c); err != nil {
		t.Fatal(err)
	}
	return indented(c)
}

func TestConfigRefused(t *testing.T) {
	const llama, qwen3 = `"model_type":"llama","architectures":null,`, `"model_type":"qwen3","architectures":null,`
	for _, tt := range []struct{ members, want string }{
		{`"model_type":"mistral","architectures":null`, `model_type "mistral"`},
		{`"model_type":"qwen2_moe","architectures":null`, `model_type "qwen2_moe"`},
		{`"model_type":null,"architectures":["GPT2LMHeadModel"]`, "GPT2LMHeadModel"},
		{`"model_type":null,"architectures":null`, "no model_type"},
		{`"architectures":["Qwen2ForSequenceClassification"]`, "Qwen2ForSequenceClassification"},
		{`"architectures":"Qwen2ForCausalLM"`, "architectures: want a list"},
		{`"use_sliding_window":true,"sliding_window":8,"max_window_layers":1`, "sliding_window 8"},
		{llama + `"sliding_window":4096`, "sliding_window 4096"},
		{`"layer_types":["full_attention","sliding_attention"]`, "sliding_attention"},
		{`"num_experts":8`, "num_experts 8"},
		{llama + `"num_local_experts":8`, "num_local_experts 8"},
		{`"quantization_config":{"quant_method":"awq"}`, "quantization_config"},
		{`"hidden_act":"gelu"`, `hidden_act "gelu"`},
		{`"partial_rotary_factor":0.5`, "partial_rotary_factor 0.5"},
		{`"attn_logit_softcapping":50`, "attn_logit_softcapping 50"},
		{`"final_logit_softcapping":30`, "final_logit_softcapping 30"},
		{`"is_causal":false`, "is_causal"},
		{`"use_bidirectional_attention":true`, "use_bidirectional_attention"},
		{`"rope_scaling":{"type":"yarn","factor":4,"original_max_position_embeddings":32768}`, `rope type "yarn"`},
		{`"rope_scaling":{"rope_type":"linear","factor":2}`, `rope type "linear"`},
		{`"rope_scaling":{"type":"dynamic","factor":2}`, `rope type "dynamic"`},
		{`"rope_scaling":{"type":"mrope","mrope_section":[1,1,2]}`, `rope type "mrope"`},
		{`"rope_scaling":{"factor":2}`, "factor is not supported"},
		{`"rope_theta":null,"rope_parameters":{"full_attention":{"rope_theta":1e6}}`, "full_attention is not supported"},
		{`"rope_theta":null,"rope_parameters":{"rope_type":"longrope","rope_theta":1e6}`, `"longrope"`},
		{`"rope_theta":null,"rope_parameters":{"rope_type":"default","rope_theta":1e6,"partial_rotary_factor":0.25}`, "partial_rotary_factor 0.25"},
		{`"rope_parameters":{"rope_theta":20000}`, "rope_theta is 10000, and 20000"},
		{`"rope_parameters":{"rope_theta":10000},"rope_scaling":{"type":"yarn"}`, "both rope_parameters and rope_scaling"},
		{llama + `"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4}`, "llama3 without original_max_position_embeddings"},
		{llama + `"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1,"original_max_position_embeddings":8192}`, "not possible"},
		{`"hidden_size":null`, "no hidden_size"},
		{`"num_key_value_heads":null`, "no num_key_value_heads"},
		{`"hidden_size":"8"`, "hidden_size: want an integer"},
		{`"hidden_size":9`, "no head_dim, and hidden_size 9"},
		{`"hidden_size":-8`, "hidden_size -8"},
		{`"num_hidden_layers":1000000`, "num_hidden_layers 1000000"},
		{`"vocab_size":9007199254740993`, "vocab_size"},
		{`"num_attention_heads":0`, "num_attention_heads 0"},
		{`"num_key_value_heads":3`, "multiple"},
		{`"head_dim":5`, "odd"},
		{`"head_dim":200000000`, "heads of 200000000"},
		{`"rms_norm_eps":0`, "rms_norm_eps 0"},
		{`"rope_theta":-1`, "rope_theta -1"},
		{`"eos_token_id":"</s>"`, "eos_token_id: want"},
		{`"eos_token_id":[1,-2]`, "eos_token_id: want"},
		{`"bos_token_id":-1`, "bos_token_id: want"},
		{`"tie_word_embeddings":"yes"`, "tie_word_embeddings: want"},
		{qwen3 + `"attention_bias":1`, "attention_bias: want"},
	} {
		if _, err := ParseConfig(configWith(t, tt.members)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.members, err, tt.want)
		}
	}
	for _, bad := range []string{"", "null", "[]", "{", `{"model_type":"qwen2"} x`, `{"model_type":"qwen2","model_type":"llama"}`, "{\"a\":\xff}"} {
		if _, err := ParseConfig([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// Spellings that mean nothing special are taken.
func TestConfigTaken(t *testing.T) {
	check := func(members string, is func(Config) bool) {
		t.Helper()
		if c, err := ParseConfig(configWith(t, members)); err != nil || !is(c) {
			t.Errorf("%s: %+v, %v", members, c, err)
		}
	}
	check(`"use_sliding_window":false,"sliding_window":8,"max_window_layers":1`, func(c Config) bool { return c.QKVBias && !c.OutBias })
	check(`"use_sliding_window":true,"sliding_window":8,"max_window_layers":2`, func(c Config) bool { return true }) // no layer is beyond
	check(`"model_type":null`, func(c Config) bool { return c.Architecture == "qwen2" })
	check(`"rope_theta":null,"rope_parameters":{"rope_theta":1e6,"rope_type":"default","partial_rotary_factor":1.0}`, func(c Config) bool { return c.Theta == 1e6 && c.RopeScaling == nil })
	check(`"rope_scaling":{}`, func(c Config) bool { return c.RopeScaling == nil })
	check(`"model_type":"llama","architectures":null,"num_key_value_heads":null`, func(c Config) bool { return c.KVHeads == 2 && !c.QKVBias })
	check(`"model_type":"qwen3","architectures":null`, func(c Config) bool { return c.HeadDim == 128 && c.QKNorm && !c.QKVBias })
	check(`"model_type":"qwen3","architectures":null,"attention_bias":true`, func(c Config) bool { return c.QKVBias && c.OutBias && !c.MLPBias })
	check(`"head_dim":6`, func(c Config) bool { return c.HeadDim == 6 })
	check(`"eos_token_id":[3,4],"bos_token_id":0`, func(c Config) bool { return slices.Equal(c.EOS, []int{3, 4}) && c.BOS == 0 && c.PAD == -1 })
	check(`"torch_dtype":"bfloat16"`, func(c Config) bool { return c.DType == "bfloat16" })
	check(`"num_experts":0,"attn_logit_softcapping":null,"quantization_config":null`, func(Config) bool { return true })
}

func TestGenerationRefused(t *testing.T) {
	for _, bad := range []string{`{"max_new_tokens":0}`, `{"max_new_tokens":"a"}`, `{"temperature":"hot"}`, `{"top_p":-1}`, `{"top_k":0.5}`, `{"eos_token_id":{}}`, `[]`, `{"do_sample":1}`} {
		if _, err := ParseGeneration([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	g, err := ParseGeneration([]byte(`{"eos_token_id":5,"temperature":null,"max_length":20}`))
	if err != nil || !slices.Equal(g.EOS, []int{5}) || g.Temperature != nil || g.BOS != -1 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestParseIndexRefused(t *testing.T) {
	for _, bad := range []string{
		`{}`, `{"weight_map":[]}`, `{"weight_map":{"a":1}}`, `{"weight_map":{"a":""}}`, `{"weight_map":{"a":"."}}`, `{"weight_map":{"a":".."}}`,
		`{"weight_map":{"a":"../x"}}`, `{"weight_map":{"a":"/etc/passwd"}}`, `{"weight_map":{"a":"b\\c"}}`, `{"weight_map":{"a":"x","a":"y"}}`,
	} {
		if place, err := parseIndex([]byte(bad)); err == nil {
			t.Errorf("%s was taken as %v", bad, place)
		}
	}
	if place, err := parseIndex([]byte(`{"weight_map":{"a":"x-1.safetensors"},"metadata":{}}`)); err != nil || place["a"] != "x-1.safetensors" {
		t.Errorf("%v, %v", place, err)
	}
}

// tinyModel writes a model of random weights and returns its directory.
func tinyModel(t *testing.T, c Config, change func(map[string]Tensor)) string {
	t.Helper()
	all := map[string]Tensor{}
	for i, p := range c.Parameters() {
		v := make([]float32, Tensor{Shape: p.Shape}.Len())
		for j := range v {
			v[j] = float32(math.Sin(float64(i*1000 + j)))
		}
		all[p.Name] = Encode(p.Name, F32, p.Shape, v)
	}
	if change != nil {
		change(all)
	}
	var list []Tensor
	for _, x := range all {
		list = append(list, x)
	}
	dir := t.TempDir()
	err := errors.Join(
		WriteSafetensors(filepath.Join(dir, oneFile), list, nil),
		writeBytes(filepath.Join(dir, "config.json"), c.JSON()))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var tinyConfig = Config{
	Architecture: "llama", Layers: 1, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: 16, Context: 32,
	Theta: 1e4, Eps: 1e-6, BOS: -1, PAD: -1, EOS: []int{7}, TieEmbeddings: true,
}

// A model whose tensors are not those of its configuration does not open.
func TestOpenRefused(t *testing.T) {
	const norm, q = "model.norm.weight", "model.layers.0.self_attn.q_proj"
	for name, tt := range map[string]struct {
		change func(map[string]Tensor)
		want   string // "": opens
	}{
		"whole":       {func(map[string]Tensor) {}, ""},
		"missing":     {func(m map[string]Tensor) { delete(m, norm) }, `"model.norm.weight" is missing`},
		"other shape": {func(m map[string]Tensor) { m[norm] = Encode(norm, F32, []int{4}, make([]float32, 4)) }, "has shape [4]"},
		"a bias":      {func(m map[string]Tensor) { m["b"] = Encode(q+".bias", F32, []int{8}, make([]float32, 8)) }, "q_proj.bias"},
		"another layer": {func(m map[string]Tensor) {
			m["l"] = Encode("model.layers.1.input_layernorm.weight", F32, []int{8}, make([]float32, 8))
		}, "model.layers.1"},
		"old rope": {func(m map[string]Tensor) {
			m["r"] = Encode("model.layers.0.self_attn.rotary_emb.inv_freq", F32, []int{2}, make([]float32, 2))
		}, ""},
		"F64": {func(m map[string]Tensor) {
			m[norm] = Tensor{Name: norm, Type: F64, Shape: []int{8}, Data: make([]byte, 64)}
		}, "F64"},
		"the same head": {func(m map[string]Tensor) {
			x := m["model.embed_tokens.weight"]
			x.Name = "lm_head.weight"
			m["h"] = x
		}, ""},
		"another head": {func(m map[string]Tensor) { m["h"] = Encode("lm_head.weight", F32, []int{16, 8}, make([]float32, 128)) }, "differs from the embedding"},
	} {
		m, err := Open(tinyModel(t, tinyConfig, tt.change))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err == nil {
			if !slices.Equal(m.Generation.EOS, []int{7}) {
				t.Errorf("%s: end of text %v, want config.json's", name, m.Generation.EOS)
			}
			m.Close()
		}
	}
	for name, path := range map[string]string{"nothing": filepath.Join(t.TempDir(), "x"), "an empty directory": t.TempDir()} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bare := t.TempDir()
	if err := os.WriteFile(filepath.Join(bare, "config.json"), tinyConfig.JSON(), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bare); err == nil || !strings.Contains(err.Error(), "neither model.safetensors nor") {
		t.Errorf("no weights: %v", err)
	}
	for _, folder := range []string{bare, t.TempDir()} { // with and without a configuration
		if err := os.WriteFile(filepath.Join(folder, "tiny.gguf"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(folder); err == nil || !strings.Contains(err.Error(), "tiny.gguf is there: to open it, give the file") {
			t.Errorf("a folder of a GGUF file: %v", err)
		}
	}
}

// An index and its shards must agree, and every shard must be whole.
func TestShards(t *testing.T) {
	dir := tinyModel(t, tinyConfig, nil)
	s, err := OpenSafetensors(filepath.Join(dir, oneFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Remove(filepath.Join(dir, oneFile)); err != nil {
		t.Fatal(err)
	}
	shard := func(i int) string { return fmt.Sprintf("part-%d.safetensors", i%3) }
	parts := map[string][]Tensor{}
	place := map[string]string{}
	for i, name := range s.Names() {
		x, _ := s.Tensor(name)
		parts[shard(i)] = append(parts[shard(i)], x)
		place[name] = shard(i)
	}
	write := func() {
		t.Helper()
		for file, list := range parts {
			if err := WriteSafetensors(filepath.Join(dir, file), list, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := writeBytes(filepath.Join(dir, indexFile), indented(map[string]any{"weight_map": place})); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want string) {
		t.Helper()
		if m, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", m, err, want)
		}
	}
	write()
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range s.Names() {
		want, _ := s.Tensor(name)
		if have, err := m.Tensor(name); err != nil || !bytes.Equal(have.Data, want.Data) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.Close()

	first := s.Names()[0] // in part 0
	place[first] = shard(1)
	write()
	refused("does not place there")
	delete(place, first)
	write()
	refused("does not place there")
	place[first] = shard(0)
	place["ghost"] = shard(2)
	write()
	refused(`tensor "ghost"`)
	delete(place, "ghost")
	place[first] = "part-9.safetensors"
	write()
	refused("part-9.safetensors")
	place[first] = shard(0)
	write()
	b := content(t, filepath.Join(dir, shard(1)))
	if err := os.WriteFile(filepath.Join(dir, shard(1)), []byte(b[:len(b)-3]), 0o666); err != nil {
		t.Fatal(err)
	}
	refused("part-1.safetensors: header: tensor")
}

// FuzzConfig: whatever is taken means the same when it is written and read again.
func FuzzConfig(f *testing.F) {
	f.Add(configWith(f, ``))
	f.Add(configWith(f, `"model_type":"llama","architectures":null,"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192},"eos_token_id":[1,2]`))
	f.Add(configWith(f, `"model_type":"qwen3","architectures":null,"rope_theta":null,"rope_parameters":{"rope_theta":1e6,"rope_type":"default"}`))
	f.Add([]byte(`{"eos_token_id":[1,2],"temperature":0.5,"top_p":1,"top_k":3,"do_sample":true,"min_p":0.1}`))
	f.Add([]byte(`{"weight_map":{"a":"b.safetensors"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfig(b); err == nil {
			again, err := ParseConfig(c.JSON())
			if len(c.EOS) == 0 {
				c.EOS = nil // an empty list is written as null
			}
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Fatalf("%+v became %+v, %v", c, again, err)
			}
			if c.Layers < 100 {
				c.Parameters()
			}
		}
		if g, err := ParseGeneration(b); err == nil {
			again, err := ParseGeneration(g.JSON())
			if len(g.EOS) == 0 {
				g.EOS = nil
			}
			if err != nil || !reflect.DeepEqual(g, again) {
				t.Fatalf("%+v became %+v, %v", g, again, err)
			}
		}
		if place, err := parseIndex(b); err == nil {
			for name, file := range place {
				if filepath.Dir(filepath.Join("x", file)) != "x" {
					t.Fatalf("%q lies in %q", name, file)
				}
			}
		}
	})
}

// FuzzAdapterConfig: whatever is taken means the same when it is written and read again.
func FuzzAdapterConfig(f *testing.F) {
	for _, s := range []string{
		`"target_modules":["q_proj"],"lora_dropout":0.1,"use_rslora":true`,
		`"target_modules":"all-linear","rank_pattern":{"layers.0.q_proj":3,"q":5},"alpha_pattern":{"^x|y$":0.5}`,
		`"target_modules":["a"],"exclude_modules":"b.*","layers_to_transform":[1,2],"layers_pattern":["h"]`,
		`"target_modules":"a(b|c)*","use_dora":true`,
	} {
		f.Add([]byte(`{"peft_type":"LORA","r":4,"lora_alpha":16,` + s + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseAdapterConfig(b)
		if err != nil {
			return
		}
		again, err := ParseAdapterConfig(c.JSON())
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		const module = "model.layers.0.self_attn.q_proj"
		for _, x := range []*AdapterConfig{&c, &again} {
			r, err := x.compile()
			if err != nil {
				t.Fatal(err)
			}
			if n := r.rank(module); n < 1 || n > maxRank {
				t.Fatalf("rank %d", n)
			}
		}
		one, _ := c.compile()
		two, _ := again.compile()
		if one.targets(module) != two.targets(module) || one.rank(module) != two.rank(module) || one.scale(module) != two.scale(module) {
			t.Fatalf("%+v became %+v", c, again)
		}
	})
}
