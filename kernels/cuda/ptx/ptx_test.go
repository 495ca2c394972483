package ptx_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/ptx"
)

// Each embedded text was made of the sources that stand beside it.
func TestFresh(t *testing.T) {
	for _, m := range ptx.Modules() {
		var headers []string
		for _, h := range ptx.Headers(m) {
			text, err := os.ReadFile(h)
			if err != nil {
				t.Fatal(err)
			}
			headers = append(headers, string(text))
		}
		src, err := os.ReadFile(m + ".cu")
		if err != nil {
			t.Fatal(err)
		}
		if stamp := ptx.Stamp(strings.Join(headers, "\x00"), string(src)); !strings.HasPrefix(ptx.Text(m), stamp) {
			t.Errorf("%s.ptx was made of other sources: run `make ptx`", m)
		}
	}
	all, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	sources := 0
	for _, f := range all {
		if strings.HasSuffix(f.Name(), ".cu") {
			sources++
		}
	}
	if n := len(ptx.Modules()); n != sources {
		t.Errorf("%d sources and %d compiled modules", sources, n)
	}
}

// The sources keep the rules of gpu.h, as far as their text shows.
func TestRules(t *testing.T) {
	include := regexp.MustCompile(`(?m)^#include (.*)$`)
	for _, m := range ptx.Modules() {
		src, err := os.ReadFile(m + ".cu")
		if err != nil {
			t.Fatal(err)
		}
		text := string(src)
		headers, target := ptx.Headers(m), ".target sm_80\n"
		if ptx.Hopper(m) {
			target = ".target sm_90a\n"
		}
		if len(headers) > 1 {
			headers = headers[1:] // they include gpu.h
		}
		var got []string
		for _, h := range include.FindAllStringSubmatch(text, -1) {
			got = append(got, strings.Trim(h[1], `"`))
		}
		if !slices.Equal(got, headers) {
			t.Errorf("%s.cu includes %v; want %v", m, got, headers)
		}
		for _, word := range []string{"asm", "atomicAdd", "__expf"} {
			if strings.Contains(text, word) {
				t.Errorf("%s.cu has %s", m, word)
			}
		}
		if !strings.HasPrefix(text, "// "+m+":") {
			t.Errorf("%s.cu does not begin with what it is", m)
		}
		body := ptx.Text(m)
		for _, want := range []string{".version 8.4\n", target} {
			if !strings.Contains(body, want) {
				t.Errorf("%s.ptx is not %s", m, want)
			}
		}
		if strings.Contains(body, ".approx") || strings.Contains(body, ".ftz") {
			t.Errorf("%s.ptx has approximate instructions, which differ from machine to machine", m)
		}
	}
}

// Every kernel ends with the fault word and the operation's tag, and there are no two of one name.
func TestEntries(t *testing.T) {
	seen := map[string]string{}
	for _, m := range ptx.Modules() {
		entries, err := ptx.Entries(ptx.Text(m))
		if err != nil || len(entries) == 0 {
			t.Fatalf("%s: %d kernels, %v", m, len(entries), err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Params, "PI") {
				t.Errorf("%s of %s does not end with fault and tag: %s", e.Name, m, e.Params)
			}
			if seen[e.Name] != "" {
				t.Errorf("%s is in %s and in %s", e.Name, seen[e.Name], m)
			}
			seen[e.Name] = m
		}
	}
}

func TestEntryTypes(t *testing.T) {
	got, err := ptx.Entries(".visible .entry f(\n\t.param .u64 f_param_0,\n\t.param .u32 f_param_1,\n\t.param .f32 f_param_2,\n\t.param .align 64 .b8 f_param_3[128]\n)\n{")
	if err != nil || len(got) != 1 || got[0] != (ptx.Entry{Name: "f", Params: "PIFM"}) {
		t.Errorf("entries are %v, %v", got, err)
	}
	if _, err := ptx.Entries(".entry g(\n\t.param .b8 g_param_0\n)"); err == nil || !strings.Contains(err.Error(), "kernel g") {
		t.Errorf("a parameter of 8 bits: %v", err)
	}
}
