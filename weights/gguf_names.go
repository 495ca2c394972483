package weights

import (
	"fmt"
	"strings"
)

// ggufNames pairs the parts of a tensor's name: Hugging Face's on the left, GGUF's on the right.
var ggufNames = strings.NewReplacer(
	"model.embed_tokens.", "token_embd.",
	"model.norm.", "output_norm.",
	"lm_head.", "output.",
	"model.layers.", "blk.",
	"input_layernorm.", "attn_norm.",
	"post_attention_layernorm.", "ffn_norm.",
	"self_attn.q_proj.", "attn_q.",
	"self_attn.k_proj.", "attn_k.",
	"self_attn.v_proj.", "attn_v.",
	"self_attn.o_proj.", "attn_output.",
	"self_attn.q_norm.", "attn_q_norm.",
	"self_attn.k_norm.", "attn_k_norm.",
	"mlp.gate_proj.", "ffn_gate.",
	"mlp.up_proj.", "ffn_up.",
	"mlp.down_proj.", "ffn_down.",
)

// named returns the model's tensors under their Hugging Face names, as stored, and the number of heads
// of those whose rows are permuted. A tensor that is no parameter is an error.
func (g *GGUF) named(c Config) (tensors map[string]Tensor, permuted map[string]int, err error) {
	tensors, permuted = map[string]Tensor{}, map[string]int{}
	known := map[string]bool{"rope_freqs.weight": true} // see ropeFactors
	for _, p := range c.Parameters() {
		name := ggufNames.Replace(p.Name)
		known[name] = true
		if t, ok := g.tensors[name]; ok {
			t.Name = p.Name
			tensors[p.Name] = t
		}
	}
	for _, name := range g.Names() {
		if !known[name] {
			return nil, nil, fmt.Errorf("tensor %q belongs to no %s model of this configuration", name, c.Architecture)
		}
	}
	if c.Architecture == "llama" { // the converter permutes no other's
		for i := range c.Layers {
			q, k := c.Projections(i)[0].Module, c.Projections(i)[1].Module
			permuted[q+".weight"], permuted[q+".bias"] = c.Heads, c.Heads
			permuted[k+".weight"], permuted[k+".bias"] = c.KVHeads, c.KVHeads
		}
	}
	return tensors, permuted, nil
}

// halves undoes the permutation of q's and k's rows in Llama GGUFs: within each head of d rows, row
// 2i+j of the file is row j·d/2+i, j = 0, 1. Rows are whole blocks, so quantised ones move as they are.
func halves(t Tensor, heads int) Tensor {
	rows := t.Rows()
	if len(t.Shape) == 1 {
		rows = t.Cols() // a bias: one element a row
	}
	d, n := rows/heads, len(t.Data)/rows
	out := make([]byte, len(t.Data))
	for r := range rows {
		head, j, i := r/d*d, r%d/(d/2), r%(d/2)
		from := head + 2*i + j
		copy(out[r*n:(r+1)*n], t.Data[from*n:])
	}
	t.Data = out
	return t
}
