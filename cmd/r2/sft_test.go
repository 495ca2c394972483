package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// goldenSFT is what golden.json holds of fine-tuning.
type goldenSFT struct {
	Batch []struct {
		IDs    []int32 `json:"ids"`
		Prompt int     `json:"prompt_len"`
	} `json:"batch"`
	AdamW struct {
		LR      float64    `json:"lr"`
		Betas   [2]float64 `json:"betas"`
		Eps     float64    `json:"eps"`
		Decay   float64    `json:"weight_decay"`
		Clip    float64    `json:"clip_grad_norm"`
		Steps   int        `json:"steps"`
		PerStep []struct {
			Loss float64 `json:"loss"`
			Norm float64 `json:"grad_norm"`
		} `json:"per_step"`
	} `json:"adamw"`
	Full struct {
		Loss float64 `json:"loss"`
		Norm float64 `json:"grad_norm"`
	} `json:"full_weights"`
}

// readSFT reads it, and writes its batch as a file of rows.
func readSFT(t *testing.T, dir string) (g goldenSFT, file string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err == nil {
		err = json.Unmarshal(b, &struct {
			SFT *goldenSFT `json:"sft"`
		}{&g})
	}
	if err != nil {
		t.Fatal(err)
	}
	var data strings.Builder
	for _, s := range g.Batch {
		mask := make([]int, len(s.IDs))
		for i := s.Prompt; i < len(mask); i++ {
			mask[i] = 1
		}
		row, err := json.Marshal(map[string]any{"tokens": s.IDs, "mask": mask})
		if err != nil {
			t.Fatal(err)
		}
		data.Write(append(row, '\n'))
	}
	file = filepath.Join(t.TempDir(), "data.jsonl")
	if err := os.WriteFile(file, []byte(data.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return g, file
}

// r2 sft from the golden adapter, with PyTorch's settings, takes PyTorch's five steps: losses, norms,
// and the adapter it writes.
func TestGoldenSFT(t *testing.T) {
	for _, name := range []string{"qwen2_f32", "qwen2_tied_bf16_sharded", "llama_rope3", "qwen3", "llama_plain"} {
		t.Run(name, func(t *testing.T) {
			dir := modeltest.Shared(t, "goldens", name)
			g, file := readSFT(t, dir)
			out := t.TempDir()
			a := g.AdamW
			rows := lines[sftRow](t, "", "sft", "--model", dir, "--init-adapter", filepath.Join(dir, "adapter_all"), "--data", file,
				"--batch", fmt.Sprint(len(g.Batch)), "--no-shuffle", "--steps", fmt.Sprint(a.Steps), "--lr", fmt.Sprint(a.LR),
				"--betas", fmt.Sprintf("%v,%v", a.Betas[0], a.Betas[1]), "--eps", fmt.Sprint(a.Eps),
				"--weight-decay", fmt.Sprint(a.Decay), "--clip", fmt.Sprint(a.Clip), "--out", out, "--json", "-q")
			if len(rows) != len(a.PerStep) || len(rows) == 0 {
				t.Fatalf("%d steps, want %d", len(rows), len(a.PerStep))
			}
			for i, want := range a.PerStep {
				if d := math.Abs(rows[i].Loss - want.Loss); !(d < 1e-4) {
					t.Errorf("step %d: loss %v, want %v", i+1, rows[i].Loss, want.Loss)
				}
				if d := math.Abs(rows[i].GradNorm-want.Norm) / want.Norm; !(d < 1e-4) {
					t.Errorf("step %d: norm %v, want %v", i+1, rows[i].GradNorm, want.Norm)
				}
			}
			far, worst := compareFinal(t, dir, filepath.Join(out, "adapter", "adapter_model.safetensors"))
			t.Logf("final adapter: %d entries differ by more than 1e-5, the worst by %.1e", far, worst)
			if far > 40 { // Adam moves an entry with a gradient near zero either way: README of the goldens
				t.Errorf("final adapter: %d entries differ by more than 1e-5, the worst by %.1e", far, worst)
			}
		})
	}
}

func compareFinal(t *testing.T, dir, adapter string) (far int, worst float64) {
	t.Helper()
	got, err := weights.OpenSafetensors(adapter)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want, err := weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, name := range got.Names() {
		a, err := got.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Tensor("sft.final." + name)
		if err != nil {
			t.Fatal(err)
		}
		bs := b.Float64(nil)
		for i, x := range a.Float64(nil) {
			d := math.Abs(x - bs[i])
			worst = max(worst, d)
			if d > 1e-5 {
				far++
			}
		}
	}
	return far, worst
}

// A step on all weights has PyTorch's loss and the norm of its gradient, with a head of its own (qwen2_f32) and with
// one tied to the embedding (qwen3), whatever the passes a step is cut into.
func TestGoldenFullSFT(t *testing.T) {
	for _, name := range []string{"qwen2_f32", "qwen3"} {
		dir := modeltest.Shared(t, "goldens", name)
		g, file := readSFT(t, dir)
		for _, micro := range []string{"1", "4096"} {
			row := lines[sftRow](t, "", "sft", "--full", "--model", dir, "--data", file, "--batch", fmt.Sprint(len(g.Batch)), "--no-shuffle", "--steps", "1",
				"--micro-tokens", micro, "--lr", "1e-3", "--out", t.TempDir(), "--json", "-q")[0]
			if d := math.Abs(row.Loss - g.Full.Loss); !(d < 1e-4) || !(math.Abs(row.GradNorm-g.Full.Norm)/g.Full.Norm < 1e-4) {
				t.Errorf("%s: loss %v, norm %v; want %v, %v", name, row.Loss, row.GradNorm, g.Full.Loss, g.Full.Norm)
			}
		}
	}
}
