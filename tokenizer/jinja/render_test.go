package jinja

import (
	"encoding/json"
	"os"
	"testing"
)

type renders struct {
	Variables Object
	Cases     []struct {
		Template string
		Rendered *string
		Error    string
	}
}

func readRenders(t testing.TB) (golden renders) {
	t.Helper()
	data, err := os.ReadFile("testdata/renders.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	return golden
}

func (g *renders) vars() map[string]any {
	vars := map[string]any{}
	for _, m := range g.Variables {
		vars[m.Key] = m.Value
	}
	return vars
}

// TestRenders compares with what Jinja2 made of each snippet (testdata/make_renders.py).
func TestRenders(t *testing.T) {
	golden := readRenders(t)
	for _, c := range golden.Cases {
		var got string
		k, err := Parse(c.Template)
		if err == nil {
			got, err = k.Render(golden.vars())
		}
		switch {
		case c.Rendered == nil && err == nil:
			t.Errorf("%q\nrendered %q, want the error %s", c.Template, got, c.Error)
		case c.Rendered != nil && err != nil:
			t.Errorf("%q\n%v, want %q", c.Template, err, *c.Rendered)
		case c.Rendered != nil && got != *c.Rendered:
			t.Errorf("%q\n got %q\nwant %q", c.Template, got, *c.Rendered)
		}
	}
	if len(golden.Cases) < 190 {
		t.Errorf("only %d cases", len(golden.Cases))
	}
}
