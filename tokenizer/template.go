package tokenizer

import (
	"fmt"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// A Template is a Jinja chat template, run as transformers runs it.
type Template struct{ t *exec.Template }

// ParseTemplate reads a template.
func ParseTemplate(src string) (t *Template, err error) {
	defer recovered(&err)
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	l, err := loaders.NewMemoryLoader(map[string]string{"/chat": src})
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	k, err := exec.NewTemplate("/chat", c, l, environment())
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{k}, nil
}

// Render runs the template. Values are those ParseValue makes, and what it
// could have made: strings, bools, ints, floats, []any, Object, nil.
func (t *Template) Render(vars map[string]any) (text string, err error) {
	defer recovered(&err)
	given := map[string]any{}
	for name, v := range vars {
		given[name] = toGonja(v)
	}
	text, err = t.t.ExecuteToString(exec.NewContext(given))
	if err != nil {
		return "", fmt.Errorf("chat template: %w", err)
	}
	return text, nil
}

// recovered turns a panic in gonja into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("chat template: %v", r)
	}
}

func environment() *exec.Environment {
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	_ = filters.Replace("tojson", tojson)
	return &exec.Environment{
		Context: exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables).Update(exec.NewContext(map[string]any{
			"raise_exception": func(message string) (string, error) { return "", fmt.Errorf("%s", message) },
			"strftime_now":    func(format string) string { return time.Now().Format(format) },
		})),
		Filters:           filters,
		Tests:             builtins.Tests,
		ControlStructures: builtins.ControlStructures,
		Methods:           builtins.Methods,
	}
}

func toGonja(v any) any {
	switch v := v.(type) {
	case Object:
		d := exec.NewDict()
		for _, m := range v {
			d.Pairs = append(d.Pairs, &exec.Pair{Key: exec.AsValue(m.Key), Value: exec.AsValue(toGonja(m.Value))})
		}
		return d
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = toGonja(v[i])
		}
		return list
	}
	return v
}

func fromGonja(v *exec.Value) any {
	switch {
	case v.IsNil():
		return nil
	case v.IsDict():
		o := Object{}
		v.Iterate(func(_, _ int, k, x *exec.Value) bool {
			o.set(k.String(), fromGonja(x))
			return true
		}, func() {})
		return o
	case v.IsList():
		list := []any{}
		for i := range v.Len() {
			list = append(list, fromGonja(v.Index(i)))
		}
		return list
	}
	return v.Interface()
}

func tojson(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	s, err := dump(fromGonja(in), dumpStyle{item: ", ", key: ": "})
	if err != nil {
		return exec.AsValue(err)
	}
	return exec.AsValue(s)
}
