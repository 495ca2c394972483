package grammar

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// An object is a JSON object whose keys keep their order.
type object struct {
	keys []string
	at   map[string]any
}

// deepest is how deep a schema may be nested.
const deepest = 64

func parseSchema(b []byte) (any, error) {
	d := stdjson.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the schema")
	}
	return v, nil
}

func parseValue(d *stdjson.Decoder, depth int) (any, error) {
	if depth > deepest {
		return nil, fmt.Errorf("it is nested more than %d deep", deepest)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case stdjson.Delim('{'):
		o := &object{at: map[string]any{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			name := k.(string)
			if _, twice := o.at[name]; twice {
				return nil, fmt.Errorf("%q stands twice", name)
			}
			o.keys, o.at[name] = append(o.keys, name), v
		}
		_, err = d.Token()
		return o, err
	case stdjson.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

func names(v any, path string) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	var all []string
	for _, n := range list {
		s, is := n.(string)
		ok = ok && is
		all = append(all, s)
	}
	if !ok {
		return nil, fmt.Errorf("%s: want a list of names", path)
	}
	return all, nil
}

// count is a keyword that counts, or otherwise where it is not there.
func count(o *object, key string, otherwise int, path string) (int, error) {
	v, ok := o.at[key]
	if !ok {
		return otherwise, nil
	}
	s, _ := v.(stdjson.Number)
	n, err := strconv.Atoi(s.String())
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s/%s: want a whole number from 0 to %d", path, key, most)
	}
	return n, nil
}

// literalJSON is one value, written without spaces.
func literalJSON(v any) part { return text(writeJSON(v)) }

func writeJSON(v any) string {
	switch v := v.(type) {
	case *object:
		var all []string
		for _, k := range v.keys {
			all = append(all, writeJSON(k)+":"+writeJSON(v.at[k]))
		}
		return "{" + strings.Join(all, ",") + "}"
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, writeJSON(e))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	var b strings.Builder
	e := stdjson.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "null" // a value that was read from JSON can be written
	}
	return strings.TrimSuffix(b.String(), "\n")
}
