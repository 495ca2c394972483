package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"
)

// A member is a name and its value in a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members returns the members of a JSON object in file order. A name that occurs twice, text after
// the object and invalid UTF-8 are errors: two readers could disagree about such a file.
func members(b []byte) ([]member, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if tok != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var out []member
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		m := member{name: tok.(string)}
		if seen[m.name] {
			return nil, fmt.Errorf("%q occurs twice", m.name)
		}
		seen[m.name] = true
		if err := dec.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("%q: not JSON: %w", m.name, err)
		}
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("text follows the JSON object")
	}
	return out, nil
}

// An object gives typed access to the members of a JSON object. A member that is null counts as
// absent. The first value of a wrong type is kept in err and named there.
type object struct {
	list []member
	at   map[string]json.RawMessage
	err  error
}

func parseObject(b []byte) (*object, error) {
	list, err := members(b)
	if err != nil {
		return nil, err
	}
	o := &object{list: list, at: make(map[string]json.RawMessage, len(list))}
	for _, m := range list {
		if string(m.value) != "null" {
			o.at[m.name] = m.value
		}
	}
	return o, nil
}

func (o *object) has(name string) bool { _, ok := o.at[name]; return ok }

func (o *object) fail(name, want string) {
	if o.err == nil {
		o.err = fmt.Errorf("%s: want %s, have %s", name, want, short(o.at[name]))
	}
}

// decode sets *v to the member, or leaves it when there is none.
func (o *object) decode(name, want string, v any) {
	if o.has(name) && json.Unmarshal(o.at[name], v) != nil {
		o.fail(name, want)
	}
}

func (o *object) integer(name string, def int) int {
	o.decode(name, "an integer", &def)
	return def
}

func (o *object) number(name string, def float64) float64 {
	o.decode(name, "a number", &def)
	if math.IsInf(def, 0) || math.IsNaN(def) {
		o.fail(name, "a finite number")
	}
	return def
}

func (o *object) boolean(name string, def bool) bool {
	o.decode(name, "true or false", &def)
	return def
}

func (o *object) text(name, def string) string {
	o.decode(name, "a string", &def)
	return def
}

func (o *object) texts(name string) (v []string) {
	o.decode(name, "a list of strings", &v)
	return v
}

// ids is an integer or a list of them, all at least 0.
func (o *object) ids(name string) []int {
	if !o.has(name) {
		return nil
	}
	var one int
	v := []int{}
	if json.Unmarshal(o.at[name], &one) == nil {
		v = append(v, one)
	} else if json.Unmarshal(o.at[name], &v) != nil {
		o.fail(name, "a token id or a list of them")
	}
	for _, id := range v {
		if id < 0 || id > math.MaxInt32 {
			o.fail(name, "token ids of at least 0")
		}
	}
	return v
}

// id is a token id, or -1 where the file gives none.
func (o *object) id(name string) int {
	id := o.integer(name, -1)
	if o.has(name) && (id < 0 || id > math.MaxInt32) {
		o.fail(name, "a token id")
	}
	return id
}

// short is b for an error message, cut where it is long.
func short(b []byte) string {
	const most = 60
	if len(b) > most {
		return fmt.Sprintf("%.*s…", most, b)
	}
	return string(b)
}
