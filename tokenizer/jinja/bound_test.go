package jinja

import (
	"strings"
	"testing"
	"time"
)

// TestBounds: templates that would run, grow or nest without end are stopped
// with an error, soon.
func TestBounds(t *testing.T) {
	loop := "{% for i in range(100000) %}"
	cases := map[string]string{
		"loops in loops":         strings.Repeat(loop, 3) + strings.Repeat("{% endfor %}", 3),
		"a long range":           "{% for i in range(10 ** 15) %}{% endfor %}",
		"output":                 "{% for i in range(100000) %}{{ 'x' * 1000000 }}{% endfor %}",
		"a string that doubles":  "{% set n = namespace(s='x') %}{% for i in range(100) %}{% set n.s = n.s + n.s %}{% endfor %}",
		"a string repeated":      "{{ 'x' * 10 ** 12 }}",
		"a list that doubles":    "{% set n = namespace(l=[1]) %}{% for i in range(100) %}{% set n.l = n.l + n.l %}{% endfor %}",
		"a macro without end":    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"a loop that recurses":   "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"a tree printed":         "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
		"a tree as JSON":         "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
		"trees compared":         "{% set n = namespace(l=[], m=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% set n.m = [n.m, n.m] %}{% endfor %}{{ n.l == n.m }}",
		"a deep list printed":    "{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
		"a power":                "{{ 7 ** (7 ** (7 ** 7)) }}",
		"a width":                "{{ '%999999999d' % 1 }}",
		"padding":                "{{ 'x'.ljust(10 ** 12) }}",
		"an indent":              "{{ '\n\n' | indent(10 ** 12, blank=true) }}",
		"a replacement":          "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
		"brackets in the source": strings.Repeat("(", 1<<19),
		"nots in the source":     "{{ " + strings.Repeat("not ", 1<<17) + "1 }}",
		"minus in the source":    "{{ " + strings.Repeat("-", 1<<19) + "1 }}",
		"blocks in the source":   strings.Repeat("{% if x %}", 1<<16),
		"a long source":          strings.Repeat("x", maxSource+1),
	}
	cases["brackets in the source"] = "{{ " + cases["brackets in the source"]
	for name, src := range cases {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			k, err := Parse(src)
			if err == nil {
				_, err = k.Render(nil)
			}
			if err == nil || strings.Contains(err.Error(), "internal") {
				t.Errorf("got error %v", err)
			}
			if d := time.Since(start); d > time.Minute {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestLongChains: source that is long and not deep is parsed and run.
func TestLongChains(t *testing.T) {
	for name, src := range map[string]string{
		"sum":     "{{ " + strings.Repeat("1+", 1<<18) + "1 }}",
		"or":      "{{ " + strings.Repeat("0 or ", 1<<17) + "1 }}",
		"filters": "{{ 1" + strings.Repeat("|abs", 1<<17) + " }}",
		"index":   "{{ x" + strings.Repeat("[0]", 1<<16) + " }}",
	} {
		k, err := Parse(src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := k.Render(map[string]any{"x": "s"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConcurrent renders one template from many goroutines; the race detector looks on.
func TestConcurrent(t *testing.T) {
	k, err := Parse("{% set ns = namespace(s='') %}{% for i in range(n) %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.s }}")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	for range 8 {
		go func() {
			got, _ := k.Render(map[string]any{"n": 10})
			done <- got
		}()
	}
	for range 8 {
		if got := <-done; got != "0123456789" {
			t.Errorf("got %q", got)
		}
	}
}

// FuzzTemplate: no source makes the parser or a render panic or hang.
func FuzzTemplate(f *testing.F) {
	for _, c := range readRenders(f).Cases {
		f.Add(c.Template)
	}
	golden := readRenders(f)
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 4096 {
			return
		}
		k, err := Parse(src)
		if err == nil {
			_, err = k.Render(golden.vars())
		}
		if err != nil && strings.Contains(err.Error(), "internal error") {
			t.Error(err)
		}
	})
}
