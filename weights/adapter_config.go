package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// AdapterConfig is what an adapter_config.json says.
type AdapterConfig struct {
	R       int
	Alpha   float64
	RSLoRA  bool    // scale by α/√r instead of α/r (Kalajdzievski 2023)
	Dropout float64 // of the input while training; has no part in inference
	Base    string  // name or path of the base model

	Targets, Exclude Targets
	Layers           []int     // layers_to_transform: only these, when Targets is a list; nil: all
	LayersPattern    []string  // layers_pattern: names of the list of layers; nil: any
	RankPattern      []Pattern // modules with another rank, and …
	AlphaPattern     []Pattern // … with another α: the first that matches holds
}

// Targets names modules: by the last parts of their names, or by a regular expression for the whole
// name. The expression "all-linear" stands for every projection of a layer.
type Targets struct {
	Names  []string
	Regexp string
}

// AllLinear targets every projection of a layer.
const AllLinear = "all-linear"

// A Pattern gives the modules whose name from some dot (or the start) on matches Key, a regular
// expression, the value Value.
type Pattern struct {
	Key   string
	Value float64
}

// maxAdapterConfig bounds the work that hostile regular expressions can ask for.
const maxAdapterConfig = 1 << 20

const maxRank = 1 << 16

// ParseAdapterConfig reads an adapter_config.json. Of PEFT's settings those that say how and by what
// the adapter was made are read over; any other that is on and would change the result is an error
// that names it.
func ParseAdapterConfig(b []byte) (AdapterConfig, error) {
	var c AdapterConfig
	if len(b) > maxAdapterConfig {
		return c, fmt.Errorf("%d bytes are too many for an adapter's configuration", len(b))
	}
	o, err := parseObject(b)
	if err != nil {
		return c, err
	}
	if err := refuseAdapter(o); err != nil {
		return c, err
	}
	c.R, c.Alpha = o.integer("r", 8), o.number("lora_alpha", 8) // the defaults of PEFT
	c.RSLoRA = o.boolean("use_rslora", false)
	c.Dropout = o.number("lora_dropout", 0)
	c.Base = o.text("base_model_name_or_path", "")
	c.Targets, c.Exclude = o.targets("target_modules"), o.targets("exclude_modules")
	c.Layers = o.ids("layers_to_transform")
	if o.has("layers_pattern") {
		var one string
		if json.Unmarshal(o.at["layers_pattern"], &one) == nil {
			c.LayersPattern = slices.DeleteFunc([]string{one}, func(s string) bool { return s == "" })
		} else {
			c.LayersPattern = o.texts("layers_pattern")
		}
	}
	c.RankPattern, c.AlphaPattern = o.patterns("rank_pattern"), o.patterns("alpha_pattern")
	if o.err != nil {
		return c, o.err
	}
	_, err = c.compile()
	return c, err
}

// read lists the settings of an adapter_config.json that ParseAdapterConfig honours, and passed those
// that have no part in the result.
var (
	read = []string{
		"r", "lora_alpha", "use_rslora", "lora_dropout", "base_model_name_or_path", "target_modules", "exclude_modules",
		"layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "peft_type", "task_type", "bias", "init_lora_weights",
	}
	passed = []string{
		"auto_mapping", "revision", "inference_mode", "peft_version", "megatron_core", "qalora_group_size",
		"eva_config",                      // only how A was first drawn
		"runtime_config", "unsloth_fixed", // how others ran and marked it
	}
)

// refuseAdapter names the first setting that would change the result and is not supported.
func refuseAdapter(o *object) error {
	for _, s := range []struct {
		name    string
		allowed []string
	}{
		{"peft_type", []string{`"LORA"`}},
		{"task_type", []string{`"CAUSAL_LM"`}},
		{"bias", []string{`"none"`}},
		// PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA also change the base model.
		{"init_lora_weights", []string{"true", "false", `"gaussian"`, `"orthogonal"`, `"eva"`}},
	} {
		if v := o.at[s.name]; o.has(s.name) && !slices.Contains(s.allowed, string(v)) {
			return fmt.Errorf("%s %s is not supported", s.name, short(v))
		}
	}
	if !o.has("peft_type") {
		return errors.New("no peft_type: not the configuration of an adapter?")
	}
	for _, m := range o.list {
		if !slices.Contains(read, m.name) && !slices.Contains(passed, m.name) && !empty(m.value) {
			return fmt.Errorf("%s %s is not supported", m.name, short(m.value))
		}
	}
	return nil
}

// targets is a list of names or a regular expression.
func (o *object) targets(name string) (t Targets) {
	if o.has(name) && json.Unmarshal(o.at[name], &t.Regexp) != nil {
		t.Regexp = ""
		if json.Unmarshal(o.at[name], &t.Names) != nil || slices.Contains(t.Names, "") {
			o.fail(name, "a list of names or a regular expression")
		}
	}
	return t
}

// patterns is an object of positive numbers, in file order.
func (o *object) patterns(name string) (out []Pattern) {
	if !o.has(name) {
		return nil
	}
	list, err := members(o.at[name])
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("%s: %w", name, err)
	}
	for _, m := range list {
		p := Pattern{Key: m.name}
		if json.Unmarshal(m.value, &p.Value) != nil {
			o.fail(name, "an object of numbers")
		}
		out = append(out, p)
	}
	return out
}

// validate checks the numbers.
func (c AdapterConfig) validate() error {
	if c.R < 1 || c.R > maxRank {
		return fmt.Errorf("r %d is not possible", c.R)
	}
	if !(math.Abs(c.Alpha) <= math.MaxFloat32) {
		return fmt.Errorf("lora_alpha %g is not possible", c.Alpha)
	}
	if !(c.Dropout >= 0 && c.Dropout < 1) {
		return fmt.Errorf("lora_dropout %g is not possible", c.Dropout)
	}
	for _, p := range c.RankPattern {
		if p.Value < 1 || p.Value > maxRank || p.Value != math.Trunc(p.Value) {
			return fmt.Errorf("rank_pattern: %q: a rank of %g is not possible", p.Key, p.Value)
		}
	}
	if c.Targets.Regexp == "" && len(c.Targets.Names) == 0 {
		return errors.New("target_modules is missing: name the modules")
	}
	if c.Targets.Regexp != "" && (c.Layers != nil || c.LayersPattern != nil) {
		return errors.New("layers_to_transform and layers_pattern need target_modules to be a list of names")
	}
	return nil
}

// JSON is c as an adapter_config.json: the settings that PEFT has had for years, so that old and new
// versions load it.
func (c AdapterConfig) JSON() []byte {
	return indented(map[string]any{
		"peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": true,
		"base_model_name_or_path": c.Base, "revision": nil, "auto_mapping": nil,
		"r": c.R, "lora_alpha": c.Alpha, "use_rslora": c.RSLoRA, "lora_dropout": c.Dropout,
		"target_modules": c.Targets.json(), "exclude_modules": c.Exclude.json(),
		"layers_to_transform": c.Layers, "layers_pattern": c.LayersPattern,
		"rank_pattern": ordered(c.RankPattern), "alpha_pattern": ordered(c.AlphaPattern),
		"bias": "none", "fan_in_fan_out": false, "init_lora_weights": true, "modules_to_save": nil,
		"use_dora": false, "loftq_config": map[string]any{},
	})
}

func (t Targets) json() any {
	switch {
	case t.Regexp != "":
		return t.Regexp
	case t.Names == nil:
		return nil
	}
	return slices.Sorted(slices.Values(t.Names))
}

// ordered marshals as an object whose members keep their order.
type ordered []Pattern

// MarshalJSON writes the members in order.
func (o ordered) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, p := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, err := json.Marshal(p.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.Value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, key...), ':'), value...)
	}
	return append(b, '}'), nil
}
