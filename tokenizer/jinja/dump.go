package jinja

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

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
