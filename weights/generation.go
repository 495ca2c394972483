package weights

import "fmt"

// Generation holds a generation_config.json: ids and sampling defaults. What the file does not say is
// nil, or -1 for an id.
type Generation struct {
	EOS      []int // token ids that end a text; config.json's when the file names none
	BOS, PAD int

	DoSample                                   *bool // false: greedy
	Temperature, TopP, MinP, RepetitionPenalty *float64
	TopK                                       *int
	MaxNewTokens                               *int // most tokens of an answer
}

// ParseGeneration reads a generation_config.json.
func ParseGeneration(b []byte) (Generation, error) {
	o, err := parseObject(b)
	if err != nil {
		return Generation{}, err
	}
	g := Generation{EOS: o.ids("eos_token_id"), BOS: o.id("bos_token_id"), PAD: o.id("pad_token_id")}
	for _, f := range []struct {
		name string
		to   **float64
	}{
		{"temperature", &g.Temperature}, {"top_p", &g.TopP}, {"min_p", &g.MinP}, {"repetition_penalty", &g.RepetitionPenalty},
	} {
		if o.has(f.name) {
			v := o.number(f.name, 0)
			*f.to = &v
			if v < 0 && o.err == nil {
				return g, fmt.Errorf("%s %g is negative", f.name, v)
			}
		}
	}
	if o.has("top_k") {
		v := o.integer("top_k", 0)
		g.TopK = &v
	}
	if o.has("max_new_tokens") {
		v := o.integer("max_new_tokens", 0)
		g.MaxNewTokens = &v
		if v < 1 && o.err == nil {
			return g, fmt.Errorf("max_new_tokens %d: want at least 1", v)
		}
	}
	if o.has("do_sample") {
		v := o.boolean("do_sample", false)
		g.DoSample = &v
	}
	return g, o.err
}

// JSON is g as a generation_config.json.
func (g Generation) JSON() []byte {
	m := map[string]any{}
	for name, id := range map[string]int{"bos_token_id": g.BOS, "pad_token_id": g.PAD} {
		if id >= 0 {
			m[name] = id
		}
	}
	if len(g.EOS) > 0 {
		m["eos_token_id"] = idList(g.EOS)
	}
	for name, v := range map[string]*float64{
		"temperature": g.Temperature, "top_p": g.TopP, "min_p": g.MinP, "repetition_penalty": g.RepetitionPenalty,
	} {
		if v != nil {
			m[name] = *v
		}
	}
	if g.TopK != nil {
		m["top_k"] = *g.TopK
	}
	if g.MaxNewTokens != nil {
		m["max_new_tokens"] = *g.MaxNewTokens
	}
	if g.DoSample != nil {
		m["do_sample"] = *g.DoSample
	}
	return indented(m)
}
