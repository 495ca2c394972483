package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kills is how many processes are killed in all: 5 a command, or R2_KILLS (make soak).
func kills(t *testing.T) int {
	n := 5
	if s := os.Getenv("R2_KILLS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// trainingRows are a small file of conversations, and of prompts with answers.
func trainingRows(t *testing.T) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data.jsonl")
	var rows strings.Builder
	for i, w := range []string{"walk", "look", "run", "jump", "walk left", "look right", "run twice", "jump thrice", "turn left"} {
		fmt.Fprintf(&rows, `{"messages":[{"role":"user","content":%q},{"role":"assistant","content":" I_WALK"}],"n":%d}`+"\n", w, i)
	}
	if err := os.WriteFile(data, []byte(rows.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return data
}

// A grader is a server of rewards that takes its time.
type grader struct {
	url         string
	asked, busy atomic.Int32
}

// newGrader rewards by a hash of the completion, so that groups differ; every seventh has no reward.
func newGrader(t *testing.T, delay time.Duration) *grader {
	g := &grader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		g.busy.Add(1)
		defer g.busy.Add(-1)
		time.Sleep(delay)
		for sc := bufio.NewScanner(r.Body); sc.Scan(); {
			h := fnv.New32a()
			h.Write(sc.Bytes())
			if h.Sum32()%7 == 0 {
				fmt.Fprintln(w, `{"error":"no opinion"}`)
			} else {
				fmt.Fprintf(w, "{\"reward\":%v}\n", float64(h.Sum32()%100)/100)
			}
		}
	}))
	t.Cleanup(s.Close)
	g.url = s.URL
	return g
}

// A run that is killed (SIGKILL) again and again and taken up by the same command ends with the bytes
// of one that was never killed: the adapter, the optimizer's state, every row of metrics and of the
// journal but for their times. Rewards that are in the journal are not asked for again.
func TestKilledRunsGoOn(t *testing.T) {
	data := trainingRows(t)
	g := newGrader(t, 15*time.Millisecond)
	prompts := filepath.Join(t.TempDir(), "prompts.jsonl")
	if err := os.WriteFile(prompts, []byte("{\"prompt\":\"walk\",\"n\":1}\n{\"prompt\":\"look left\"}\n{\"prompt\":\"jump twice\"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"sft", []string{"sft", "--model", shipped("midi"), "--data", data, "--eval-data", data, "--lora", "r=4,alpha=8", "--steps", "60", "--batch", "4",
			"--lr", "1e-3", "--save-every", "3", "-q"}},
		{"grpo", []string{"grpo", "--model", shipped("midi"), "--task", "scan", "--lora", "r=4,alpha=8", "--steps", "24", "--prompts", "3",
			"--samples", "4", "--max-tokens", "12", "--lr", "1e-3", "--save-every", "2", "-q"}},
		{"grpo by HTTP", []string{"grpo", "--model", shipped("midi"), "--data", prompts, "--reward-url", g.url, "--lora", "r=4,alpha=8", "--steps", "20",
			"--prompts", "3", "--samples", "4", "--max-tokens", "12", "--lr", "1e-3", "--updates", "2", "--save-every", "3", "-q"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			killAndCompare(t, g, c.args, func(t *testing.T, _, killed string) int { return len(journalRows(t, killed, "exchanges")) }, 1)
		})
	}
}

// killAndCompare kills runs of a command and takes them up again, and compares each with one that was left
// alone. Of what g was asked, answered gives how much a run has kept; at most atOnce more for each kill may
// have been asked for again.
func killAndCompare(t *testing.T, g *grader, args []string, answered func(t *testing.T, whole, killed string) int, atOnce int) {
	whole := filepath.Join(t.TempDir(), "whole")
	begin := time.Now()
	if _, errs, code := r2(t, "", append(args, "--out", whole)...); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	k := &killer{g: g, args: args, took: time.Since(begin), phases: map[string]int{}}
	seed := rand.Uint64()
	k.rng = rand.New(rand.NewPCG(seed, 0))
	for want := kills(t); k.done < want && !t.Failed(); {
		killed := filepath.Join(t.TempDir(), "killed")
		before, round := g.asked.Load(), k.done
		for range 5 {
			k.kill(t, killed)
		}
		if _, errs, code := r2(t, "", append(args, "--out", killed)...); code != 0 {
			t.Fatalf("seed %d: going on: exit %d: %s", seed, code, errs)
		}
		compareRuns(t, whole, killed)
		if again := int(g.asked.Load()-before) - answered(t, whole, killed); again > atOnce*(k.done-round) {
			t.Errorf("%d answers were asked for again after %d kills", again, k.done-round)
		}
		os.RemoveAll(killed)
	}
	t.Logf("seed %d; a whole run takes %v; %d kills, while %v", seed, k.took, k.done, k.phases)
}

// A killer kills runs and notes what they were at.
type killer struct {
	g      *grader
	args   []string
	took   time.Duration
	rng    *rand.Rand
	done   int
	phases map[string]int // of the killed; "over": came to its end before
}

func (k *killer) kill(t *testing.T, dir string) {
	cmd := exec.Command(binary, append(k.args, "--out", dir)...)
	before := torn(dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(k.rng.Float64() * 0.5 * float64(k.took)))
	cmd.Process.Kill()
	busy := k.g.busy.Load() > 0
	cmd.Wait()
	if cmd.ProcessState.Exited() {
		k.phases["over"]++
		return
	}
	k.done++
	writing := slices.ContainsFunc(torn(dir), func(name string) bool { return !slices.Contains(before, name) })
	k.phases[phase(t, dir, busy, writing)]++
}

// torn are the files of a run that were being written when it was killed.
func torn(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, ".*"))
	more, _ := filepath.Glob(filepath.Join(dir, "checkpoints", ".*"))
	return append(names, more...)
}

// phase tells from its files what a killed run was at.
func phase(t *testing.T, dir string, busy, writing bool) string {
	rows, err := (&runDir{path: dir}).rows()
	if err != nil || len(rows) == 0 {
		if writing {
			return "writing files"
		}
		return "starting"
	}
	last := rows[len(rows)-1].values["step"]
	switch js := journalRows(t, dir, "rewards"); {
	case writing:
		return "writing files"
	case busy:
		return "asking over HTTP"
	case len(js) > 0 && js[len(js)-1]["step"].(int64) >= int64(last):
		return "updating"
	case len(js) > 0:
		return "sampling or going on"
	}
	return "training"
}

// journalRows are the rows of a table of a run's journal without their times; none without a journal.
func journalRows(t *testing.T, dir, table string) []map[string]any {
	t.Helper()
	return tableRows(t, filepath.Join(dir, "journal.db"), table)
}

func tableRows(t *testing.T, path, table string) (out []map[string]any) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT * FROM " + table)
	if err != nil {
		return nil // killed before it had tables
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, at := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			at[i] = &values[i]
		}
		if err := rows.Scan(at...); err != nil {
			t.Fatal(err)
		}
		row := map[string]any{}
		for i, name := range names {
			if name != "seconds" && name != "at" {
				row[name] = values[i]
			}
		}
		out = append(out, row)
	}
	return out
}

func compareRuns(t *testing.T, want, got string) {
	t.Helper()
	names := []string{"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "state.json", "config.yaml"}
	checkpoints, err := filepath.Glob(filepath.Join(want, "checkpoints", "*", "*"))
	if err != nil || len(checkpoints) < 8 {
		t.Fatalf("checkpoints %v %v", checkpoints, err)
	}
	for _, c := range checkpoints {
		name, _ := filepath.Rel(want, c)
		names = append(names, name)
	}
	for _, name := range names {
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
	for _, table := range []string{"rewards", "exchanges"} {
		if d := cmp.Diff(journalRows(t, want, table), journalRows(t, got, table)); d != "" {
			t.Errorf("%s of the journal differ: %.2000s", table, d)
		}
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
	if err := os.Remove(filepath.Join(args[len(args)-1], "config.yaml")); err != nil {
		t.Fatal(err)
	}
	_, errs, code = r2(t, "", append(args, "--lr", "1e-3")...)
	if code != 1 || !strings.Contains(errs, "no config.yaml") {
		t.Errorf("without its configuration: exit %d: %s", code, errs)
	}
}
