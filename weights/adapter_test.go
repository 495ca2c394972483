package weights_test

import (
	"encoding/json"
	"fmt"
	"maps"
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

// golden opens an adapter of the goldens and checks it against its model.
func golden(t *testing.T, elem ...string) *weights.Adapter {
	t.Helper()
	dir := modeltest.Shared(t, elem...)
	a, err := weights.OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := weights.ParseConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(c); err != nil {
		t.Errorf("%s: %v", dir, err)
	}
	return a
}

// Ranks and scales by hand from each adapter_config.json; shapes from the tensors' README.
func TestAdapters(t *testing.T) {
	for _, tt := range []struct {
		path  []string
		pairs int
		rank  int
		scale float64 // α/r, or α/√r
	}{
		{[]string{"goldens", "qwen2_f32", "adapter_all"}, 14, 8, 16. / 8},
		{[]string{"goldens", "qwen2_f32", "adapter_attn"}, 4, 4, 8. / 2},
		{[]string{"goldens", "qwen2_tied_bf16_sharded", "adapter_all"}, 21, 8, 16. / 8},
		{[]string{"goldens", "qwen2_tied_bf16_sharded", "adapter_attn"}, 6, 4, 8. / 2},
		{[]string{"goldens", "llama_rope3", "adapter_all"}, 14, 8, 16. / 8},
		{[]string{"goldens", "llama_rope3", "adapter_attn"}, 4, 4, 8. / 2},
		{[]string{"goldens", "llama_plain", "adapter_all"}, 14, 8, 16. / 8},
		{[]string{"goldens", "llama_plain", "adapter_attn"}, 4, 4, 8. / 2},
		{[]string{"goldens", "qwen3", "adapter_all"}, 14, 8, 16. / 8},
		{[]string{"goldens", "qwen3", "adapter_attn"}, 4, 4, 8. / 2},
		{[]string{"models", "smollm2-135m-instruct", "adapter"}, 210, 4, 8. / 4},
	} {
		a := golden(t, tt.path...)
		if len(a.Pairs) != tt.pairs {
			t.Errorf("%v: %d pairs, want %d", tt.path, len(a.Pairs), tt.pairs)
		}
		for module, p := range a.Pairs {
			if p.Rank != tt.rank || p.Scale != tt.scale || len(p.A) != p.Rank*p.In || len(p.B) != p.Out*p.Rank {
				t.Errorf("%v: %s: rank %d scale %g, %d × %d", tt.path, module, p.Rank, p.Scale, p.Out, p.In)
			}
		}
	}
}

func TestAdapterPatterns(t *testing.T) {
	a := golden(t, "goldens", "qwen2_f32", "adapter_rank_pattern")
	type pair struct {
		Rank  int
		Scale float64
	}
	have := map[string]pair{}
	for module, p := range a.Pairs {
		have[strings.TrimPrefix(module, "model.layers.")] = pair{p.Rank, p.Scale}
	}
	want := map[string]pair{ // r 4, alpha 8; o_proj r 6; layer 1's down_proj r 2; layer 0's q_proj alpha 20
		"0.self_attn.q_proj": {4, 20. / 4}, "1.self_attn.q_proj": {4, 8. / 4},
		"0.self_attn.o_proj": {6, 8. / 6}, "1.self_attn.o_proj": {6, 8. / 6},
		"0.mlp.down_proj": {4, 8. / 4}, "1.mlp.down_proj": {2, 8. / 2},
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
}

func TestAdapterModulesToSaveRefused(t *testing.T) {
	_, err := weights.OpenAdapter(modeltest.Shared(t, "goldens", "qwen2_f32", "adapter_modules_to_save"))
	if err == nil || !strings.Contains(err.Error(), "modules_to_save") {
		t.Errorf("%v", err)
	}
}

func TestAdapterOfAnotherModel(t *testing.T) {
	for _, tt := range []struct{ adapter, model string }{
		{"qwen2_f32", "llama_rope3"},             // other widths
		{"qwen2_tied_bf16_sharded", "qwen2_f32"}, // more layers
		{"qwen2_f32", "qwen2_tied_bf16_sharded"}, // fewer layers
		{"llama_plain", "qwen3"},
	} {
		a := golden(t, "goldens", tt.adapter, "adapter_all")
		err := a.Check(open(t, "goldens", tt.model).Config)
		if err == nil || !strings.HasPrefix(err.Error(), "adapter of another model") {
			t.Errorf("%s on %s: %v", tt.adapter, tt.model, err)
		}
	}
}

// A pair on the head is valid LoRA but not computed here; a targeted projection without pair is not whole.
func TestAdapterCheck(t *testing.T) {
	model := weights.Config{Architecture: "llama", Layers: 2, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: 16}
	a, err := weights.NewAdapter(weights.AdapterConfig{R: 1, Alpha: 1, Targets: weights.Targets{Regexp: ".*_proj|lm_head"}}, model)
	if err != nil {
		t.Fatal(err)
	}
	q := a.Pairs["model.layers.0.self_attn.q_proj"]
	a.Pairs["lm_head"] = q
	if err := a.Check(model); err == nil || !strings.Contains(err.Error(), "lm_head is not supported") {
		t.Errorf("head: %v", err)
	}
	delete(a.Pairs, "lm_head")
	delete(a.Pairs, "model.layers.1.mlp.up_proj")
	if err := a.Check(model); err == nil || !strings.Contains(err.Error(), "no pair for model.layers.1.mlp.up_proj") {
		t.Errorf("missing: %v", err)
	}
	if _, err := weights.NewAdapter(weights.AdapterConfig{R: 1, Alpha: 1, Targets: weights.Targets{Names: []string{"q_prj"}}}, model); err == nil || !strings.Contains(err.Error(), `"q_prj"`) {
		t.Errorf("misspelt: %v", err)
	}
}

// What is written is what was read; the configuration says of every setting what PEFT's own says, and
// leaves out only settings that PEFT has at their defaults.
func TestWriteAdapterLikePEFT(t *testing.T) {
	for _, path := range [][]string{
		{"goldens", "qwen2_f32", "adapter_all"}, {"goldens", "qwen2_f32", "adapter_attn"},
		{"goldens", "qwen2_f32", "adapter_rank_pattern"}, {"models", "smollm2-135m-instruct", "adapter"},
	} {
		a := golden(t, path...)
		dir := filepath.Join(t.TempDir(), "adapter")
		if err := weights.WriteAdapter(dir, a); err != nil {
			t.Fatal(err)
		}
		again, err := weights.OpenAdapter(dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(a.Config.Targets.Names)
		if d := cmp.Diff(a, again); d != "" {
			t.Errorf("%v (-read +written and read):\n%s", path, d)
		}
		peft := modeltest.Shared(t, path...)
		if want, have := read(t, peft, "adapter_model.safetensors"), read(t, dir, "adapter_model.safetensors"); want != have {
			t.Errorf("%v: the tensors' file differs from PEFT's", path)
		}
		var want, have map[string]any
		for dir, to := range map[string]*map[string]any{peft: &want, dir: &have} {
			if err := json.Unmarshal([]byte(read(t, dir, "adapter_config.json")), to); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(want["target_modules"].([]any), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		for key, v := range have {
			if d := cmp.Diff(want[key], v); d != "" {
				t.Errorf("%v: %s (-PEFT +ours):\n%s", path, key, d)
			}
		}
		for key, v := range want {
			if _, ok := have[key]; ok || key == "peft_version" {
				continue
			}
			if v != nil && v != false && key != "megatron_core" && key != "qalora_group_size" { // these are PEFT's defaults too
				t.Errorf("%v: %s %v is not written", path, key, v)
			}
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// adapterConfig is a small configuration with other members put in.
func adapterConfig(members string) string {
	return `{"peft_type":"LORA","task_type":"CAUSAL_LM","r":4,"lora_alpha":8` + members + `}`
}

func TestAdapterConfigRefused(t *testing.T) {
	const q = `,"target_modules":["q_proj"]`
	for name, tt := range map[string]struct{ json, want string }{
		"dora":            {adapterConfig(q + `,"use_dora":true`), "use_dora"},
		"lora bias":       {adapterConfig(q + `,"lora_bias":true`), "lora_bias"},
		"bias":            {adapterConfig(q + `,"bias":"all"`), "bias"},
		"saved modules":   {adapterConfig(q + `,"modules_to_save":["lm_head"]`), "modules_to_save"},
		"pissa":           {adapterConfig(q + `,"init_lora_weights":"pissa_niter_16"`), "pissa_niter_16"},
		"olora":           {adapterConfig(q + `,"init_lora_weights":"olora"`), "olora"},
		"corda":           {adapterConfig(q + `,"init_lora_weights":"corda"`), "corda"},
		"loftq":           {adapterConfig(q + `,"init_lora_weights":"loftq"`), "loftq"},
		"lora-ga":         {adapterConfig(q + `,"init_lora_weights":"lora_ga"`), "lora_ga"},
		"loftq config":    {adapterConfig(q + `,"loftq_config":{"loftq_bits":4}`), "loftq_config"},
		"replication":     {adapterConfig(q + `,"layer_replication":[[0,2],[1,3]]`), "layer_replication"},
		"fan in":          {adapterConfig(q + `,"fan_in_fan_out":true`), "fan_in_fan_out"},
		"tokens":          {adapterConfig(q + `,"trainable_token_indices":[1]`), "trainable_token_indices"},
		"parameters":      {adapterConfig(q + `,"target_parameters":["experts"]`), "target_parameters"},
		"alora":           {adapterConfig(q + `,"alora_invocation_tokens":[5]`), "alora_invocation_tokens"},
		"qalora":          {adapterConfig(q + `,"use_qalora":true`), "use_qalora"},
		"bdlora":          {adapterConfig(q + `,"use_bdlora":{"x":1}`), "use_bdlora"},
		"from the future": {adapterConfig(q + `,"use_something_new":true`), "use_something_new"},
		"classifier":      {`{"peft_type":"LORA","task_type":"SEQ_CLS","target_modules":["q_proj"]}`, "task_type"},
		"other method":    {`{"peft_type":"IA3","target_modules":["q_proj"]}`, "peft_type"},
		"not an adapter":  {`{"model_type":"llama"}`, "peft_type"},
		"no targets":      {adapterConfig(``), "target_modules"},
		"look-around":     {adapterConfig(`,"target_modules":"(?!x).*"`), "target_modules"},
		"bad expression":  {adapterConfig(`,"target_modules":"("`), "target_modules"},
		"bad pattern":     {adapterConfig(q + `,"rank_pattern":{"[":4}`), "rank_pattern"},
		"rank 0":          {`{"peft_type":"LORA","r":0,"target_modules":["q_proj"]}`, "r 0"},
		"rank 1.5":        {adapterConfig(q + `,"rank_pattern":{"q_proj":1.5}`), "rank_pattern"},
		"huge rank":       {`{"peft_type":"LORA","r":1000000000,"target_modules":["q_proj"]}`, "r 1000000000"},
		"rank as text":    {`{"peft_type":"LORA","r":"4","target_modules":["q_proj"]}`, "r: want an integer"},
		"twice":           {adapterConfig(q + `,"r":8`), `"r" occurs twice`},
		"dropout":         {adapterConfig(q + `,"lora_dropout":1.5`), "lora_dropout"},
		"layers of regex": {adapterConfig(`,"target_modules":".*q_proj","layers_to_transform":[0]`), "layers_to_transform"},
		"cut off":         {`{"peft_type":"LORA","r":`, "JSON"},
		"empty":           {``, "JSON"},
		"a list":          {`[]`, "not a JSON object"},
	} {
		if _, err := weights.ParseAdapterConfig([]byte(tt.json)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestAdapterConfigTaken(t *testing.T) {
	const q = `,"target_modules":["q_proj"]`
	for _, s := range []string{
		`,"init_lora_weights":false`, `,"init_lora_weights":"gaussian"`, `,"init_lora_weights":"orthogonal"`,
		`,"use_dora":false,"loftq_config":{ },"modules_to_save":null`, `,"auto_mapping":{"base_model_class":"X"}`,
	} {
		if _, err := weights.ParseAdapterConfig([]byte(adapterConfig(q + s))); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	c, err := weights.ParseAdapterConfig([]byte(adapterConfig(q + `,"lora_dropout":0.1`)))
	if err != nil || c.Dropout != 0.1 {
		t.Errorf("dropout %g, %v", c.Dropout, err)
	}
}

// Which modules a configuration targets, of a Llama with three layers: by PEFT's rules.
func TestTargets(t *testing.T) {
	model := weights.Config{Architecture: "llama", Layers: 3, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: 16}
	for _, tt := range []struct {
		json string
		want []string // after "model.layers."
	}{
		{`"target_modules":["v_proj"]`, []string{"0.self_attn.v_proj", "1.self_attn.v_proj", "2.self_attn.v_proj"}},
		{`"target_modules":["layers.1.mlp.up_proj"]`, []string{"1.mlp.up_proj"}},
		{`"target_modules":["model.layers.2.mlp.up_proj"]`, []string{"2.mlp.up_proj"}},
		{`"target_modules":".*\\.(0|2)\\.self_attn\\.[qk]_proj"`, []string{"0.self_attn.k_proj", "0.self_attn.q_proj", "2.self_attn.k_proj", "2.self_attn.q_proj"}},
		{`"target_modules":"model.layers.1.self_attn.q_proj|.*nothing"`, []string{"1.self_attn.q_proj"}}, // the whole name must match
		{`"target_modules":["q_proj"],"layers_to_transform":[0,2]`, []string{"0.self_attn.q_proj", "2.self_attn.q_proj"}},
		{`"target_modules":["q_proj"],"layers_to_transform":1`, []string{"1.self_attn.q_proj"}},
		{`"target_modules":["q_proj"],"layers_to_transform":1,"layers_pattern":"layers"`, []string{"1.self_attn.q_proj"}},
		{`"target_modules":["q_proj","k_proj"],"exclude_modules":["1.self_attn.q_proj","2.self_attn.q_proj"]`, []string{"0.self_attn.k_proj", "0.self_attn.q_proj", "1.self_attn.k_proj", "2.self_attn.k_proj"}},
		{`"target_modules":"all-linear","exclude_modules":".*\\.[012]\\.mlp\\..*|.*[12].self_attn.*|.*[qk]_proj"`, []string{"0.self_attn.o_proj", "0.self_attn.v_proj"}},
	} {
		c, err := weights.ParseAdapterConfig([]byte(`{"peft_type":"LORA","r":2,"lora_alpha":4,` + tt.json + `}`))
		if err != nil {
			t.Errorf("%s: %v", tt.json, err)
			continue
		}
		a, err := weights.NewAdapter(c, model)
		if err != nil {
			t.Errorf("%s: %v", tt.json, err)
			continue
		}
		var have []string
		for _, m := range slices.Sorted(maps.Keys(a.Pairs)) {
			have = append(have, strings.TrimPrefix(m, "model.layers."))
		}
		if d := cmp.Diff(tt.want, have); d != "" {
			t.Errorf("%s (-want +have):\n%s", tt.json, d)
		}
		if err := a.Check(model); err != nil {
			t.Errorf("%s: %v", tt.json, err)
		}
	}
	all, err := weights.NewAdapter(weights.AdapterConfig{R: 1, Alpha: 1, Targets: weights.Targets{Regexp: weights.AllLinear}}, model)
	if err != nil || len(all.Pairs) != 21 {
		t.Errorf("all-linear: %v, %v", all, err)
	}
}

// The first key that matches holds, in the file's order; a key is anchored at a dot and at the end.
func TestPatternOrder(t *testing.T) {
	model := weights.Config{Architecture: "llama", Layers: 12, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: 16}
	parse := func(patterns string) *weights.Adapter {
		t.Helper()
		c, err := weights.ParseAdapterConfig([]byte(adapterConfig(`,"target_modules":["q_proj","up_proj"],` + patterns)))
		if err != nil {
			t.Fatal(err)
		}
		a, err := weights.NewAdapter(c, model)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	rank := func(a *weights.Adapter, i int, part string) int {
		return a.Pairs[fmt.Sprintf("model.layers.%d.%s", i, part)].Rank
	}
	for _, tt := range []struct {
		patterns string
		part     string
		want     [2]int // of layers 1 and 11
	}{
		{`"rank_pattern":{"layers.1.self_attn.q_proj":2,"q_proj":3}`, "self_attn.q_proj", [2]int{2, 3}},
		{`"rank_pattern":{"q_proj":3,"layers.1.self_attn.q_proj":2}`, "self_attn.q_proj", [2]int{3, 3}},
		{`"rank_pattern":{"1.self_attn.q_proj":2}`, "self_attn.q_proj", [2]int{2, 4}},
		{`"rank_pattern":{".*1.self_attn.q_proj":2}`, "self_attn.q_proj", [2]int{2, 2}},
		{`"rank_pattern":{"_proj":2}`, "self_attn.q_proj", [2]int{4, 4}},
		{`"rank_pattern":{"q_proj|up_proj":2}`, "mlp.up_proj", [2]int{2, 2}},
		{`"rank_pattern":{"^model.layers.1.mlp.up_proj":2}`, "mlp.up_proj", [2]int{2, 4}},
	} {
		a := parse(tt.patterns)
		if have := [2]int{rank(a, 1, tt.part), rank(a, 11, tt.part)}; have != tt.want {
			t.Errorf("%s: ranks %v, want %v", tt.patterns, have, tt.want)
		}
	}
	// Scale takes rank and alpha of the patterns; the order of keys survives writing.
	a := parse(`"rank_pattern":{"q_proj":9,"layers.1.self_attn.q_proj":2},"alpha_pattern":{"layers.1.self_attn.q_proj":6},"use_rslora":true`)
	if p := a.Pairs["model.layers.1.self_attn.q_proj"]; p.Scale != 6./3 {
		t.Errorf("scale %g, want 2", p.Scale)
	}
	if p := a.Pairs["model.layers.0.mlp.up_proj"]; p.Scale != 8./2 {
		t.Errorf("scale %g, want 4", p.Scale)
	}
	again, err := weights.ParseAdapterConfig(a.Config.JSON())
	if d := cmp.Diff(a.Config, again); err != nil || d != "" {
		t.Errorf("%v (-want +have):\n%s", err, d)
	}
}

// An adapter whose file and configuration disagree does not open.
func TestAdapterFileRefused(t *testing.T) {
	const module = "base_model.model.model.layers.0.self_attn.q_proj"
	matrix := func(name string, rows, cols int) weights.Tensor {
		return weights.Encode(name, weights.F32, []int{rows, cols}, make([]float32, rows*cols))
	}
	a, b := matrix(module+".lora_A.weight", 4, 8), matrix(module+".lora_B.weight", 6, 4)
	nan := weights.Encode(a.Name, weights.BF16, []int{4, 8}, slices.Repeat([]float32{float32(math.NaN())}, 32))
	config := adapterConfig(`,"target_modules":["q_proj"]`)
	for name, tt := range map[string]struct {
		config  string
		tensors []weights.Tensor
		want    string // "": opens
	}{
		"whole":             {config, []weights.Tensor{a, b}, ""},
		"half a pair":       {config, []weights.Tensor{a}, "only one of lora_A and lora_B"},
		"nothing":           {config, nil, `target_modules names "q_proj"`},
		"listed, not there": {adapterConfig(`,"target_modules":["q_proj","v_proj"]`), []weights.Tensor{a, b}, `target_modules names "v_proj"`},
		"there, not listed": {adapterConfig(`,"target_modules":".*v_proj"`), []weights.Tensor{a, b}, "target_modules does not name it"},
		"other rank":        {`{"peft_type":"LORA","r":2,"target_modules":["q_proj"]}`, []weights.Tensor{a, b}, "rank 4, the configuration says 2"},
		"B of other rank":   {config, []weights.Tensor{a, matrix(b.Name, 6, 3)}, "18"},
		"NaN":               {config, []weights.Tensor{nan, b}, "element 0 is not a finite number"},
		"a vector":          {config, []weights.Tensor{weights.Encode(a.Name, weights.F32, []int{8}, make([]float32, 8)), b}, "want a matrix"},
		"magnitude":         {config, []weights.Tensor{a, b, matrix(module+".lora_magnitude_vector", 1, 6)}, "lora_magnitude_vector"},
		"whole head":        {config, []weights.Tensor{a, b, matrix("base_model.model.lm_head.weight", 3, 8)}, "lm_head"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(tt.config), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := weights.WriteSafetensors(filepath.Join(dir, "adapter_model.safetensors"), tt.tensors, nil); err != nil {
			t.Fatal(err)
		}
		_, err := weights.OpenAdapter(dir)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestWriteAdapterKeepsStrangers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	model := weights.Config{Architecture: "llama", Layers: 1, Hidden: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 12, Vocab: 16}
	a, err := weights.NewAdapter(weights.AdapterConfig{R: 1, Alpha: 1, Targets: weights.Targets{Names: []string{"q_proj"}}}, model)
	if err != nil {
		t.Fatal(err)
	}
	if err := weights.WriteAdapter(dir, a); err == nil || !strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("%v", err)
	}
	if read(t, dir, "notes.txt") != "mine" {
		t.Error("the file is gone")
	}
	bad := *a
	bad.Pairs = map[string]weights.Pair{"model.layers.0.self_attn.q_proj": {Rank: 1, Scale: 2, In: 8, Out: 8, A: make([]float32, 8), B: make([]float32, 8)}}
	if err := weights.WriteAdapter(filepath.Join(t.TempDir(), "a"), &bad); err == nil || !strings.Contains(err.Error(), "scale 2") {
		t.Errorf("an adapter that contradicts its configuration: %v", err)
	}
	// 16/10 is no float32, and what a device scales by is one.
	a, err = weights.NewAdapter(weights.AdapterConfig{R: 10, Alpha: 16, Targets: weights.Targets{Names: []string{"q_proj"}}}, model)
	if err != nil {
		t.Fatal(err)
	}
	for module, p := range a.Pairs {
		p.Scale = float64(float32(p.Scale))
		a.Pairs[module] = p
	}
	if err := weights.WriteAdapter(filepath.Join(t.TempDir(), "a"), a); err != nil {
		t.Errorf("a scale that has been on a device: %v", err)
	}
}
