package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A run's directory says how the run went: the best checkpoint by the rows of metrics.jsonl, which
// outlives --keep; a report with the curves there are; TensorBoard's file with an event a step, also
// when the run was taken up again.
func TestRunFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	args := []string{"grpo", "--model", shipped("midi"), "--task", "scan", "--lora", "r=4,alpha=8", "--steps", "12", "--prompts", "3",
		"--samples", "4", "--max-tokens", "12", "--temperature", "2", "--lr", "1e-2", "--save-every", "2", "--keep", "1", "-q", "--out", dir}
	for range 2 { // the second goes on after the last step, and must change nothing
		if _, errs, code := r2(t, "", args...); code != 0 {
			t.Fatal(errs)
		}
		best, value := 0, -1.0
		rows := metrics(t, dir)
		for _, row := range rows {
			if step, v := int(row["step"].(float64)), row["reward_mean"].(float64); step%2 == 0 && v > value {
				best, value = step, v
			}
		}
		var state struct {
			Step int     `json:"step"`
			Best int     `json:"best_step"`
			V    float64 `json:"best_value"`
		}
		b, err := os.ReadFile(filepath.Join(dir, "state.json"))
		if err == nil {
			err = json.Unmarshal(b, &state)
		}
		if err != nil || state.Step != 12 || state.Best != best || state.V != value {
			t.Errorf("state %+v %v; the best is step %d with %v", state, err, best, value)
		}
		if at, err := os.Readlink(filepath.Join(dir, "checkpoints", "best")); err != nil || at != strconv.Itoa(best) {
			t.Errorf("best points to %s %v, want %d", at, err, best)
		}
		for _, args := range [][]string{{"inspect", filepath.Join(dir, "checkpoints", "best")}, {"inspect", dir}} {
			if out, errs, code := r2(t, "", args...); code != 0 || !strings.Contains(out, "hash right") {
				t.Errorf("%v: exit %d: %s %s", args, code, out, errs)
			}
		}
		page, err := os.ReadFile(filepath.Join(dir, "report.html"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{"Loss", "Reward", "KL", "Length", "Clip share", "Zero variance", "Gradient norm", "Parity", "Speed"} {
			if !bytes.Contains(page, []byte("<h2>"+c+"</h2>")) {
				t.Errorf("the report has no %s", c)
			}
		}
		if n := bytes.Count(page, []byte("<svg")); n < 9 || bytes.Contains(page, []byte("NaN")) {
			t.Errorf("the report has %d plots", n)
		}
		files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v %v", files, err)
		}
		if n := records(t, files[0]); n != 1+len(rows) {
			t.Errorf("%d records of events for %d steps", n, len(rows))
		}
	}
}

// records counts the records of an event file, each whole.
func records(t *testing.T, path string) (n int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(b) > 0; n++ {
		size := 0
		if len(b) >= 16 {
			size = int(b[0]) | int(b[1])<<8 | int(b[2])<<16 // its length, little-endian
		}
		if size < 1 || len(b) < size+16 {
			t.Fatalf("%s: record %d is cut short", path, n)
		}
		b = b[size+16:]
	}
	return n
}

// --eval-data decides which checkpoint of sft is the best: the one of the lowest loss on it.
func TestBestByEvalLoss(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	other := writeRows(t, `{"prompt":"jump","completion":" I_JUMP I_JUMP"}`)
	args := sftArgs(t, "--eval-data", other, "--lr", "3e-2", "--out", dir)
	if _, errs, code := r2(t, "", args...); code != 0 {
		t.Fatal(errs)
	}
	best, low := "", 0.0
	for _, row := range metrics(t, dir) {
		if v, ok := row["eval_loss"].(float64); ok && (best == "" || v < low) {
			best, low = fmt.Sprint(row["step"]), v
		}
	}
	if at, err := os.Readlink(filepath.Join(dir, "checkpoints", "best")); err != nil || at != best {
		t.Errorf("best points to %s %v, want %s", at, err, best)
	}
	gone := func(name string, args []string) {
		t.Helper()
		if _, errs, code := r2(t, "", args...); code != 1 || !strings.Contains(errs, "holds a run with "+name+" ") {
			t.Errorf("gone on with other rows to evaluate on: exit %d, %q, want one about %s", code, errs, name)
		}
	}
	at := slices.Index(args, "--eval-data")
	gone("eval_data", slices.Delete(slices.Clone(args), at, at+2))
	if err := os.WriteFile(other, []byte(`{"prompt":"run","completion":" I_RUN"}`+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	gone("eval_data_sha256", args)
}
