package tokenizer

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// tiny is testdata/tiny.json with parts replaced as testdata/make_tiny.py does it.
func tiny(t testing.TB, over map[string]any) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile("testdata/tiny.json")
	if err != nil {
		t.Fatal(err)
	}
	var base map[string]any
	if err := json.Unmarshal(data, &base); err != nil {
		t.Fatal(err)
	}
	model := base["model"].(map[string]any)
	for key, value := range over {
		switch key {
		case "model":
			for k, v := range value.(map[string]any) {
				model[k] = v
			}
		case "remove":
			remove(model, value.([]any))
		default:
			base[key] = value
		}
	}
	if data, err = json.Marshal(base); err != nil {
		t.Fatal(err)
	}
	s, err := parseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := s.build()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// remove takes the tokens that hold one of gone out of the vocabulary.
func remove(model map[string]any, gone []any) {
	has := func(s any) bool {
		return slices.ContainsFunc(gone, func(g any) bool { return strings.Contains(s.(string), g.(string)) })
	}
	for token := range model["vocab"].(map[string]any) {
		if has(token) {
			delete(model["vocab"].(map[string]any), token)
		}
	}
	merges := model["merges"].([]any)
	model["merges"] = slices.DeleteFunc(merges, func(m any) bool { return slices.ContainsFunc(m.([]any), has) })
}

type tinyGolden struct {
	Texts []string
	Cases []struct {
		Name string
		Over map[string]any
		Rows [][4]json.RawMessage
	}
}

func readTiny(t testing.TB) (g tinyGolden) {
	t.Helper()
	data, err := os.ReadFile("testdata/tiny_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestTiny: 15 tokenizers on 135 hard strings, ids and decodes of the tokenizers library.
func TestTiny(t *testing.T) {
	golden := readTiny(t)
	for _, c := range golden.Cases {
		t.Run(c.Name, func(t *testing.T) {
			tok := tiny(t, c.Over)
			for i, row := range c.Rows {
				var ids, special []int32
				var decoded, plain string
				for j, to := range []any{&ids, &special, &decoded, &plain} {
					if err := json.Unmarshal(row[j], to); err != nil {
						t.Fatal(err)
					}
				}
				checkIDs(t, tok, golden.Texts[i], ids, false)
				checkIDs(t, tok, golden.Texts[i], special, true)
				if got := tok.Decode(special, false); got != decoded {
					t.Errorf("Decode(%d) = %q, want %q", special, got, decoded)
				}
				if got := tok.Decode(special, true); got != plain {
					t.Errorf("Decode(%d) without special tokens = %q, want %q", special, got, plain)
				}
			}
			if len(c.Rows) < 130 {
				t.Error(fmt.Sprint("only ", len(c.Rows), " rows"))
			}
		})
	}
	if len(golden.Cases) < 15 {
		t.Errorf("only %d cases", len(golden.Cases))
	}
}
