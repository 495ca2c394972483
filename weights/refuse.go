package weights

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// refuseConfig names the first setting of a config.json that would change the result and is not
// supported.
func refuseConfig(o *object) error {
	for _, name := range []string{"hidden_act", "hidden_activation"} {
		if act := o.text(name, "silu"); act != "silu" && act != "swish" {
			return fmt.Errorf("%s %q is not supported (silu is)", name, act)
		}
	}
	if f := o.number("partial_rotary_factor", 1); f != 1 {
		return fmt.Errorf("partial_rotary_factor %g is not supported", f)
	}
	if o.has("quantization_config") {
		return fmt.Errorf("quantization_config is not supported: take the unquantised weights, or a GGUF file")
	}
	// Each of these is at the value given, or absent, in a model without the feature.
	for _, s := range []struct {
		name    string
		neutral float64
	}{
		{"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0}, {"query_pre_attn_scalar", 0},
		{"num_experts", 0}, {"num_local_experts", 0}, {"n_routed_experts", 0}, {"num_experts_per_tok", 0}, {"moe_intermediate_size", 0},
		{"logit_scale", 1}, {"logits_scaling", 1}, {"embedding_multiplier", 1}, {"residual_multiplier", 1},
		{"attention_multiplier", 0}, {"attention_chunk_size", 0},
	} {
		if v := o.number(s.name, s.neutral); v != s.neutral && v != 0 {
			return fmt.Errorf("%s %s is not supported", s.name, short(o.at[s.name]))
		}
	}
	for _, name := range []string{"use_bidirectional_attention", "rope_interleave", "rope_interleaved", "use_alibi", "no_rope_layers", "quantization"} {
		if o.has(name) && !empty(o.at[name]) {
			return fmt.Errorf("%s %s is not supported", name, short(o.at[name]))
		}
	}
	if !o.boolean("is_causal", true) {
		return fmt.Errorf("is_causal false is not supported")
	}
	return o.err
}

// refuseWindows refuses sliding-window attention where a layer would use it.
func (c *Config) refuseWindows(o *object) error {
	for i, kind := range o.texts("layer_types") {
		if kind != "full_attention" {
			return fmt.Errorf("layer_types: %q of layer %d is not supported (full_attention is)", kind, i)
		}
	}
	window := o.integer("sliding_window", 0)
	// Qwen has a window only with use_sliding_window, in the layers from max_window_layers on.
	used := c.Architecture == "llama" ||
		o.boolean("use_sliding_window", false) && o.integer("max_window_layers", 0) < c.Layers
	if window != 0 && used {
		return fmt.Errorf("sliding_window %d is not supported", window)
	}
	return o.err
}

// empty reports whether a JSON value is null, false, 0, "" or holds nothing.
func empty(v json.RawMessage) bool {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return false
	}
	switch b.String() {
	case "null", "false", "0", "0.0", `""`, "[]", "{}":
		return true
	}
	return false
}
