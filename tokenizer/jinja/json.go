package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// An Object is a JSON object whose keys keep their order, as a Python dict does:
// a template prints a tool's schema in the order it was written in.
type Object []Member

// A Member is one key of an Object and its value.
type Member struct {
	Key   string
	Value any
}

// Get returns the value of key.
func (o Object) Get(key string) (any, bool) {
	for _, m := range o {
		if m.Key == key {
			return m.Value, true
		}
	}
	return nil, false
}

// Set replaces the value of key where it stands, or appends it.
func (o *Object) Set(key string, v any) {
	for i := range *o {
		if (*o)[i].Key == key {
			(*o)[i].Value = v
			return
		}
	}
	*o = append(*o, Member{key, v})
}

func (o Object) without(key string) Object {
	return slices.DeleteFunc(slices.Clone(o), func(m Member) bool { return m.Key == key })
}

// maxDepth is how deep JSON may be nested, so that hostile input cannot exhaust the stack.
const maxDepth = 200

// ParseValue reads JSON the way Python does: objects keep the order of their
// keys (an Object), integers stay apart from floats (int or *big.Int, float64).
func ParseValue(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("there is more behind the JSON value")
	}
	return v, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	switch t := t.(type) {
	case json.Number:
		return readNumber(string(t))
	case json.Delim:
		if t == '[' {
			return readList(d, depth)
		}
		return readObject(d, depth)
	}
	return t, nil // string, bool, nil
}

func readList(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		v, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.Token()
	return list, err
}

func readObject(d *json.Decoder, depth int) (any, error) {
	o, at := Object{}, map[string]int{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		v, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		name := key.(string)
		if i, twice := at[name]; twice { // the last one wins, in the place of the first
			o[i].Value = v
			continue
		}
		at[name] = len(o)
		o = append(o, Member{name, v})
	}
	_, err := d.Token()
	return o, err
}

// maxDigits is the longest integer Python converts from a string.
const maxDigits = 4300

func readNumber(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, err
		}
		return f, nil
	}
	if i, err := strconv.Atoi(s); err == nil {
		return i, nil
	}
	if len(s) > maxDigits {
		return nil, fmt.Errorf("an integer of %d digits", len(s))
	}
	i, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	return i, nil
}

// UnmarshalJSON reads a JSON object and keeps its order.
func (o *Object) UnmarshalJSON(data []byte) error {
	v, err := ParseValue(data)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		*o = nil
	case Object:
		*o = v
	default:
		return fmt.Errorf("%.40s is not a JSON object", data)
	}
	return nil
}

// MarshalJSON writes the object in its order.
func (o Object) MarshalJSON() ([]byte, error) {
	text, err := dump(o, dumpStyle{item: ",", key: ":"})
	return []byte(text), err
}

// A dumpStyle is what Python's json.dumps is asked for.
type dumpStyle struct {
	item, key string // separators
	indent    string // of one level
	lines     bool   // indent, that is one value a line
	sort      bool
	ascii     bool
}

// dump writes a value as Python's json.dumps does.
func dump(v any, style dumpStyle) (string, error) {
	w := dumper{style: style}
	err := w.value(v, 0)
	return w.out.String(), err
}

type dumper struct {
	out   strings.Builder
	style dumpStyle
}

func (w *dumper) value(v any, depth int) error {
	if depth > maxDepth || w.out.Len() > maxOutput {
		return fmt.Errorf("a value nested deeper than %d or longer than %d bytes", maxDepth, maxOutput)
	}
	switch v := v.(type) {
	case nil:
		w.out.WriteString("null")
	case bool:
		w.out.WriteString(strconv.FormatBool(v))
	case int:
		w.out.WriteString(strconv.Itoa(v))
	case *big.Int:
		w.out.WriteString(v.String())
	case float64:
		w.out.WriteString(jsonFloat(v))
	case string:
		w.str(v)
	case Tuple:
		return w.value([]any(v), depth)
	case []any:
		return w.list('[', ']', len(v), depth, func(i int) error { return w.value(v[i], depth+1) })
	case Object:
		if w.style.sort {
			v = slices.Clone(v)
			slices.SortStableFunc(v, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
		}
		return w.list('{', '}', len(v), depth, func(i int) error {
			w.str(v[i].Key)
			w.out.WriteString(w.style.key)
			return w.value(v[i].Value, depth+1)
		})
	default:
		return fmt.Errorf("object of type %s is not JSON serializable", kindOf(v))
	}
	return nil
}

func (w *dumper) list(open, end byte, n, depth int, item func(int) error) error {
	w.out.WriteByte(open)
	for i := range n {
		if i > 0 {
			w.out.WriteString(w.style.item)
		}
		w.line(depth + 1)
		if err := item(i); err != nil {
			return err
		}
	}
	if n > 0 {
		w.line(depth)
	}
	w.out.WriteByte(end)
	return nil
}

func (w *dumper) line(depth int) {
	if w.style.lines {
		w.out.WriteByte('\n')
		w.out.WriteString(strings.Repeat(w.style.indent, depth))
	}
}

var jsonEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}

func (w *dumper) str(s string) {
	w.out.WriteByte('"')
	for _, r := range s {
		switch esc, ok := jsonEscapes[r]; {
		case ok:
			w.out.WriteString(esc)
		case r < ' ' || w.style.ascii && r > '~' && r < 0x10000:
			fmt.Fprintf(&w.out, `\u%04x`, r)
		case w.style.ascii && r >= 0x10000:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&w.out, `\u%04x\u%04x`, hi, lo)
		default:
			w.out.WriteRune(r)
		}
	}
	w.out.WriteByte('"')
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return pythonFloat(f)
}

// pythonFloat is Python's repr of a float: the shortest digits that read back
// the same, with an exponent below 1e-4 and from 1e16 on.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
