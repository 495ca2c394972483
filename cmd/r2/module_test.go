package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each module of the shipped router, its adapter spoilt, gets better by what the rest of the router
// makes of it; sampler and trainer agree to the bit at every step.
func TestModulesLearn(t *testing.T) {
	for module, spoilt := range map[string]struct{ alpha, lr string }{
		"allocator":  {"2", "4e-3"},   // an eighth of what was trained
		"decomposer": {"-48", "1e-3"}, // thrice what was trained, the wrong way: the base plans without it
	} {
		t.Run(module, func(t *testing.T) {
			begin := damaged(t, module, func(dir string) {
				p := filepath.Join(dir, "adapter_config.json")
				b, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				weak := bytes.Replace(b, []byte(`"lora_alpha": 16`), []byte(`"lora_alpha": `+spoilt.alpha), 1)
				if bytes.Equal(weak, b) {
					t.Fatalf("%s has no lora_alpha of 16", p)
				}
				if err := os.WriteFile(p, weak, 0o666); err != nil {
					t.Fatal(err)
				}
			})
			out := filepath.Join(t.TempDir(), "run")
			_, errs, code := r2(t, "", "grpo", "--module", module, "--config", shipped("r2.yaml"), "--task", "scan", "--init-adapter", begin,
				"--steps", "12", "--prompts", "16", "--samples", "8", "--max-tokens", "96", "--lr", spoilt.lr, "--kl", "0", "--out", out, "-q")
			if code != 0 {
				t.Fatalf("exit %d: %s", code, errs)
			}
			b, err := os.ReadFile(filepath.Join(out, "metrics.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			var before, after float64
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			if len(lines) != 12 {
				t.Fatalf("%d rows of metrics", len(lines))
			}
			for i, line := range lines {
				var row grpoRow
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				if row.Parity != 0 || row.Failed != 0 {
					t.Errorf("step %d: parity %g, %d rewards failed", row.Step, row.Parity, row.Failed)
				}
				if i < 3 {
					before += row.RewardMean / 3
				} else if i >= 9 {
					after += row.RewardMean / 3
				}
			}
			t.Logf("reward %.3f in the first three steps, %.3f in the last", before, after)
			if after < before+0.05 {
				t.Errorf("reward %.3f in the first three steps, %.3f in the last", before, after)
			}
		})
	}
}

func TestModuleRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"--module planner: want allocator or decomposer": {"--module", "planner", "--task", "scan", "--config", shipped("r2.yaml")},
		"--module needs --config":                        {"--module", "allocator", "--task", "scan"},
		"--stepwise is for the allocator":                {"--module", "decomposer", "--task", "scan", "--config", shipped("r2.yaml"), "--stepwise"},
		"belong together":                                {"--module", "allocator", "--task", "scan", "--config", shipped("r2.yaml"), "--refill", "1"},
		"--config, --cost and --stepwise belong":         {"--model", shipped("midi"), "--task", "scan", "--cost", "1"},
		"--kl-ref zero is not known":                     {"--model", shipped("midi"), "--task", "scan", "--kl-ref", "zero"},
		`divergence "k4" is not known`:                   {"--model", shipped("midi"), "--task", "scan", "--kl-kind", "k4"},
	} {
		_, errs, code := r2(t, "", append([]string{"grpo", "--out", filepath.Join(t.TempDir(), "x")}, args...)...)
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %q; want %q", args, code, errs, want)
		}
	}
}

// A benchmark that is not part of the program is read from its own file, and its checker asked.
func TestTasksFromTheirFiles(t *testing.T) {
	data := filepath.Join(t.TempDir(), "gsm8k.jsonl")
	row := `{"question":"One and one?","answer":"1+1=<<1+1=2>>2\n#### 2"}` + "\n"
	if err := os.WriteFile(data, []byte(row), 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"grpo", "--model", shipped("maxi"), "--task", "gsm8k", "--steps", "1", "--prompts", "2", "--samples", "2", "--max-tokens", "4", "-q"}
	out := filepath.Join(t.TempDir(), "run")
	if _, errs, code := r2(t, "", append(args, "--data", data, "--out", out)...); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	_, errs, code := r2(t, "", append(args, "--out", filepath.Join(t.TempDir(), "x"))...)
	if code != 2 || !strings.Contains(errs, "give its file with --data") {
		t.Errorf("without its file: exit %d, %q", code, errs)
	}
}

// Where programs of a model's cannot be kept off the network, a run says so, once; and only there.
func TestP3WithANetwork(t *testing.T) {
	if err := exec.Command("unshare", "-Urn", "true").Run(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	data := filepath.Join(t.TempDir(), "p3.json")
	puzzle := `[{"name":"Three:0","sat":"def sat(x: int):\n    return x == 3","ans_type":"int","sol_header":"def sol():","sol_docstring":""}]`
	if err := os.WriteFile(data, []byte(puzzle), 0o666); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		args = append(args, "grpo", "--model", shipped("maxi"), "--task", "p3", "--data", data, "--steps", "1", "--prompts", "1", "--samples", "2",
			"--max-tokens", "4", "-q", "--out", filepath.Join(t.TempDir(), "run"))
		var errs bytes.Buffer
		cmd := exec.Command(name, args...)
		cmd.Stderr = &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, &errs)
		}
		return errs.String()
	}
	if errs := run(binary); errs != "" {
		t.Errorf("where they can be kept off: %s", errs)
	}
	// A namespace in which no other may be made.
	errs := run("unshare", "-Ur", "sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"`, binary)
	if strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "nothing keeps them off the network") {
		t.Errorf("where they cannot: %q", errs)
	}
}
