package grammar

import (
	"fmt"
	"slices"
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

// schemas compiles a schema and what it refers to.
type schemas struct {
	root   any
	values *values
	rules  map[string]*rule // by reference
	looked int              // schemas whose types were looked at
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
		v, err := c.typed(o, whole.key, v, path)
		if err != nil {
			return nil, err
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
	target, ok := c.find(ref)
	if !ok {
		return nil, fmt.Errorf("%s: there is nothing at %s", path, ref)
	}
	r := &rule{}
	c.rules[ref] = r
	body, err := c.part(target, ref)
	r.body = body
	return r.part(), err
}

// find is what a reference within the schema stands for.
func (c *schemas) find(ref string) (target any, ok bool) {
	target = c.root
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#"), "/")[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		o, ok := target.(*object)
		if ok {
			target, ok = o.at[step]
		}
		if !ok {
			return nil, false
		}
	}
	return target, true
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
