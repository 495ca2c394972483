package jinja

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// TestParseValue: what Python's json.loads and json.dumps make of the same text.
func TestParseValue(t *testing.T) {
	for in, want := range map[string]string{
		`{"b": 1, "a": {"d": [], "c": null}}`:   `{"b": 1, "a": {"d": [], "c": null}}`,
		`{"a": 1, "b": 2, "a": 3}`:              `{"a": 3, "b": 2}`,
		`[1, 1.0, 1e3, -0, -0.0, 1E400, 2.50]`:  `[1, 1.0, 1000.0, 0, -0.0, Infinity, 2.5]`,
		`123456789012345678901234567890`:        `123456789012345678901234567890`,
		`[1e16, 1e15, 0.0001, 0.00001, 1e-300]`: `[1e+16, 1000000000000000.0, 0.0001, 1e-05, 1e-300]`,
		`"a\u0001\"\\\/\n\u2028é<>&\u007f"`:     "\"a\\u0001\\\"\\\\/\\n\u2028é<>&\u007f\"",
		` true `:                                `true`,
	} {
		v, err := ParseValue([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := dump(v, dumpStyle{item: ", ", key: ": "})
		if err != nil || got != want {
			t.Errorf("%s became %s (%v), want %s", in, got, err, want)
		}
	}
}

func TestParseValueRefuses(t *testing.T) {
	for _, in := range []string{
		"", "{", "[1,]", `{"a"}`, "1 2", "nul", `"\x"`, "{1: 2}", "01", "[1 2]",
		strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 1000), strings.Repeat("9", 5000),
	} {
		if v, err := ParseValue([]byte(in)); err == nil {
			t.Errorf("%.40s gave %v", in, v)
		}
	}
}

// TestPythonFloat: repr of CPython 3.
func TestPythonFloat(t *testing.T) {
	for f, want := range map[float64]string{
		1: "1.0", -2.5: "-2.5", 1e16: "1e+16", 9999999999999998: "9999999999999998.0", 123456789012345680: "1.2345678901234568e+17",
		0.0001: "0.0001", 0.00001: "1e-05", 2.5e-7: "2.5e-07", 5e-324: "5e-324", 1e100: "1e+100", 0.30000000000000004: "0.30000000000000004",
		math.Inf(1): "inf", math.Inf(-1): "-inf",
	} {
		if got := pythonFloat(f); got != want {
			t.Errorf("%g printed %s, want %s", f, got, want)
		}
	}
}

// TestObjectJSON: an Object goes through encoding/json with its order.
func TestObjectJSON(t *testing.T) {
	const in = `{"z":1,"a":[{"y":2.0,"b":null}],"m":"<é>"}`
	var o struct{ O Object }
	if err := json.Unmarshal([]byte(`{"O":`+in+`}`), &o); err != nil {
		t.Fatal(err)
	}
	got, err := o.O.MarshalJSON()
	if err != nil || string(got) != in {
		t.Errorf("got %s (%v), want %s", got, err, in)
	}
	if err := json.Unmarshal([]byte(`[1]`), &o.O); err == nil {
		t.Error("a list became an Object")
	}
}

func TestStrftime(t *testing.T) {
	k, err := Parse("{{ strftime_now('%Y-%m-%d %%') }}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Render(nil)
	if err != nil || len(got) != len("2006-01-02 %") || !strings.HasPrefix(got, "2") {
		t.Errorf("got %q (%v)", got, err)
	}
}
