package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A run that is killed (SIGKILL) again and again and taken up by the same command ends with the bytes
// of one that was never killed: the adapter, and every row of metrics but for its times.
func TestKilledRunsGoOn(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data.jsonl")
	var rows strings.Builder
	for i, w := range []string{"walk", "look", "run", "jump", "walk left", "look right", "run twice", "jump thrice", "turn left"} {
		fmt.Fprintf(&rows, `{"messages":[{"role":"user","content":%q},{"role":"assistant","content":" I_WALK"}],"n":%d}`+"\n", w, i)
	}
	if err := os.WriteFile(data, []byte(rows.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"sft": {"sft", "--model", shipped("midi"), "--data", data, "--lora", "r=4,alpha=8", "--steps", "60", "--batch", "4",
			"--lr", "1e-3", "--save-every", "3", "-q"},
		"grpo": {"grpo", "--model", shipped("midi"), "--task", "scan", "--lora", "r=4,alpha=8", "--steps", "24", "--prompts", "3",
			"--samples", "4", "--max-tokens", "12", "--lr", "1e-3", "--save-every", "2", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			whole, killed := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "killed")
			begin := time.Now()
			if _, errs, code := r2(t, "", append(args, "--out", whole)...); code != 0 {
				t.Fatalf("exit %d: %s", code, errs)
			}
			took := time.Since(begin)
			seed := rand.Uint64()
			t.Logf("seed %d; a whole run takes %v", seed, took)
			rng := rand.New(rand.NewPCG(seed, 0))
			for range 5 {
				cmd := exec.Command(binary, append(args, "--out", killed)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rng.Float64() * 0.7 * float64(took)))
				cmd.Process.Kill()
				cmd.Wait()
			}
			if _, errs, code := r2(t, "", append(args, "--out", killed)...); code != 0 {
				t.Fatalf("going on: exit %d: %s", code, errs)
			}
			compareRuns(t, whole, killed)
		})
	}
}

func compareRuns(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{"adapter/adapter_model.safetensors", "adapter/adapter_config.json"} {
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(got, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from that of a run that was not killed (%v)", name, err)
		}
	}
	a, b := metrics(t, want), metrics(t, got)
	if len(a) == 0 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("metrics differ:\n%v\n%v", a, b)
	}
	if left, err := filepath.Glob(filepath.Join(got, "checkpoints", ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// metrics are the rows of a run without their times.
func metrics(t *testing.T, dir string) (rows []map[string]any) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var row map[string]any
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		for k := range row {
			if strings.HasPrefix(k, "seconds") {
				delete(row, k)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// A run's directory is refused by a command with other settings, which says what differs.
func TestOtherSettings(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data.jsonl")
	if err := os.WriteFile(data, []byte(`{"prompt":"walk","completion":" I_WALK"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"sft", "--model", shipped("mini"), "--data", data, "--steps", "1", "-q", "--out", filepath.Join(t.TempDir(), "run")}
	if _, errs, code := r2(t, "", append(args, "--lr", "1e-3")...); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	_, errs, code := r2(t, "", append(args, "--lr", "2e-3")...)
	if code != 1 || !strings.Contains(errs, "lr 0.001") || !strings.Contains(errs, "0.002") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
