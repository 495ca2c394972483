package grammar

import (
	stdjson "encoding/json"
	"fmt"
	"slices"
	"strings"
)

// typed looks at the type that stands beside a keyword which says all else, with the value v: the values of an
// enumeration that are of another type are left out, and other schemas must be of the type themselves.
func (c *schemas) typed(o *object, key string, v any, path string) (any, error) {
	if _, ok := o.at["type"]; !ok {
		return v, nil
	}
	types, err := typesOf(o, path)
	if err != nil {
		return nil, err
	}
	switch key {
	case "const":
		if !within(typeOf(v), types) {
			return nil, fmt.Errorf("%s/const: the value is no %s, so nothing is allowed", path, strings.Join(types, " or "))
		}
	case "enum":
		list, ok := v.([]any)
		left := slices.DeleteFunc(slices.Clone(list), func(v any) bool { return !within(typeOf(v), types) })
		if ok && len(list) > 0 && len(left) == 0 {
			return nil, fmt.Errorf("%s/enum: no value is a %s, so nothing is allowed", path, strings.Join(types, " or "))
		}
		return left, nil
	default:
		for _, t := range c.types(&object{keys: []string{key}, at: map[string]any{key: v}}) {
			if !within(t, types) {
				return nil, fmt.Errorf("%s: type beside %s is supported only where all that this allows is of that type", path, key)
			}
		}
	}
	return v, nil
}

// within reports whether a value of type t is of one of the types.
func within(t string, types []string) bool {
	return slices.Contains(types, t) || t == "integer" && slices.Contains(types, "number")
}

// typeOf is the type of a value. A number is an integer if it is written like one.
func typeOf(v any) string {
	switch v := v.(type) {
	case *object:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case stdjson.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	}
	return "null"
}

// types are those of what a schema's form allows; "any" stands for all of them, and for what cannot be told.
func (c *schemas) types(schema any) (all []string) {
	const many = 10000 // schemas that refer to one another may lead round in circles
	o, ok := schema.(*object)
	if c.looked++; !ok || c.looked > many {
		return []string{"any"}
	}
	for _, key := range []string{"anyOf", "oneOf", "allOf"} {
		list, _ := o.at[key].([]any)
		for _, s := range list {
			all = append(all, c.types(s)...)
		}
	}
	if list, ok := o.at["enum"].([]any); ok {
		for _, v := range list {
			all = append(all, typeOf(v))
		}
	}
	if v, ok := o.at["const"]; ok {
		all = append(all, typeOf(v))
	}
	if ref, ok := o.at["$ref"].(string); ok {
		target, _ := c.find(ref)
		return c.types(target)
	}
	if all != nil {
		return all
	}
	if all, _ = typesOf(o, ""); all == nil {
		return []string{"any"}
	}
	return all
}
