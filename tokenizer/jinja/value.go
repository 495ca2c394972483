package jinja

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values are Python's in Go: nil, bool, int, *big.Int, float64, string, []any
// (a list), Object (a dict), and these.
type (
	// A Tuple is a list that prints in parentheses.
	Tuple []any
	// undefined is a name or attribute that is not there, and why.
	undefined struct{ why string }
	// A view is what dict.items() and its like give: it has a length, no index.
	view []any
	// A generator is what lazy filters give: neither length nor index.
	generator []any
	// A span is range(start, stop, step).
	span struct{ start, step, n int }
	// A function is anything that can be called.
	function func(f *frame, a args) any
	// A namespace is an object whose attributes can be set.
	namespace struct{ vars Object }
)

func missing(kind, attr string) undefined {
	return undefined{fmt.Sprintf("'%s object' has no attribute '%s'", kind, attr)}
}

// normal turns a Go value into one of those above.
func normal(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case nil, bool, int, *big.Int, float64, string:
		return v, nil
	case Object:
		o := make(Object, len(v))
		for i, m := range v {
			x, err := normal(m.Value, depth+1)
			if err != nil {
				return nil, err
			}
			o[i] = Member{m.Key, x}
		}
		return o, nil
	case json.RawMessage:
		return ParseValue(v)
	case json.Number:
		return readNumber(string(v))
	}
	return reflected(reflect.ValueOf(v), depth)
}

func reflected(v reflect.Value, depth int) (any, error) {
	switch {
	case v.CanInt():
		return int(v.Int()), nil
	case v.CanUint():
		return normal(json.Number(strconv.FormatUint(v.Uint(), 10)), depth)
	case v.CanFloat():
		return v.Float(), nil
	case v.Kind() == reflect.String:
		return v.String(), nil
	case v.Kind() == reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			x, err := normal(v.Index(i).Interface(), depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = x
		}
		return list, nil
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		byName := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			byName[it.Key().String()] = it.Value().Interface()
		}
		o := Object{}
		for _, key := range slices.Sorted(maps.Keys(byName)) {
			x, err := normal(byName[key], depth+1)
			if err != nil {
				return nil, err
			}
			o = append(o, Member{key, x})
		}
		return o, nil
	}
	return nil, fmt.Errorf("a value of type %s", v.Type())
}

// kindOf is Python's name of a value's type.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []any:
		return "list"
	case Tuple:
		return "tuple"
	case Object:
		return "dict"
	case undefined:
		return "Undefined"
	case view:
		return "dict view"
	case generator:
		return "generator"
	case span:
		return "range"
	case *namespace:
		return "Namespace"
	case *loop:
		return "LoopContext"
	}
	return "function"
}

// defined stops where a value is needed and there is none.
func defined(v any) any {
	if u, ok := v.(undefined); ok {
		fail("%s", u.why)
	}
	return v
}

// truth is Python's bool(v).
func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case *big.Int:
		return v.Sign() != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case Tuple:
		return len(v) > 0
	case Object:
		return len(v) > 0
	case view:
		return len(v) > 0
	case span:
		return v.n > 0
	}
	return true
}

// text is Python's str(v).
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case undefined:
		return ""
	}
	var out strings.Builder
	repr(&out, v, 0)
	return out.String()
}

// repr writes Python's repr(v).
func repr(out *strings.Builder, v any, depth int) {
	if depth > maxDepth || out.Len() > maxOutput {
		fail("a value too large to print")
	}
	list := func(open, end string, items []any) {
		out.WriteString(open)
		for i, x := range items {
			if i > 0 {
				out.WriteString(", ")
			}
			repr(out, x, depth+1)
		}
		out.WriteString(end)
	}
	switch v := v.(type) {
	case nil:
		out.WriteString("None")
	case bool:
		out.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case int:
		out.WriteString(strconv.Itoa(v))
	case *big.Int:
		out.WriteString(v.String())
	case float64:
		out.WriteString(pythonFloat(v))
	case string:
		quote(out, v)
	case []any:
		list("[", "]", v)
	case Tuple:
		end := ")"
		if len(v) == 1 {
			end = ",)"
		}
		list("(", end, v)
	case view:
		list("dict_view([", "])", v)
	case Object:
		out.WriteString("{")
		for i, m := range v {
			if i > 0 {
				out.WriteString(", ")
			}
			quote(out, m.Key)
			out.WriteString(": ")
			repr(out, m.Value, depth+1)
		}
		out.WriteString("}")
	case undefined:
		out.WriteString("Undefined")
	case span:
		fmt.Fprintf(out, "range(%d, %d", v.start, v.start+v.n*v.step)
		if v.step != 1 {
			fmt.Fprintf(out, ", %d", v.step)
		}
		out.WriteString(")")
	default:
		fail("a %s cannot be printed", kindOf(v))
	}
}

// quote writes a string as Python's repr does.
func quote(out *strings.Builder, s string) {
	q := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	out.WriteRune(q)
	for _, r := range s {
		switch {
		case r == q || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(out, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(out, `\u%04x`, r)
		default:
			fmt.Fprintf(out, `\U%08x`, r)
		}
	}
	out.WriteRune(q)
}

// iterate returns what a for goes over.
func iterate(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case Tuple:
		return v
	case view:
		return v
	case generator:
		return v
	case undefined:
		return nil
	case Object:
		keys := make([]any, len(v))
		for i, m := range v {
			keys[i] = m.Key
		}
		return keys
	case string:
		if len(v) > maxItems {
			fail("going over a string of %d bytes", len(v))
		}
		var runes []any
		for _, r := range v {
			runes = append(runes, string(r))
		}
		return runes
	case span:
		items := make([]any, v.n)
		for i := range items {
			items[i] = v.start + i*v.step
		}
		return items
	}
	fail("'%s' object is not iterable", kindOf(v))
	return nil
}

// length is Python's len(v).
func length(v any) int {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v)
	case []any, Tuple, view, Object, span, undefined:
		return size(v)
	}
	fail("object of type '%s' has no len()", kindOf(v))
	return 0
}

// size is how much work going over v is.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []any:
		return len(v)
	case Tuple:
		return len(v)
	case view:
		return len(v)
	case generator:
		return len(v)
	case Object:
		return len(v)
	case span:
		return v.n
	}
	return 0
}

// attribute is v.name: an attribute, else an item.
func attribute(v any, name string) any {
	switch v := v.(type) {
	case undefined:
		defined(v)
	case *namespace:
		if x, ok := v.vars.Get(name); ok {
			return x
		}
	case *loop:
		return v.attr(name)
	case Object:
		if m := dictMethod(v, name); m != nil {
			return m
		}
		if x, ok := v.Get(name); ok {
			return x
		}
	case *cycler:
		return v.attr(name)
	default:
		if m := method(v, name); m != nil {
			return m
		}
	}
	return missing(kindOf(v), name)
}

// subscript is v[key]: an item, else an attribute.
func subscript(v, key any) any {
	defined(v)
	if name, ok := key.(string); ok {
		if o, ok := v.(Object); ok {
			if x, ok := o.Get(name); ok {
				return x
			}
		}
		return attribute(v, name)
	}
	i, ok := asInt(key)
	if !ok {
		return missing(kindOf(v), text(key))
	}
	n := -1
	switch v := v.(type) {
	case string:
		runes := []rune(v)
		if n = len(runes); within(&i, n) {
			return string(runes[i])
		}
	case []any:
		if n = len(v); within(&i, n) {
			return v[i]
		}
	case Tuple:
		if n = len(v); within(&i, n) {
			return v[i]
		}
	case span:
		if n = v.n; within(&i, n) {
			return v.start + i*v.step
		}
	}
	return missing(kindOf(v), text(key))
}

// within makes a negative index count from the end and checks it.
func within(i *int, n int) bool {
	if *i < 0 {
		*i += n
	}
	return *i >= 0 && *i < n
}

// cut is v[a:b:c].
func cut(v any, at [3]any) any {
	var bounds [3]*int
	for i, b := range at {
		if b == nil {
			continue
		}
		n, ok := asInt(b)
		if !ok {
			return missing(kindOf(v), "slice")
		}
		bounds[i] = &n
	}
	switch v := v.(type) {
	case string:
		return string(slice([]rune(v), bounds))
	case []any:
		return slice(v, bounds)
	case Tuple:
		return Tuple(slice(v, bounds))
	case span:
		return slice(iterate(v), bounds)
	}
	return missing(kindOf(v), "slice")
}

func slice[T any](items []T, at [3]*int) []T {
	n, step := len(items), 1
	if at[2] != nil {
		step = *at[2]
	}
	if step == 0 {
		fail("slice step cannot be zero")
	}
	low, high := 0, n // where an index may come to lie
	start, stop := 0, n
	if step < 0 {
		low, high = -1, n-1
		start, stop = n-1, -1
	}
	for i, p := range []*int{&start, &stop} {
		if at[i] != nil {
			if *p = *at[i]; *p < 0 {
				*p += n
			}
			*p = min(max(*p, low), high)
		}
	}
	part := []T{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		part = append(part, items[i])
		if step > n || -step > n {
			break // the next one is outside, and adding might overflow
		}
	}
	return part
}

// invoke calls a value.
func invoke(f *frame, v any, a args) any {
	switch v := v.(type) {
	case function:
		var result any
		f.run.nested(func() { result = v(f, a) })
		return result
	case *loop:
		if v.again == nil {
			fail("the loop must have the 'recursive' marker to be called recursively")
		}
		var out string
		f.run.nested(func() { out = v.again(a.at(0, "iterable", nil)) })
		return out
	}
	defined(v)
	fail("'%s' object is not callable", kindOf(v))
	return nil
}
