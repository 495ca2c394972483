package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/train/grpo"
)

// judged is a short run whose rewards come from a line of shell.
func judged(t *testing.T, out, judge string, more ...string) []string {
	data := writeRows(t, `{"prompt":"walk"}`, `{"prompt":"look"}`)
	return append([]string{"grpo", "--model", shipped("midi"), "--data", data, "--reward-cmd", judge, "--steps", "2", "--prompts", "2",
		"--samples", "2", "--max-tokens", "4", "-q", "--out", out}, more...)
}

// each answers every completion with a line.
func each(line string) string { return "while read l; do echo '" + line + "'; done" }

// A reward that is no number, is missing or is one of the wrong count ends the run with one line that says so and
// names the rows; nothing is trained on.
func TestRewardsThatAreNone(t *testing.T) {
	for name, c := range map[string]struct{ judge, want string }{
		"NaN":          {each(`{"reward": NaN}`), "output line 1"},
		"infinite":     {each(`{"reward": 1e300}`), "too large"},
		"a string":     {each(`{"reward": "1"}`), "output line 1"},
		"missing":      {each(`{}`), `expected {"reward": NUMBER}`},
		"null":         {each(`{"reward": null}`), `expected {"reward": NUMBER}`},
		"too few":      {`read l; echo '{"reward": 1}'`, "1 lines of output for 4 completions"},
		"too many":     {each(`{"reward": 1}`) + "; echo x", "5 lines of output for 4 completions"},
		"exit 3":       {"echo out of paper >&2; exit 3", "exit status 3: out of paper"},
		"none of them": {each(`{"error": "no opinion"}`), "no reward could be computed of all 4; the first: no opinion"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			_, errs, code := r2(t, "", judged(t, out, c.judge)...)
			if code != 1 || !strings.Contains(errs, "step 1: ") || !strings.Contains(errs, c.want) || !strings.Contains(errs, "rows.jsonl:1") || strings.Count(errs, "\n") != 1 {
				t.Errorf("exit %d: %s; want %q", code, errs, c.want)
			}
			if rows := metrics(t, out); len(rows) > 0 {
				t.Errorf("%d rows of metrics", len(rows))
			}
		})
	}
}

// When no reward of a step could be computed, they are asked for again by the run that goes on.
func TestNoRewardIsAskedForAgain(t *testing.T) {
	dir := t.TempDir()
	awake := filepath.Join(dir, "awake")
	args := judged(t, filepath.Join(dir, "run"), `while read l; do if [ -e `+awake+` ]; then echo '{"reward": 1}'; else echo '{"error": "asleep"}'; fi; done`)
	if _, errs, code := r2(t, "", args...); code != 1 || !strings.Contains(errs, "asleep") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if err := os.WriteFile(awake, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := r2(t, "", args...); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if rows := journalRows(t, filepath.Join(dir, "run"), "rewards"); len(rows) != 8 {
		t.Errorf("%d rewards in the journal of 2 steps of 4", len(rows))
	}
}

// Any difference between sampler and trainer stops a run, unless it is allowed.
func TestMismatchStops(t *testing.T) {
	run := &grpoRun{c: &grpoCmd{}, take: func(context.Context, int, float32) (grpo.Stats, error) { return grpo.Stats{Parity: 1e-30}, nil }}
	if _, err := run.step(t.Context(), 4); err == nil || !strings.Contains(err.Error(), "step 5") || !strings.Contains(err.Error(), "1e-30") {
		t.Errorf("error %v", err)
	}
	run.c.AllowMismatch = true
	if row, err := run.step(t.Context(), 4); err != nil || row.Parity != 1e-30 {
		t.Errorf("%+v %v", row, err)
	}
}

// Rollouts are drawn from the policy itself: what a model says about sampling changes nothing, and there is no
// flag to cut the distribution.
func TestRolloutsAreDrawnFromThePolicy(t *testing.T) {
	plain := shipped("midi")
	greedy := damaged(t, "midi", func(dir string) {
		text := `{"do_sample":true,"temperature":0.1,"top_k":1,"top_p":0.1,"repetition_penalty":1.5,"eos_token_id":0}`
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	})
	var got []string
	for _, model := range []string{plain, greedy} {
		out := filepath.Join(t.TempDir(), "run")
		args := []string{"grpo", "--model", model, "--task", "scan", "--steps", "3", "--prompts", "2", "--samples", "4", "--max-tokens", "8", "--lr", "1e-3", "-q", "--out", out}
		if _, errs, code := r2(t, "", args...); code != 0 {
			t.Fatal(errs)
		}
		got = append(got, fmt.Sprint(metrics(t, out)))
		for _, flag := range []string{"--top-k", "--top-p", "--min-p"} {
			if _, errs, code := r2(t, "", append(args, flag, "1")...); code != 2 || !strings.Contains(errs, flag) {
				t.Errorf("%s: exit %d: %s", flag, code, errs)
			}
		}
	}
	if got[0] != got[1] {
		t.Errorf("sampling defaults of the model change a run:\n%s\n%s", got[0], got[1])
	}
}

// The divergence is measured from the adapter that training begins from, where it is 0 at first, or from the
// base, which that adapter has left already.
func TestReferencePolicy(t *testing.T) {
	begin := filepath.Join(t.TempDir(), "begin")
	if _, errs, code := r2(t, "", sftArgs(t, "--out", begin)...); code != 0 {
		t.Fatal(errs)
	}
	kl := map[string]float64{}
	for _, ref := range []string{"start", "base"} {
		out := filepath.Join(t.TempDir(), "run")
		_, errs, code := r2(t, "", judged(t, out, `i=0; while read l; do i=$((i+1)); echo "{\"reward\": $i}"; done`,
			"--init-adapter", filepath.Join(begin, "adapter"), "--kl-ref", ref, "--lr", "1e-2")...)
		if code != 0 {
			t.Fatal(errs)
		}
		rows := metrics(t, out)
		kl[ref] = rows[0]["kl"].(float64)
		if rows[1]["kl"].(float64) <= 0 {
			t.Errorf("%s: a divergence of %v after a step", ref, rows[1]["kl"])
		}
	}
	if kl["start"] != 0 || !(kl["base"] > 0) {
		t.Errorf("divergence at the first step: %v", kl)
	}
}
