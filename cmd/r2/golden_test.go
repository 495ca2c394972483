package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// binary is the built program, as a user has it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "r2-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "r2")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// r2 runs the program with input and returns what it printed and its exit code.
func r2(t *testing.T, input string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// lines runs the program, which must succeed, and decodes each line it prints into a T.
func lines[T any](t *testing.T, input string, args ...string) []T {
	t.Helper()
	out, errs, code := r2(t, input, args...)
	if code != 0 {
		t.Fatalf("r2 %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	var all []T
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("r2 %s: %v in %q", strings.Join(args, " "), err, line)
		}
		all = append(all, v)
	}
	return all
}

type goldenFile struct {
	Sequences [][]int32 `json:"sequences"`
	Greedy    struct {
		Prompt int     `json:"prompt_sequence"`
		Tokens []int32 `json:"tokens"`
	} `json:"greedy"`
	Adapters map[string]json.RawMessage `json:"adapters"`
}

// r2 logprobs and r2 generate give the numbers of the golden models, bare and with each adapter.
func TestGoldenModels(t *testing.T) {
	for _, name := range []string{"qwen2_f32", "qwen2_tied_bf16_sharded", "llama_rope3", "qwen3", "llama_plain", "qwen2_swa_off"} {
		t.Run(name, func(t *testing.T) {
			dir := modeltest.Shared(t, "goldens", name)
			var g goldenFile
			b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
			if err == nil {
				err = json.Unmarshal(b, &g)
			}
			if err != nil {
				t.Fatal(err)
			}
			f, err := weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			worst := scoreGolden(t, dir, &g, f, "", nil)
			for a := range g.Adapters {
				if strings.HasSuffix(a, "modules_to_save") {
					_, errs, code := r2(t, `{"tokens":[1,2]}`, "logprobs", "--model", dir, "--adapter", "a="+filepath.Join(dir, a), "--input", "-")
					if code != 1 || !strings.Contains(errs, "modules_to_save") {
						t.Errorf("%s: exit %d: %s; want a refusal that names it", a, code, errs)
					}
					continue
				}
				worst = max(worst, scoreGolden(t, dir, &g, f, a+".", []string{"--adapter", "a=" + filepath.Join(dir, a)}))
			}
			t.Logf("worst error of a log-probability %.1e", worst)
			if !(worst < 1e-4) {
				t.Errorf("worst error of a log-probability %.1e", worst)
			}
			greedyGolden(t, dir, &g)
		})
	}
}

func tokenRows(seqs [][]int32) string {
	var in strings.Builder
	for _, s := range seqs {
		b, _ := json.Marshal(map[string]any{"tokens": s})
		in.Write(append(b, '\n'))
	}
	return in.String()
}

func scoreGolden(t *testing.T, dir string, g *goldenFile, f *weights.Safetensors, prefix string, args []string) (worst float64) {
	t.Helper()
	rows := lines[scoredRow](t, tokenRows(g.Sequences), append([]string{"logprobs", "--model", dir, "--input", "-", "--json"}, args...)...)
	compared := 0
	for i, row := range rows {
		w, err := f.Tensor(fmt.Sprintf("%slogprob.%d", prefix, i))
		if err != nil {
			continue
		}
		for j, want := range w.Float64(nil) {
			compared++
			worst = max(worst, math.Abs(float64(*row.LogProbs[j+1])-want))
		}
	}
	if compared == 0 {
		t.Errorf("%s: nothing was compared", prefix)
	}
	return worst
}

func greedyGolden(t *testing.T, dir string, g *goldenFile) {
	t.Helper()
	in := tokenRows(g.Sequences[g.Greedy.Prompt : g.Greedy.Prompt+1])
	got := lines[generated](t, in, "generate", "--model", dir, "--input", "-", "--json", "--temperature", "0",
		"--ignore-eos", "--max-tokens", fmt.Sprint(len(g.Greedy.Tokens)))[0]
	if fmt.Sprint(got.Tokens) != fmt.Sprint(g.Greedy.Tokens) {
		t.Errorf("greedy tokens %v, want %v", got.Tokens, g.Greedy.Tokens)
	}
}

// SmolLM2's greedy continuations and log-probabilities are those of its goldens.
func TestSmolLM2(t *testing.T) {
	dir := modeltest.Shared(t, "models", "smollm2-135m-instruct")
	var g struct {
		Prompts []struct {
			Name   string    `json:"name"`
			IDs    []int32   `json:"ids"`
			Greedy []int32   `json:"greedy"`
			Margin []float64 `json:"greedy_margin"`
		} `json:"prompts"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ids [][]int32
	for _, p := range g.Prompts {
		ids = append(ids, p.IDs)
	}
	model := filepath.Join(dir, "SmolLM2-135M-Instruct.Q4_1.gguf")
	scored := lines[scoredRow](t, tokenRows(ids), "logprobs", "--model", model, "--input", "-", "--json")
	written := lines[generated](t, tokenRows(ids), "generate", "--model", model, "--input", "-", "--json", "--temperature", "0",
		"--ignore-eos", "--max-tokens", "48", "-q")
	worst := 0.0
	for i, p := range g.Prompts {
		if w, err := f.Tensor(p.Name + ".logprob_f64"); err == nil {
			for j, want := range w.Float64(nil) {
				d := math.Abs(float64(*scored[i].LogProbs[j+1]) - want)
				if p.Name == "unicode" && j == 9 {
					if d > 1e-2 { // the residual stream cancels there: float32 engines differ (README of the model)
						t.Errorf("unicode, entry 9: error %.1e", d)
					}
					continue
				}
				worst = max(worst, d)
			}
		}
		for j, want := range p.Greedy {
			if written[i].Tokens[j] != want {
				if p.Margin[j] > 1e-3 {
					t.Errorf("%s: token %d is %d, want %d (margin %.4f)", p.Name, j, written[i].Tokens[j], want, p.Margin[j])
				}
				break
			}
		}
	}
	t.Logf("worst error of a log-probability %.1e", worst)
	if !(worst < 1e-4) {
		t.Errorf("worst error of a log-probability %.1e", worst)
	}
}
