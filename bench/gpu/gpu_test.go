package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/bench/predict"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/tokenizer"
	"github.com/r2-reasoner/r2/weights"
)

// A written model is one that the program loads: several shards, the same for the same seed, and with a
// tokenizer of bytes.
func TestWriteModel(t *testing.T) {
	var dirs []string
	for i, seed := range []uint64{1, 1, 2} {
		dir := filepath.Join(t.TempDir(), "m")
		if err := writeModel(options{shape: "tiny", seed: seed}, []string{dir}); err != nil {
			t.Fatal(i, err)
		}
		dirs = append(dirs, dir)
	}
	shards, err := filepath.Glob(filepath.Join(dirs[0], "*.safetensors"))
	if err != nil || len(shards) < 2 {
		t.Fatalf("the shards are %v (%v)", shards, err)
	}
	for _, path := range shards {
		var b [3][]byte
		for i, dir := range dirs {
			if b[i], err = os.ReadFile(filepath.Join(dir, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
		}
		if string(b[0]) != string(b[1]) || string(b[0]) == string(b[2]) {
			t.Errorf("%s is not the seed's", filepath.Base(path))
		}
	}
	m, err := weights.Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := model.Load(cpu.New(1), m.Config, m, model.Options{}); err != nil {
		t.Error(err)
	}
	w, err := m.Tensor("model.layers.0.mlp.up_proj.weight")
	if err != nil || w.Type != weights.BF16 {
		t.Errorf("a matrix is %v (%v)", w.Type, err)
	}
	tok, err := tokenizer.Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	const text = "Über 7 Äpfel\n"
	ids := tok.Encode(text, false)
	if len(ids) != len(text) || tok.Decode(ids, false) != text {
		t.Errorf("%q is %v, and back %q", text, ids, tok.Decode(ids, false))
	}
	for i, id := range ids {
		if id != int32(text[i]) {
			t.Errorf("byte %d is id %d", text[i], id)
		}
	}
}

func TestTable(t *testing.T) {
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows")
	o := options{rows: rows}
	want := bench.Row{Bench: "device", Case: "copy", Unit: "GB/s", Reached: 3000, Bound: 4000, Share: 0.75}
	if err := o.add(want); err != nil {
		t.Fatal(err)
	}
	if err := o.add(want, want); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.json")
	if err := table(options{}, []string{rows, out}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	var got []bench.Row
	if err != nil || json.Unmarshal(b, &got) != nil || len(got) != 3 || got[2].Reached != 3000 {
		t.Errorf("the file holds %s (%v)", b, err)
	}
	if err := os.WriteFile(rows, []byte("no row\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := table(options{}, []string{rows, out}); err == nil || !strings.Contains(err.Error(), "no row") {
		t.Errorf("a line that is no result: %v", err)
	}
}

// Each command runs on the simulator, but those that need what it has not.
func TestCommands(t *testing.T) {
	o := options{device: "ptxsim", rows: filepath.Join(t.TempDir(), "rows"), shape: "tiny", seed: 1, sizes: "16", cublas: "libcublas.so.12"}
	if err := device(o, nil); err != nil {
		t.Error(err)
	}
	if err := wrappers(o, []string{filepath.Join(t.TempDir(), "w.json.gz")}); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(o.rows)
	if n := strings.Count(string(b), "\n"); n != 2 || err != nil {
		t.Errorf("%d results were added, want 2 (%v)", n, err)
	}
	o.device = "cuda:x"
	if err := device(o, nil); err == nil || !strings.Contains(err.Error(), "want cuda, cuda:N or ptxsim") {
		t.Errorf("a device that is none: %v", err)
	}
	o.shape = "huge"
	if err := writeModel(o, []string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), "huge") {
		t.Errorf("a shape that is none: %v", err)
	}
}

// Each kind of work is measured on a tiny model.
func TestWorks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	o := options{shape: "tiny", seed: 1, device: "ptxsim"}
	if err := writeModel(o, []string{dir}); err != nil {
		t.Fatal(err)
	}
	files, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	d, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	be, err := cuda.On(d, cuda.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &measured{be: be, rank: 2, few: true}
	if m.dec, err = model.Load(be, files.Config, files, model.Options{Context: 64}); err != nil {
		t.Fatal(err)
	}
	done := map[string]bool{}
	for _, w := range predict.Works {
		if done[w.Kind] && (w.Kind != predict.Step || w.Rank == 0) {
			continue
		}
		done[w.Kind] = true
		if took, err := m.measure(small(w)); err != nil || took == 0 {
			t.Errorf("%s: %v, %v", w.Case, took, err)
		}
	}
	if err := works(options{acts: "f16"}, []string{dir}); err == nil || !strings.Contains(err.Error(), "want f32 or bf16") {
		t.Errorf("activations that are none: %v", err)
	}
}
