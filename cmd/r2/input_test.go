package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/weights"
)

// shipped is a model of the miniature.
func shipped(name string) string { return filepath.Join("miniature", name) }

// damaged is a copy of a shipped model that change has been done to.
func damaged(t *testing.T, name string, change func(dir string)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(shipped(name))); err != nil {
		t.Fatal(err)
	}
	change(dir)
	return dir
}

func edit(t *testing.T, path string, f func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, f(b), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Bad input gets one clear line, exit 1 or 2, and nothing half-written.
func TestBadInput(t *testing.T) {
	mini := shipped("mini")
	out := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := func(change func(map[string]any)) string { return testConfig(t, change) }
	data := file("data.jsonl", `{"messages":[{"role":"user","content":"walk"},{"role":"assistant","content":" I_WALK"}]}`+"\n")
	for _, c := range []struct {
		name string
		in   string
		args []string
		code int
		want []string
	}{
		{"unknown command", "", []string{"frobnicate"}, 2, []string{"frobnicate"}},
		{"unknown flag", "", []string{"generate", "--frob"}, 2, []string{"--frob"}},
		{"no model", "", []string{"generate", "--prompt", "a"}, 2, []string{"--model"}},
		{"missing folder", "", []string{"generate", "--model", "/nonexistent", "--prompt", "a"}, 1, []string{"/nonexistent"}},
		{"unknown architecture", "", []string{"generate", "--prompt", "a", "--model", damaged(t, "mini", func(d string) {
			edit(t, filepath.Join(d, "config.json"), func(b []byte) []byte { return []byte(strings.Replace(string(b), `"llama"`, `"mamba"`, 1)) })
		})}, 1, []string{"config.json", "mamba"}},
		{"truncated weights", "", []string{"generate", "--prompt", "a", "--model", damaged(t, "mini", func(d string) {
			edit(t, filepath.Join(d, "model.safetensors"), func(b []byte) []byte { return b[:len(b)-100] })
		})}, 1, []string{"model.safetensors"}},
		{"a NaN in the weights", "", []string{"generate", "--prompt", "a", "--model", damaged(t, "mini", func(d string) {
			edit(t, filepath.Join(d, "model.safetensors"), poison(t, filepath.Join(d, "model.safetensors")))
		})}, 1, []string{"tensor model.", "not a finite number"}},
		{"adapter of another model", "", []string{"generate", "--prompt", "a", "--model", mini, "--adapter", "a=" + shipped("allocator")}, 1, []string{"adapter of another model"}},
		{"adapter without a name", "", []string{"generate", "--prompt", "a", "--model", mini, "--adapter", "x"}, 2, []string{"NAME=DIR"}},
		{"wrong dtype", "", []string{"generate", "--prompt", "a", "--model", mini, "--dtype", "f12"}, 2, []string{"f12"}},
		{"no GPU backend", "", []string{"generate", "--prompt", "a", "--model", mini, "--device", "cuda:9"}, 2, []string{"cuda:9"}},
		{"empty prompt", "", []string{"generate", "--prompt", "", "--model", mini}, 1, []string{"empty"}},
		{"prompt longer than the context", "", []string{"generate", "--prompt", strings.Repeat("walk ", 600), "--model", mini}, 1, []string{"context"}},
		{"n = 0", "", []string{"generate", "--prompt", "walk", "-n", "0", "--model", mini}, 1, []string{"n 0"}},
		{"temperature below 0", "", []string{"generate", "--prompt", "walk", "--temperature=-1", "--model", mini}, 1, []string{"temperature -1"}},
		{"broken row", "{\"prompt\": \"a\"}\n{\"prompt\"", []string{"generate", "--input", "-", "--model", mini}, 1, []string{"standard input:2"}},
		{"unknown field", "{\"promt\": \"a\"}", []string{"generate", "--input", "-", "--model", mini}, 1, []string{"standard input:1", "promt"}},
		{"id outside the vocabulary", "{\"tokens\": [1, 99999]}", []string{"logprobs", "--input", "-", "--model", mini}, 1, []string{"standard input:1", "99999"}},
		{"no data", "", []string{"sft", "--model", mini, "--data", "/nonexistent.jsonl", "--out", filepath.Join(out, "a")}, 1, []string{"/nonexistent.jsonl"}},
		{"learning rate 0", "", []string{"sft", "--model", mini, "--data", data, "--lr", "0", "--out", filepath.Join(out, "b")}, 2, []string{"learning rate 0"}},
		{"learning rate below 0", "", []string{"grpo", "--model", mini, "--task", "scan", "--lr=-1", "--out", filepath.Join(out, "b")}, 2, []string{"learning rate -1"}},
		{"learning rate NaN", "", []string{"grpo", "--model", mini, "--task", "scan", "--lr", "NaN", "--out", filepath.Join(out, "b")}, 2, []string{"learning rate NaN"}},
		{"no rows", "", []string{"sft", "--model", mini, "--data", file("none.jsonl", "\n"), "--out", filepath.Join(out, "b")}, 1, []string{"none.jsonl", "there are no rows"}},
		{"no rows to judge", "", []string{"grpo", "--model", mini, "--task", "scan", "--data", file("none.jsonl", ""), "--out", filepath.Join(out, "b")}, 1, []string{"none.jsonl", "there are no tasks"}},
		{"no rows to evaluate on", "", []string{"sft", "--model", mini, "--data", data, "--eval-data", file("none.jsonl", ""), "--out", filepath.Join(out, "b")}, 1, []string{"none.jsonl", "there are no rows"}},
		{"a short mask", "", []string{"sft", "--model", mini, "--data", file("a.jsonl", `{"tokens":[1,2,3],"mask":[0,1]}`), "--out", filepath.Join(out, "b")}, 1, []string{"a.jsonl:1", "mask has 2 entries for 3 tokens"}},
		{"a number for a text", "", []string{"sft", "--model", mini, "--data", file("a.jsonl", "\n"+`{"messages":[{"role":"user","content":5}]}`), "--out", filepath.Join(out, "b")}, 1, []string{"a.jsonl:2", `"messages.content": number where a string is wanted`}},
		{"a prompt that fits with no completion", "", []string{"grpo", "--model", mini, "--task", "scan", "--max-tokens", "256", "--out", filepath.Join(out, "b")}, 1, []string{"context of 256", "--long drop"}},
		{"an adapter of another model to begin from", "", []string{"grpo", "--model", mini, "--task", "scan", "--init-adapter", shipped("allocator"), "--out", filepath.Join(out, "b")}, 1, []string{"adapter of another model"}},
		{"bad LoRA", "", []string{"sft", "--model", mini, "--data", data, "--lora", "r=0", "--out", filepath.Join(out, "c")}, 2, []string{"r=0"}},
		{"a group of one", "", []string{"grpo", "--model", mini, "--task", "scan", "--samples", "1", "--out", filepath.Join(out, "d")}, 2, []string{"--samples 1"}},
		{"no reward", "", []string{"grpo", "--model", mini, "--data", data, "--out", filepath.Join(out, "e")}, 2, []string{"--reward-cmd"}},
		{"port in use", "", []string{"serve", "--model", mini, "--listen", taken.Addr().String()}, 1, []string{"address already in use", "--listen"}},
		{"no log to log to", "", []string{"serve", "--model", mini, "--log-prompts", "-q"}, 2, []string{"--log-prompts", "-q"}},
		{"drain backwards", "", []string{"serve", "--model", mini, "--drain=-1s"}, 2, []string{"--drain -1s"}},
		{"public address", "", []string{"serve", "--model", mini, "--listen", "0.0.0.0:0"}, 2, []string{"anybody could use it"}},
		{"unknown key", "", []string{"route", "q", "--config", config(func(m map[string]any) { m["pol"] = 1 })}, 1, []string{"pol"}},
		{"key in the file", "", []string{"route", "q", "--config", config(func(m map[string]any) { member(m)["key"] = "sk-secret" })}, 1, []string{"key_env"}},
		{"pool unreachable", "", []string{"route", "walk", "--config", config(func(m map[string]any) {
			p := member(m)
			delete(p, "model")
			p["url"], p["timeout"] = "http://127.0.0.1:1/v1", "100ms"
		})}, 1, []string{"127.0.0.1:1"}},
		{"malformed plan", "", []string{"route", "walk", "--config", config(func(m map[string]any) {
			m["router"].(map[string]any)["decomposer"] = map[string]any{"prompt": "compact", "adapter": abs(t, "allocator")}
		})}, 1, []string{"not a plan"}},
		{"budget reached", "", []string{"route", "walk", "--config", config(func(m map[string]any) { m["budget"] = map[string]any{"usd": 0} })}, 1, []string{"budget"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, code := r2(t, c.in, append(c.args, quiet(c.args)...)...)
			if code != c.code {
				t.Errorf("exit %d, want %d: %s", code, c.code, stderr)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("%q does not say %q", stderr, w)
				}
			}
			if n := strings.Count(strings.TrimSpace(stderr), "\n"); n > 1 {
				t.Errorf("%d lines where one was wanted: %s", n+1, stderr)
			}
			if strings.Contains(stderr+stdout, "sk-secret") || strings.Contains(stderr, "goroutine ") {
				t.Errorf("a secret or a stack: %s", stderr)
			}
		})
	}
	if left, _ := os.ReadDir(out); len(left) > 0 {
		t.Errorf("a refused run left %v", left)
	}
}

// quiet is -q for the commands that have it.
func quiet(args []string) []string {
	if args[0] == "frobnicate" {
		return nil
	}
	return []string{"-q"}
}

func abs(t *testing.T, name string) string {
	t.Helper()
	p, err := filepath.Abs(shipped(name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// testConfig is a router over two shipped models, changed, as a file.
func testConfig(t *testing.T, change func(map[string]any)) string {
	t.Helper()
	m := map[string]any{
		"router": map[string]any{"model": abs(t, "router"), "solve": "compact",
			"decomposer": map[string]any{"adapter": abs(t, "decomposer"), "prompt": "compact"},
			"allocator":  map[string]any{"by": "mini"}},
		"pool": []any{map[string]any{"name": "mini", "group": "slm", "rank": 1, "model": abs(t, "mini"),
			"price": map[string]any{"input": 1, "output": 1}}},
		"integrate": map[string]any{"rule": "concatenate"},
	}
	change(m)
	b, err := json.Marshal(m) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r2.yaml")
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func member(m map[string]any) map[string]any { return m["pool"].([]any)[0].(map[string]any) }

// poison makes the last element of a bfloat16 checkpoint a NaN.
func poison(t *testing.T, path string) func([]byte) []byte {
	return func(b []byte) []byte {
		f, err := weights.OpenSafetensors(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b[len(b)-1], b[len(b)-2] = 0x7f, 0xc0
		return b
	}
}
