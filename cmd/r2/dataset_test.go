package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func writeRows(t *testing.T, rows ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// A dataset gives each row by its place in the files: what stands there, however lines end.
func TestDataset(t *testing.T) {
	a := writeRows(t, `{"tokens":[1,2]}`, ``, `  {"tokens":[3,4,5]} `+"\r", `{"tokens":[9,99]}`, `{"tokens":`, `{"tokens":[6,7]}`)
	b := writeRows(t, `{"tokens":[1,1,1,1,1,1]}`, `{"tokens":[8,9]}`)
	v := &vocabulary{size: 50}
	d, err := openDataset(v, []string{a, b}, 5, dataFlags{SkipBad: true, Long: "drop"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.bad != 2 || d.long != 1 || d.longest != 3 || !strings.HasPrefix(d.first.Error(), a+":4: ") {
		t.Errorf("%d bad (%v), %d long, longest %d", d.bad, d.first, d.long, d.longest)
	}
	rows, names, err := d.read([]int{3, 1, 0, 2})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for i, r := range rows {
		got += fmt.Sprint(strings.TrimPrefix(strings.TrimPrefix(names[i], a), b), r.Tokens)
	}
	if want := ":2[8 9]:3[3 4 5]:1[1 2]:6[6 7]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	both, err := hashFiles([]string{a, b})
	if err != nil || d.hash != both {
		t.Errorf("hash %s, want %s %v", d.hash, both, err)
	}
	for want, f := range map[string]dataFlags{":4: ": {Long: "drop"}, ":1: 6 tokens do not fit into the context of 5": {SkipBad: true, Long: "error"}} {
		if _, err := openDataset(v, []string{a, b}, 5, f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := openDataset(v, []string{writeRows(t, `{`)}, 5, dataFlags{SkipBad: true}); err == nil || !strings.Contains(err.Error(), "all 1 rows were left out") {
		t.Error(err)
	}
	if err := os.WriteFile(b, []byte(strings.Repeat("x", 100)), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.read([]int{3}); err == nil || !strings.Contains(err.Error(), b+":2") || !strings.Contains(err.Error(), "changed") {
		t.Errorf("a file that was changed: %v", err)
	}
}

// Both commands leave out what they are told to, and say how much; a group of bad rows is no run.
func TestRowsLeftOut(t *testing.T) {
	long := strings.Repeat("walk ", 600)
	file := writeRows(t, `{"prompt":"walk","completion":" I_WALK","answer":"I_WALK"}`, `{"prompt":`,
		fmt.Sprintf(`{"prompt":%q,"completion":" I_WALK","answer":"x"}`, long))
	out := filepath.Join(t.TempDir(), "run")
	for _, command := range [][]string{
		{"sft", "--steps", "1"}, {"grpo", "--task", "scan", "--steps", "1", "--prompts", "1", "--samples", "2", "--max-tokens", "4"},
	} {
		args := append(command, "--model", shipped("mini"), "--data", file, "--out", out+command[0])
		_, errs, code := r2(t, "", args...)
		if code != 1 || !strings.Contains(errs, file+":2: ") {
			t.Errorf("exit %d: %s", code, errs)
		}
		_, errs, code = r2(t, "", append(args, "--skip-bad")...)
		if code != 1 || !strings.Contains(errs, file+":3: ") || !strings.Contains(errs, "do not fit") {
			t.Errorf("exit %d: %s", code, errs)
		}
		_, errs, code = r2(t, "", append(args, "--skip-bad", "--long", "drop")...)
		if code != 0 || !strings.Contains(errs, "1 rows left out that cannot be read") || !strings.Contains(errs, "1 rows left out that are longer") {
			t.Errorf("exit %d: %s", code, errs)
		}
	}
}

// A step whose numbers are not finite ends the run, says where it was and which rows it had, and leaves
// the directory as it was before.
func TestNotFinite(t *testing.T) {
	data := writeRows(t, `{"prompt":"walk","completion":" I_WALK"}`, `{"prompt":"look","completion":" I_LOOK"}`)
	out := filepath.Join(t.TempDir(), "run")
	args := []string{"sft", "--model", shipped("midi"), "--data", data, "--batch", "1", "--no-shuffle", "--lr", "1e25", "--schedule", "constant",
		"--steps", "6", "--save-every", "1", "-q", "--out", out}
	_, errs, code := r2(t, "", args...)
	if code != 1 || !strings.Contains(errs, "not finite") || !strings.Contains(errs, "layers.") && !strings.Contains(errs, "layer ") ||
		!strings.Contains(errs, "step 1: ") || !strings.Contains(errs, data+":1") {
		t.Errorf("exit %d: %s", code, errs)
	}
	for _, name := range []string{"adapter", "checkpoints"} {
		if _, err := os.Stat(filepath.Join(out, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// A file is not held in memory: 64 MB of rows are checked and read from with a heap that hardly grows.
func TestDatasetIsNotHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const count = 64
	line := append(bytes.Repeat([]byte(" "), 1<<20), '\n') // most of a row is no part of its JSON, so that it is quick to read
	for i := range count {
		copy(line, fmt.Sprintf(`{"tokens":[1,%d]}`, i))
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d, err := openDataset(&vocabulary{size: count}, []string{path}, 5, dataFlags{Long: "error"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range count {
		if rows, _, err := d.read([]int{i}); err != nil || rows[0].Tokens[1] != int32(i) {
			t.Fatalf("row %d: %v %v", i, rows, err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > count<<20/2 {
		t.Errorf("%d MiB of rows took %d MiB of heap", count, grown>>20)
	}
}
