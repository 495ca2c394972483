package weights

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config derives the model's configuration from metadata and the tensors that are there, and refuses
// by name what would change the result and is not supported.
func (g *GGUF) Config() (Config, error) {
	arch := g.Text("general.architecture")
	if _, ok := classes[arch]; !ok {
		return Config{}, fmt.Errorf("general.architecture %q is not supported (%s)", arch, supported)
	}
	if err := g.refuse(arch); err != nil {
		return Config{}, err
	}
	c := Config{Architecture: arch, QKNorm: arch == "qwen3"}
	if err := g.dimensions(&c, arch+"."); err != nil {
		return c, err
	}
	has := func(name string) bool { _, ok := g.tensors[name]; return ok }
	c.TieEmbeddings = !has("output.weight")
	c.QKVBias = has("blk.0.attn_q.bias")
	c.OutBias = has("blk.0.attn_output.bias")
	c.MLPBias = has("blk.0.ffn_up.bias")
	c.BOS, c.PAD = g.tokenID("bos"), g.tokenID("padding")
	for _, id := range []int{g.tokenID("eos"), g.tokenID("eot")} {
		if id >= 0 && !slices.Contains(c.EOS, id) {
			c.EOS = append(c.EOS, id)
		}
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	return c, g.ropeFactors(&c)
}

func (g *GGUF) dimensions(c *Config, prefix string) (err error) {
	need := func(key string) int {
		n, ok := g.integer(prefix + key)
		if !ok && err == nil {
			err = fmt.Errorf("metadata %s%s is missing, or not one integer", prefix, key)
		}
		return n
	}
	c.Layers = need("block_count")
	c.Hidden = need("embedding_length")
	c.FFN = need("feed_forward_length")
	c.Heads = need("attention.head_count")
	c.Context = need("context_length")
	var ok bool
	if c.Eps, ok = g.number(prefix + "attention.layer_norm_rms_epsilon"); !ok && err == nil {
		err = fmt.Errorf("metadata %sattention.layer_norm_rms_epsilon is missing", prefix)
	}
	if c.KVHeads = c.Heads; g.has(prefix + "attention.head_count_kv") {
		c.KVHeads = need("attention.head_count_kv")
	}
	if c.Theta, ok = g.number(prefix + "rope.freq_base"); !ok {
		c.Theta = 10000
	}
	if g.has(prefix + "attention.key_length") {
		c.HeadDim = need("attention.key_length")
	} else if c.Heads > 0 && c.Hidden%c.Heads == 0 {
		c.HeadDim = c.Hidden / c.Heads
	} else if err == nil {
		err = fmt.Errorf("%d heads do not divide a width of %d", c.Heads, c.Hidden)
	}
	if err != nil {
		return err
	}
	for _, key := range []string{"attention.value_length", "rope.dimension_count"} {
		if n, ok := g.integer(prefix + key); ok && n != c.HeadDim {
			return fmt.Errorf("%s%s %d differs from the head's %d dimensions: not supported", prefix, key, n, c.HeadDim)
		}
	}
	embedding, ok := g.tensors["token_embd.weight"]
	if !ok {
		return fmt.Errorf("no tensor token_embd.weight: a vocabulary without a model?")
	}
	c.Vocab = embedding.Rows()
	return nil
}

// refuse names metadata that would change the result.
func (g *GGUF) refuse(arch string) error {
	if kind := g.Text(arch + ".rope.scaling.type"); kind != "" && kind != "none" {
		return fmt.Errorf("%s.rope.scaling.type %q is not supported", arch, kind)
	}
	for _, s := range []struct {
		key     string
		neutral float64
	}{
		{"expert_count", 0}, {"expert_used_count", 0}, {"attention.sliding_window", 0}, {"attention.clamp_kqv", 0},
		{"attention.max_alibi_bias", 0}, {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0},
		{"logit_scale", 1}, {"embedding_scale", 1}, {"residual_scale", 1}, {"attention.scale", 0},
		{"rope.scale_linear", 1}, {"attention.causal", 1}, {"nextn_predict_layers", 0},
	} {
		if v, ok := g.number(arch + "." + s.key); ok && v != s.neutral {
			return fmt.Errorf("%s.%s %g is not supported", arch, s.key, v)
		}
	}
	for name := range g.tensors {
		if strings.HasPrefix(name, "rope_factors_") {
			return fmt.Errorf("tensor %q: long rope is not supported", name)
		}
	}
	return nil
}

// ropeFactors reads Llama 3's frequency scaling. GGUF keeps only what each frequency is divided by, so
// the scaling is the one set of parameters that Llama 3 models use, taken when its factors equal the
// file's, one by one.
func (g *GGUF) ropeFactors(c *Config) error {
	t, ok := g.tensors["rope_freqs.weight"]
	if !ok {
		return nil
	}
	if t.Type != F32 || t.Len() != c.HeadDim/2 {
		return fmt.Errorf("tensor rope_freqs.weight: %v%v, want F32[%d]", t.Type, t.Shape, c.HeadDim/2)
	}
	have := t.Float32(nil)
	s := Llama3Scaling{LowFreq: 1, HighFreq: 4, Original: 8192}
	for _, f := range have {
		s.Factor = max(s.Factor, float64(f))
	}
	for i, f := range have {
		freq := math.Pow(c.Theta, -2*float64(i)/float64(c.HeadDim))
		if want := 1 / s.scale(freq); !(math.Abs(float64(f)-want) <= 1e-4*want) {
			return fmt.Errorf("tensor rope_freqs.weight: factor %g of frequency %d is not that of Llama 3 (%g): not supported", f, i, want)
		}
	}
	if s.Factor != 1 {
		c.RopeScaling = &s
	}
	return nil
}

// scale is what Llama 3 multiplies a rotary frequency (radians a token) by.
func (s *Llama3Scaling) scale(freq float64) float64 {
	turns := float64(s.Original) * freq / (2 * math.Pi) // in the original context
	switch {
	case turns < s.LowFreq:
		return 1 / s.Factor
	case turns > s.HighFreq:
		return 1
	}
	smooth := (turns - s.LowFreq) / (s.HighFreq - s.LowFreq)
	return (1-smooth)/s.Factor + smooth
}
