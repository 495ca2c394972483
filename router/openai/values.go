package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
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

func integer[T int | int64](raw json.RawMessage, to *T, least, most int64) error {
	if json.Unmarshal(raw, to) != nil || int64(*to) < least || int64(*to) > most {
		return fmt.Errorf("want a whole number from %d to %d, got %.40s", least, most, raw)
	}
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

// only accepts the one value that changes nothing.
func only(neutral string) setter {
	var want any
	if err := json.Unmarshal([]byte(neutral), &want); err != nil {
		panic(err)
	}
	return func(_ *call, raw json.RawMessage) error {
		var got any
		d := json.NewDecoder(bytes.NewReader(raw))
		if err := d.Decode(&got); err != nil || !reflect.DeepEqual(got, want) {
			return fmt.Errorf("only %s is supported, got %.40s", neutral, raw)
		}
		return nil
	}
}
