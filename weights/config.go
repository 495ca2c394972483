package weights

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Config says what a decoder computes: the architectures differ by flags only.
type Config struct {
	Architecture string // "llama", "qwen2" or "qwen3"

	Layers, Hidden int
	Heads, KVHeads int // of queries; of keys and values
	HeadDim        int // of one head; Heads·HeadDim may differ from Hidden
	FFN            int // width of gate and up
	Vocab          int // rows of the embedding
	Context        int // longest sequence

	Theta       float64        // base of the rotary frequencies
	RopeScaling *Llama3Scaling // nil: none
	Eps         float64        // of RMSNorm

	TieEmbeddings bool // the head is the embedding
	QKVBias       bool // q_proj, k_proj and v_proj have biases
	OutBias       bool // o_proj has one
	MLPBias       bool // gate_proj, up_proj and down_proj have them
	QKNorm        bool // each head of q and k goes through an RMSNorm of HeadDim weights

	DType    string // of the weights as the file says: "float32", "bfloat16", "float16" or ""
	BOS, PAD int    // token ids; -1: none
	EOS      []int  // token ids that end a text
}

// Llama3Scaling stretches low rotary frequencies (Llama 3.1: wavelengths above Original/LowFreq are
// divided by Factor, those below Original/HighFreq kept, those between interpolated).
type Llama3Scaling struct {
	Factor, LowFreq, HighFreq float64
	Original                  int // context length before scaling, tokens
}

// ParseConfig reads a config.json in the spelling of transformers 4 or 5. A setting that would change
// the result and is not supported is an error that names it.
func ParseConfig(b []byte) (Config, error) {
	o, err := parseObject(b)
	if err != nil {
		return Config{}, err
	}
	c := Config{Architecture: o.text("model_type", "")}
	if err := c.architecture(o); err != nil {
		return Config{}, err
	}
	c.dimensions(o)
	c.tokens(o)
	c.biases(o)
	if o.err != nil {
		return Config{}, o.err
	}
	for _, check := range []func(*object) error{c.rope, c.refuseWindows, refuseConfig} {
		if err := check(o); err != nil {
			return Config{}, err
		}
	}
	return c, c.validate()
}

// classes are the model classes of transformers that are computed here, by model_type.
var classes = map[string]string{
	"llama": "LlamaForCausalLM",
	"qwen2": "Qwen2ForCausalLM",
	"qwen3": "Qwen3ForCausalLM",
}

const supported = "supported are llama, qwen2 and qwen3"

func (c *Config) architecture(o *object) error {
	classNames := o.texts("architectures")
	if o.err != nil {
		return o.err
	}
	if c.Architecture == "" {
		for name, class := range classes {
			if len(classNames) == 1 && classNames[0] == class {
				c.Architecture = name
			}
		}
	}
	class, ok := classes[c.Architecture]
	switch {
	case c.Architecture == "" && len(classNames) == 0:
		return fmt.Errorf("no model_type: not a model's config.json? (%s)", supported)
	case c.Architecture == "":
		return fmt.Errorf("architectures %v is not supported (%s)", classNames, supported)
	case !ok && o.has("sliding_window"):
		return fmt.Errorf("model_type %q with sliding_window %s is not supported (%s)", c.Architecture, short(o.at["sliding_window"]), supported)
	case !ok:
		return fmt.Errorf("model_type %q is not supported (%s)", c.Architecture, supported)
	}
	for _, have := range classNames {
		if have != class {
			return fmt.Errorf("architectures: %q is not supported for model_type %q (only %s)", have, c.Architecture, class)
		}
	}
	return nil
}

func (c *Config) dimensions(o *object) {
	need := func(name string) int {
		if !o.has(name) && o.err == nil {
			o.err = fmt.Errorf("no %s", name)
		}
		return o.integer(name, 0)
	}
	c.Layers = need("num_hidden_layers")
	c.Hidden = need("hidden_size")
	c.Heads = need("num_attention_heads")
	c.FFN = need("intermediate_size")
	c.Vocab = need("vocab_size")
	c.Context = need("max_position_embeddings")
	if c.KVHeads = c.Heads; c.Architecture != "llama" || o.has("num_key_value_heads") {
		c.KVHeads = need("num_key_value_heads") // transformers has a default of 32 for Qwen: better to ask
	}
	if c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	if c.Architecture == "qwen3" {
		c.HeadDim = 128 // the default of transformers
	}
	if c.HeadDim = o.integer("head_dim", c.HeadDim); !o.has("head_dim") && c.Architecture != "qwen3" &&
		c.HeadDim*c.Heads != c.Hidden && o.err == nil {
		o.err = fmt.Errorf("no head_dim, and hidden_size %d is not a multiple of num_attention_heads %d", c.Hidden, c.Heads)
	}
	c.Eps = o.number("rms_norm_eps", 1e-6)
}

func (c *Config) tokens(o *object) {
	c.DType = o.text("torch_dtype", o.text("dtype", ""))
	c.DType = strings.TrimPrefix(c.DType, "torch.")
	c.BOS, c.PAD, c.EOS = o.id("bos_token_id"), o.id("pad_token_id"), o.ids("eos_token_id")
}

// biases sets what the architectures differ by.
func (c *Config) biases(o *object) {
	c.TieEmbeddings = o.boolean("tie_word_embeddings", false)
	bias := o.boolean("attention_bias", false)
	switch c.Architecture {
	case "llama":
		c.QKVBias, c.OutBias, c.MLPBias = bias, bias, o.boolean("mlp_bias", false)
	case "qwen2":
		c.QKVBias = true
	case "qwen3":
		c.QKVBias, c.OutBias, c.QKNorm = bias, bias, true
	}
}

// rope reads rope_theta and rope_scaling (transformers 4) or rope_parameters (5).
func (c *Config) rope(o *object) error {
	c.Theta = o.number("rope_theta", 10000)
	if o.has("rope_parameters") && o.has("rope_scaling") && string(o.at["rope_scaling"]) != "{}" {
		return fmt.Errorf("both rope_parameters and rope_scaling: which of them holds?")
	}
	key := "rope_scaling"
	if o.has("rope_parameters") {
		key = "rope_parameters"
	}
	if o.err != nil || !o.has(key) {
		return o.err
	}
	r, err := parseObject(o.at[key])
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	theta := r.number("rope_theta", c.Theta)
	if o.has("rope_theta") && theta != c.Theta {
		return fmt.Errorf("rope_theta is %g, and %g in %s", c.Theta, theta, key)
	}
	c.Theta = theta
	kind := r.text("rope_type", r.text("type", "default"))
	if f := r.number("partial_rotary_factor", 1); f != 1 {
		return fmt.Errorf("partial_rotary_factor %g is not supported", f)
	}
	switch {
	case r.err != nil:
	case kind == "llama3":
		for _, name := range []string{"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"} {
			if !r.has(name) {
				return fmt.Errorf("%s: llama3 without %s", key, name)
			}
		}
		c.RopeScaling = &Llama3Scaling{
			Factor:  r.number("factor", 0),
			LowFreq: r.number("low_freq_factor", 0), HighFreq: r.number("high_freq_factor", 0),
			Original: r.integer("original_max_position_embeddings", 0),
		}
	case kind != "default":
		return fmt.Errorf("rope type %q is not supported (default and llama3 are)", kind)
	default:
		for _, m := range r.list { // per-layer parameters, or a factor whose kind is not given
			if m.name != "rope_type" && m.name != "type" && m.name != "rope_theta" && r.has(m.name) && m.name != "partial_rotary_factor" {
				return fmt.Errorf("%s: %s is not supported", key, m.name)
			}
		}
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", key, r.err)
	}
	return nil
}

// validate checks that the numbers make a decoder at all.
func (c *Config) validate() error {
	const most = 1 << 28 // far beyond any model; keeps products of two within an int
	for _, d := range []struct {
		name string
		v    int
	}{
		{"num_hidden_layers", c.Layers}, {"hidden_size", c.Hidden}, {"num_attention_heads", c.Heads},
		{"num_key_value_heads", c.KVHeads}, {"head_dim", c.HeadDim}, {"intermediate_size", c.FFN},
		{"vocab_size", c.Vocab}, {"max_position_embeddings", c.Context},
	} {
		if d.v < 1 || d.v > most {
			return fmt.Errorf("%s %d is not possible", d.name, d.v)
		}
	}
	switch s := c.RopeScaling; {
	case c.Layers > 10000:
		return fmt.Errorf("num_hidden_layers %d is not possible", c.Layers)
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim %d is odd, and rotary embeddings turn pairs", c.HeadDim)
	case c.Heads > most/c.HeadDim:
		return fmt.Errorf("%d heads of %d are not possible", c.Heads, c.HeadDim)
	case !(c.Eps > 0 && c.Eps < 1):
		return fmt.Errorf("rms_norm_eps %g is not possible", c.Eps)
	case !(c.Theta > 0):
		return fmt.Errorf("rope_theta %g is not possible", c.Theta)
	case s != nil && !(s.Factor >= 1 && s.LowFreq > 0 && s.HighFreq > s.LowFreq && s.Original > 0):
		return fmt.Errorf("llama3 rope scaling %+v is not possible", *s)
	}
	return nil
}

// JSON is c as a config.json in the spelling of transformers 4, which 5 reads too.
func (c Config) JSON() []byte {
	m := map[string]any{
		"architectures": []string{classes[c.Architecture]}, "model_type": c.Architecture,
		"num_hidden_layers": c.Layers, "hidden_size": c.Hidden,
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"intermediate_size": c.FFN, "vocab_size": c.Vocab, "max_position_embeddings": c.Context,
		"rope_theta": c.Theta, "rope_scaling": nil, "rms_norm_eps": c.Eps, "hidden_act": "silu",
		"tie_word_embeddings": c.TieEmbeddings, "use_cache": true,
		"bos_token_id": optional(c.BOS), "pad_token_id": optional(c.PAD), "eos_token_id": idList(c.EOS),
	}
	if c.DType != "" {
		m["torch_dtype"] = c.DType
	}
	if c.Architecture != "qwen2" {
		m["attention_bias"] = c.QKVBias
	}
	if c.Architecture == "llama" {
		m["mlp_bias"] = c.MLPBias
	}
	if s := c.RopeScaling; s != nil {
		m["rope_scaling"] = map[string]any{
			"rope_type": "llama3", "factor": s.Factor, "low_freq_factor": s.LowFreq,
			"high_freq_factor": s.HighFreq, "original_max_position_embeddings": s.Original,
		}
	}
	return indented(m)
}

// indented is v as JSON with sorted keys, two spaces deep, and a final newline.
func indented(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // only plain maps, numbers and strings come here
	}
	return append(b, '\n')
}

// optional is a token id, or null.
func optional(id int) any {
	if id < 0 {
		return nil
	}
	return id
}

// idList is null, one id or a list.
func idList(ids []int) any {
	switch len(ids) {
	case 0:
		return nil
	case 1:
		return ids[0]
	}
	return ids
}
