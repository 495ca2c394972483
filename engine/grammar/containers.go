package grammar

import (
	"fmt"
	"slices"
)

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
