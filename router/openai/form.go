package openai

import (
	"bytes"
	"encoding/json"
	"errors"
)

// structured reads vLLM's way to give an answer's form: one of choice, regex, json and json_object.
func structured(c *Call, raw json.RawMessage) error {
	f := &Form{}
	err := object(raw, map[string]func(json.RawMessage) error{
		"choice": func(raw json.RawMessage) (err error) {
			f.Choices, err = texts(raw)
			return err
		},
		"regex":       func(raw json.RawMessage) error { return name(raw, &f.Pattern) },
		"json":        func(raw json.RawMessage) error { return schema(f, raw) },
		"json_object": func(raw json.RawMessage) error { return boolean(raw, &f.Object) },
	})
	given := 0
	for _, set := range []bool{len(f.Choices) > 0, f.Pattern != "", f.Schema != "", f.Object} {
		if set {
			given++
		}
	}
	switch {
	case err != nil:
		return err
	case given > 1:
		return errors.New("want one of choice, regex, json and json_object, not several")
	case given == 1:
		c.Form = *f
	}
	return nil
}

// schema reads a JSON schema, which may also stand in a string.
func schema(f *Form, raw json.RawMessage) error {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(text)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return errors.New("want a JSON schema")
	}
	f.Schema = b.String()
	return nil
}

// responseFormat reads OpenAI's way to ask for JSON: {"type": "text" | "json_object"}, or {"type": "json_schema",
// "json_schema": {"name", "schema", …}}.
func responseFormat(c *Call, raw json.RawMessage) error {
	kind, f := "", &Form{}
	err := object(raw, map[string]func(json.RawMessage) error{
		"type": func(raw json.RawMessage) error { return str(raw, &kind) },
		"json_schema": func(raw json.RawMessage) error {
			var name, description string
			var strict bool // an answer is valid, asked for or not
			return object(raw, map[string]func(json.RawMessage) error{
				"name":        func(raw json.RawMessage) error { return str(raw, &name) },
				"description": func(raw json.RawMessage) error { return str(raw, &description) },
				"strict":      func(raw json.RawMessage) error { return boolean(raw, &strict) },
				"schema":      func(raw json.RawMessage) error { return schema(f, raw) },
			})
		},
	})
	switch {
	case err != nil:
		return err
	case kind == "json_schema" && f.Schema == "":
		return errors.New("type json_schema needs json_schema: {schema}")
	case kind != "json_schema" && f.Schema != "":
		return errors.New("json_schema is for type json_schema")
	case kind == "json_object":
		f.Object = true
	case kind != "text" && kind != "json_schema":
		return errors.New("type: want text, json_object or json_schema")
	}
	if f.Given() {
		c.Form = *f
	}
	return nil
}
