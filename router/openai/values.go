package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

func str(raw json.RawMessage, to *string) error {
	if json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("want a string, got %.40s", raw)
	}
	return nil
}

func boolean(raw json.RawMessage, to *bool) error {
	if json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("want true or false, got %.40s", raw)
	}
	return nil
}

// unless reads a boolean that is true by default.
func unless(raw json.RawMessage, to *bool) error {
	if err := boolean(raw, to); err != nil {
		return err
	}
	*to = !*to
	return nil
}

// name reads a string that is not empty.
func name(raw json.RawMessage, to *string) error {
	if err := str(raw, to); err != nil {
		return err
	}
	if *to == "" {
		return errors.New("it is empty")
	}
	return nil
}

func integer[T int | int64](raw json.RawMessage, to *T, least, most int64) error {
	if json.Unmarshal(raw, to) != nil || int64(*to) < least || int64(*to) > most {
		return fmt.Errorf("want a whole number from %d to %d, got %.40s", least, most, raw)
	}
	return nil
}

// counted reads a whole number of which none is something else than 0.
func counted(raw json.RawMessage, to **int, least, most int64) error {
	var n int
	if err := integer(raw, &n, least, most); err != nil {
		return err
	}
	*to = &n
	return nil
}

func number(raw json.RawMessage, to **float64, least, most float64) error {
	var x float64
	if json.Unmarshal(raw, &x) != nil || x < least || x > most {
		return fmt.Errorf("want a number from %g to %g, got %.40s", least, most, raw)
	}
	*to = &x
	return nil
}

// texts reads a string, or an array of them, of which none is empty.
func texts(raw json.RawMessage) ([]string, error) {
	var list []string
	if len(raw) > 0 && raw[0] == '"' {
		list = make([]string, 1)
		if err := str(raw, &list[0]); err != nil {
			return nil, err
		}
	} else {
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			return nil, fmt.Errorf("want a string or an array of strings, got %.40s", raw)
		}
		for i, item := range items {
			var s string
			if err := str(item, &s); err != nil {
				return nil, fmt.Errorf("item %d: %w", i, err)
			}
			list = append(list, s)
		}
	}
	if len(list) == 0 || len(list) > mostStrings {
		return nil, fmt.Errorf("want 1 to %d strings, got %d", mostStrings, len(list))
	}
	for _, s := range list {
		if s == "" {
			return nil, errors.New("a string is empty")
		}
	}
	return list, nil
}

// only accepts the values that change nothing.
func only(neutral ...string) setter {
	return func(_ *Call, raw json.RawMessage) error {
		var got any
		if json.Unmarshal(raw, &got) == nil {
			for _, n := range neutral {
				var want any
				if err := json.Unmarshal([]byte(n), &want); err != nil {
					panic(err)
				}
				if reflect.DeepEqual(got, want) {
					return nil
				}
			}
		}
		return fmt.Errorf("only %s is supported, got %.40s", strings.Join(neutral, " or "), raw)
	}
}

// someTexts reads what texts does, or an empty array.
func someTexts(raw json.RawMessage) ([]string, error) {
	var none []json.RawMessage
	if json.Unmarshal(raw, &none) == nil && len(none) == 0 {
		return nil, nil
	}
	return texts(raw)
}

// ids reads an array of token ids.
func ids(raw json.RawMessage, most int) ([]int32, error) {
	var list []*int32
	if json.Unmarshal(raw, &list) != nil {
		return nil, fmt.Errorf("want an array of token ids, got %.40s", raw)
	}
	if len(list) > most {
		return nil, fmt.Errorf("want at most %d token ids, got %d", most, len(list))
	}
	out := make([]int32, len(list))
	for i, id := range list {
		if id == nil || *id < 0 {
			return nil, fmt.Errorf("item %d is not a token id", i)
		}
		out[i] = *id
	}
	return out, nil
}

// members are the fields of a JSON object that is all of the text; none comes twice.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("want a JSON object: %w", err)
		}
		name := t.(string) // a key of an object is one
		if name == "" {
			return nil, errors.New("a name in it is empty")
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("want a JSON object: %q: %w", name, err)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		m[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("want a JSON object: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more after the JSON object")
	}
	return m, nil
}

// unicode reports the first place of JSON that is no text: bytes that are not UTF-8, and an escape that is half of a
// surrogate pair. Decoding would put U+FFFD in the place of either, and so another text than was sent.
func unicode(text []byte) error {
	for i := 0; i < len(text); {
		if text[i] != '\\' {
			r, n := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && n == 1 {
				return fmt.Errorf("byte %d is not UTF-8", i)
			}
			i += n
			continue
		}
		first := escape(text[i:])
		switch {
		case !utf16.IsSurrogate(first):
			i += 2
		case utf16.DecodeRune(first, escape(text[i+6:])) == utf8.RuneError:
			return fmt.Errorf("the escape at byte %d is half of a surrogate pair", i)
		default:
			i += 12
		}
	}
	return nil
}

// escape is what text begins with where that is \uXXXX, else 0.
func escape(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	r, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(r)
}

// object reads an object whose fields are known.
func object(raw json.RawMessage, known map[string]func(json.RawMessage) error, required ...string) error {
	m, err := members(raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		set, ok := known[name]
		switch {
		case string(m[name]) == "null":
			delete(m, name)
		case !ok:
			return fmt.Errorf("%s is not supported", name)
		default:
			if err := set(m[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, name := range required {
		if _, ok := m[name]; !ok {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}
