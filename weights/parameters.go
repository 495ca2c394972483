package weights

import "fmt"

// A Parameter is a tensor that a model has, by its Hugging Face name.
type Parameter struct {
	Name  string
	Shape []int
}

// A Projection is one of the seven linear maps of a layer. Its weight is Out × In.
type Projection struct {
	Module  string // such as "model.layers.0.self_attn.q_proj"
	In, Out int
	Bias    bool
}

// Projections returns the linear maps of layer i in the order q, k, v, o, gate, up, down.
func (c Config) Projections(i int) []Projection {
	attn, mlp := fmt.Sprintf("model.layers.%d.self_attn.", i), fmt.Sprintf("model.layers.%d.mlp.", i)
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return []Projection{
		{attn + "q_proj", c.Hidden, q, c.QKVBias},
		{attn + "k_proj", c.Hidden, kv, c.QKVBias},
		{attn + "v_proj", c.Hidden, kv, c.QKVBias},
		{attn + "o_proj", q, c.Hidden, c.OutBias},
		{mlp + "gate_proj", c.Hidden, c.FFN, c.MLPBias},
		{mlp + "up_proj", c.Hidden, c.FFN, c.MLPBias},
		{mlp + "down_proj", c.FFN, c.Hidden, c.MLPBias},
	}
}

// Parameters returns all tensors of the model, embedding first, head last. A tied head is not one.
func (c Config) Parameters() []Parameter {
	out := []Parameter{{"model.embed_tokens.weight", []int{c.Vocab, c.Hidden}}}
	for i := range c.Layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		out = append(out, Parameter{layer + "input_layernorm.weight", []int{c.Hidden}})
		for _, p := range c.Projections(i) {
			out = append(out, Parameter{p.Module + ".weight", []int{p.Out, p.In}})
			if p.Bias {
				out = append(out, Parameter{p.Module + ".bias", []int{p.Out}})
			}
		}
		if c.QKNorm {
			out = append(out, Parameter{layer + "self_attn.q_norm.weight", []int{c.HeadDim}},
				Parameter{layer + "self_attn.k_norm.weight", []int{c.HeadDim}})
		}
		out = append(out, Parameter{layer + "post_attention_layernorm.weight", []int{c.Hidden}})
	}
	out = append(out, Parameter{"model.norm.weight", []int{c.Hidden}})
	if !c.TieEmbeddings {
		out = append(out, Parameter{"lm_head.weight", []int{c.Vocab, c.Hidden}})
	}
	return out
}
