package grammar

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// JSONSchema is JSON that is valid by a schema (2020-12, the part of it that a form can hold), with the
// properties of an object in the schema's order and none that the schema does not name. Not every valid text is
// allowed, but every allowed text is valid. A keyword that is not supported is an error that names it; annotations
// (title, description, default, examples, format …) are read over.
func JSONSchema(schema []byte) (*Grammar, error) {
	if len(schema) > longestSchema {
		return nil, fmt.Errorf("JSON schema: it has %d bytes, at most %d are taken", len(schema), longestSchema)
	}
	root, err := parseSchema(schema)
	if err != nil {
		return nil, fmt.Errorf("JSON schema: %w", err)
	}
	c := &schemas{root: root, values: newValues(), rules: map[string]*rule{}}
	p, err := c.part(root, "#")
	if err != nil {
		return nil, fmt.Errorf("JSON schema: %w", err)
	}
	g, err := compile(p)
	if err != nil {
		return nil, fmt.Errorf("JSON schema: %w", err)
	}
	return g, nil
}

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

// schemas compiles a schema and what it refers to.
type schemas struct {
	root   any
	values *values
	rules  map[string]*rule // by reference
}

// annotations do not change what is valid.
var annotations = []string{"$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "default", "examples",
	"deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType"}

// ofType lists the keywords that each type understands.
var ofType = map[string][]string{
	"object": {"properties", "required", "additionalProperties"},
	"array":  {"items", "prefixItems", "minItems", "maxItems"},
	"string": {"minLength", "maxLength", "pattern"},
	"number": nil, "integer": nil, "boolean": nil, "null": nil,
}

// part compiles a schema; path is where it stands, for errors.
func (c *schemas) part(schema any, path string) (part, error) {
	o, ok := schema.(*object)
	switch {
	case schema == true:
		return c.values.any.part(), nil
	case schema == false:
		return nil, fmt.Errorf("%s: false allows nothing", path)
	case !ok:
		return nil, fmt.Errorf("%s: want an object, true or false", path)
	}
	if err := known(o, path); err != nil {
		return nil, err
	}
	for _, whole := range []struct {
		key string
		f   func(any, string) (part, error)
	}{{"$ref", c.reference}, {"const", c.constant}, {"enum", c.enumeration}, {"anyOf", c.anyOf}, {"oneOf", c.oneOf}, {"allOf", c.allOf}} {
		v, ok := o.at[whole.key]
		if !ok {
			continue
		}
		for _, k := range o.keys {
			if k != whole.key && k != "type" && !slices.Contains(annotations, k) {
				return nil, fmt.Errorf("%s: %s beside %s is not supported", path, k, whole.key)
			}
		}
		return whole.f(v, path+"/"+whole.key)
	}
	return c.byType(o, path)
}

// known refuses a keyword that would not be honoured.
func known(o *object, path string) error {
	for _, k := range o.keys {
		ok := slices.Contains(annotations, k) || slices.Contains([]string{"type", "$ref", "const", "enum", "anyOf", "oneOf", "allOf"}, k)
		for _, list := range ofType {
			ok = ok || slices.Contains(list, k)
		}
		if !ok {
			return fmt.Errorf("%s: the keyword %s is not supported", path, k)
		}
	}
	return nil
}

func (c *schemas) byType(o *object, path string) (part, error) {
	types, err := typesOf(o, path)
	if err != nil {
		return nil, err
	}
	if types == nil {
		return c.values.any.part(), nil
	}
	var all []part
	for _, t := range types {
		var p part
		switch t {
		case "object":
			p, err = c.object(o, path)
		case "array":
			p, err = c.array(o, path)
		case "string":
			p, err = c.str(o, path)
		case "number":
			p = number()
		case "integer":
			p = integer()
		case "boolean":
			p = boolean()
		case "null":
			p = text("null")
		default:
			err = fmt.Errorf("%s/type: %q is none of JSON's types", path, t)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return either(all...), nil
}

// typesOf are the types a schema names, or, where it names none, the one its keywords are for; nil is any.
func typesOf(o *object, path string) ([]string, error) {
	switch t := o.at["type"].(type) {
	case string:
		return []string{t}, nil
	case []any:
		var all []string
		for _, v := range t {
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%s/type: want names of types", path)
			}
			all = append(all, s)
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("%s/type: the list is empty, so nothing is allowed", path)
		}
		return all, nil
	case nil:
	default:
		return nil, fmt.Errorf("%s/type: want a name or a list of names", path)
	}
	for _, t := range []string{"object", "array", "string"} {
		for _, k := range ofType[t] {
			if _, ok := o.at[k]; ok {
				return []string{t}, nil
			}
		}
	}
	return nil, nil
}

func (c *schemas) object(o *object, path string) (part, error) {
	properties, _ := o.at["properties"].(*object)
	if _, ok := o.at["properties"]; ok && properties == nil {
		return nil, fmt.Errorf("%s/properties: want an object", path)
	}
	required, err := names(o.at["required"], path+"/required")
	if err != nil {
		return nil, err
	}
	if properties == nil || len(properties.keys) == 0 {
		return c.open(o, required, path)
	}
	type member struct {
		p      part
		needed bool
	}
	var members []member
	for _, k := range properties.keys {
		v, err := c.part(properties.at[k], path+"/properties/"+k)
		if err != nil {
			return nil, err
		}
		members = append(members, member{sequence(literalJSON(k), text(":"), space(), v), slices.Contains(required, k)})
	}
	for _, k := range required {
		if _, ok := properties.at[k]; !ok {
			return nil, fmt.Errorf("%s/required: %q is not among the properties", path, k)
		}
	}
	return func(b *builder, next int32) int32 {
		// What may follow after the members from i on, with nothing written so far and with something: two nodes a
		// member, however many may be left out.
		first := text("}")(b, next)
		later := first
		for i := len(members) - 1; i >= 0; i-- {
			m := members[i]
			f, l := m.p(b, later), sequence(text(","), space(), m.p)(b, later)
			if !m.needed {
				f = b.node(node{kind: fork, next: f, other: first})
				l = b.node(node{kind: fork, next: l, other: later})
			}
			first, later = f, l
		}
		return text("{")(b, first)
	}, nil
}

// open is an object whose properties have no names in the schema.
func (c *schemas) open(o *object, required []string, path string) (part, error) {
	if len(required) > 0 {
		return nil, fmt.Errorf("%s/required: %q is not among the properties", path, required[0])
	}
	v, given := o.at["additionalProperties"]
	switch {
	case v == false:
		return text("{}"), nil
	case !given || v == true:
		return c.values.object.part(), nil
	}
	p, err := c.part(v, path+"/additionalProperties")
	if err != nil {
		return nil, err
	}
	str := quoted(repeat(character(), 0, -1))
	return sequence(text("{"), list(sequence(str, text(":"), space(), p), 0, -1), text("}")), nil
}

func (c *schemas) array(o *object, path string) (part, error) {
	least, err := count(o, "minItems", 0, path)
	if err != nil {
		return nil, err
	}
	most, err := count(o, "maxItems", -1, path)
	if err != nil {
		return nil, err
	}
	item := c.values.any.part()
	if v, ok := o.at["items"]; ok && v != false {
		if item, err = c.part(v, path+"/items"); err != nil {
			return nil, err
		}
	}
	prefix, ok := o.at["prefixItems"].([]any)
	if _, given := o.at["prefixItems"]; given && !ok {
		return nil, fmt.Errorf("%s/prefixItems: want a list", path)
	}
	if o.at["items"] == false && (most < 0 || most > len(prefix)) {
		most = len(prefix)
	}
	if most >= 0 && least > most {
		return nil, fmt.Errorf("%s: at least %d and at most %d items is impossible", path, least, most)
	}
	if len(prefix) == 0 {
		return sequence(text("["), list(item, least, most), text("]")), nil
	}
	return c.tuple(prefix, item, least, most, path)
}

// tuple is an array whose first items have schemas of their own; all of those are written.
func (c *schemas) tuple(prefix []any, item part, least, most int, path string) (part, error) {
	if most >= 0 && most < len(prefix) {
		prefix = prefix[:most]
	}
	all := []part{text("[")}
	for i, s := range prefix {
		p, err := c.part(s, fmt.Sprintf("%s/prefixItems/%d", path, i))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			all = append(all, text(","), space())
		}
		all = append(all, p)
	}
	rest := -1
	if most >= 0 {
		rest = most - len(prefix)
	}
	more := repeat(sequence(text(","), space(), item), max(0, least-len(prefix)), rest)
	return sequence(append(all, more, text("]"))...), nil
}

func (c *schemas) str(o *object, path string) (part, error) {
	least, err := count(o, "minLength", 0, path)
	if err != nil {
		return nil, err
	}
	most, err := count(o, "maxLength", -1, path)
	if err != nil {
		return nil, err
	}
	pattern, has := o.at["pattern"]
	switch {
	case most >= 0 && least > most:
		return nil, fmt.Errorf("%s: at least %d and at most %d characters is impossible", path, least, most)
	case !has:
		return quoted(repeat(character(), least, most)), nil
	case least > 0 || most >= 0:
		return nil, fmt.Errorf("%s: minLength or maxLength beside pattern is not supported: say it in the pattern", path)
	}
	s, ok := pattern.(string)
	if !ok {
		return nil, fmt.Errorf("%s/pattern: want a string", path)
	}
	p, err := expression(s, escapedRune, true)
	if err != nil {
		return nil, fmt.Errorf("%s/pattern: %w", path, err)
	}
	return quoted(p), nil
}

// reference compiles what "#", "#/$defs/name" or "#/definitions/name" stands for, once.
func (c *schemas) reference(v any, path string) (part, error) {
	ref, ok := v.(string)
	if !ok || ref != "#" && !strings.HasPrefix(ref, "#/") {
		return nil, fmt.Errorf("%s: want a reference within the schema, such as #/$defs/name", path)
	}
	if r, ok := c.rules[ref]; ok {
		return r.part(), nil
	}
	target := c.root
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#"), "/")[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		o, ok := target.(*object)
		if ok {
			target, ok = o.at[step]
		}
		if !ok {
			return nil, fmt.Errorf("%s: there is nothing at %s", path, ref)
		}
	}
	r := &rule{}
	c.rules[ref] = r
	body, err := c.part(target, ref)
	r.body = body
	return r.part(), err
}

func (c *schemas) constant(v any, _ string) (part, error) { return literalJSON(v), nil }

func (c *schemas) enumeration(v any, path string) (part, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("%s: want a list of at least one value", path)
	}
	var all []spelling
	n := 0
	for _, v := range list {
		all = append(all, spell(writeJSON(v)))
		if n += len(all[len(all)-1]); n > most {
			return nil, fmt.Errorf("%s: the form is too large: its values have more than %d bytes", path, most)
		}
	}
	return spelled(all), nil
}

func (c *schemas) anyOf(v any, path string) (part, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("%s: want a list of at least one schema", path)
	}
	var all []part
	for i, s := range list {
		p, err := c.part(s, fmt.Sprintf("%s/%d", path, i))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return either(all...), nil
}

// oneOf is anyOf where no text can be valid by two of the schemas: they are of different types, or each is a
// constant of its own.
func (c *schemas) oneOf(v any, path string) (part, error) {
	list, _ := v.([]any)
	seen, constants := map[string]bool{}, 0
	for i, s := range list {
		o, ok := s.(*object)
		if !ok {
			return nil, fmt.Errorf("%s/%d: want an object", path, i)
		}
		key := "type " + fmt.Sprint(o.at["type"])
		if k, ok := o.at["const"]; ok {
			key = "const " + writeJSON(k)
			constants++
		} else if _, one := o.at["type"].(string); !one {
			return nil, fmt.Errorf("%s/%d: only schemas of one type each, or constants, can be told apart: use anyOf", path, i)
		}
		if key == "type integer" {
			key = "type number"
		}
		if seen[key] || constants > 0 && constants <= i {
			return nil, fmt.Errorf("%s/%d: another of them may allow the same text: use anyOf", path, i)
		}
		seen[key] = true
	}
	return c.anyOf(v, path)
}

func (c *schemas) allOf(v any, path string) (part, error) {
	list, ok := v.([]any)
	if !ok || len(list) != 1 {
		return nil, fmt.Errorf("%s: only of one schema", path)
	}
	return c.part(list[0], path+"/0")
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
