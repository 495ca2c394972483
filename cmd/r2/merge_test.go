package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// A merged model gives, without the adapter, the log-probabilities PyTorch gives with it.
func TestGoldenMerge(t *testing.T) {
	dir := modeltest.Shared(t, "goldens", "qwen2_f32")
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	f, err := weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	worst := 0.0
	for _, a := range []string{"adapter_all", "adapter_attn", "adapter_rank_pattern"} {
		out := filepath.Join(t.TempDir(), "merged")
		if _, errs, code := r2(t, "", "merge", "--model", dir, "--adapter", filepath.Join(dir, a), "--out", out, "-q"); code != 0 {
			t.Fatalf("%s: exit %d: %s", a, code, errs)
		}
		worst = max(worst, scoreGolden(t, out, &g, f, a+".", nil))
	}
	t.Logf("worst error of a log-probability %.1e", worst)
	if !(worst < 1e-4) {
		t.Errorf("worst error of a log-probability %.1e", worst)
	}
}

// Merging keeps names, types, tokenizer and configuration, changes just the adapter's modules, and writes
// nothing where it must refuse.
func TestMergeKeepsTheRest(t *testing.T) {
	out, run := filepath.Join(t.TempDir(), "merged"), filepath.Join(t.TempDir(), "run")
	args := sftArgs(t, "--lora", "r=4,alpha=8,targets=q_proj+down_proj", "--out", run)
	if _, errs, code := r2(t, "", args...); code != 0 {
		t.Fatal(errs)
	}
	adapter := filepath.Join(run, "adapter")
	if _, errs, code := r2(t, "", "merge", "--model", shipped("midi"), "--adapter", adapter, "--out", out, "-q"); code != 0 {
		t.Fatal(errs)
	}
	base, err := weights.Open(shipped("midi"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	got, err := weights.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if !slices.Equal(base.Names(), got.Names()) {
		t.Fatalf("%v, want %v", got.Names(), base.Names())
	}
	for _, name := range base.Names() {
		a, _ := base.Tensor(name)
		b, _ := got.Tensor(name)
		changed := strings.Contains(name, "q_proj.weight") || strings.Contains(name, "down_proj.weight")
		if a.Type != b.Type || !slices.Equal(a.Shape, b.Shape) || slices.Equal(a.Data, b.Data) == changed {
			t.Errorf("%s: %v %v, was %v %v; changed %v, want %v", name, b.Type, b.Shape, a.Type, a.Shape, !slices.Equal(a.Data, b.Data), changed)
		}
	}
	for _, name := range []string{"config.json", "tokenizer.json"} {
		a, _ := os.ReadFile(filepath.Join(shipped("midi"), name))
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || string(a) != string(b) {
			t.Errorf("%s is not the base's: %v", name, err)
		}
	}
	if _, errs, code := r2(t, "", "merge", "--model", shipped("midi"), "--adapter", adapter, "--out", out); code != 1 || !strings.Contains(errs, "there already") {
		t.Errorf("exit %d: %s", code, errs)
	}
	other := filepath.Join(t.TempDir(), "other")
	if _, errs, code := r2(t, "", "merge", "--model", shipped("mini"), "--adapter", adapter, "--out", other); code != 1 || !strings.Contains(errs, "adapter") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("something was written")
	}
}
