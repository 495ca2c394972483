package train_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/sft"
	"github.com/r2-reasoner/r2/weights"
)

// learner trains LoRA pairs or all weights of a tiny model.
func learner(t *testing.T, full bool) *train.Learner {
	t.Helper()
	src := modeltest.Tiny("qwen3", 3)
	d, err := model.Load(cpu.New(2), src.Config, src, model.Options{Train: full, Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	var ad *model.Adapter
	if !full {
		a, err := model.RandomAdapter(src.Config, weights.AdapterConfig{R: 4, Alpha: 8, Targets: weights.Targets{Names: model.Modules()}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if ad, err = d.LoadAdapter(a); err != nil {
			t.Fatal(err)
		}
	}
	l, err := train.New(d, ad, nil, model.Size{Tokens: 256, Sequences: 64, Wanted: 256, Slice: 7},
		train.Optimizer{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 0.01, Clip: 1})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func examples() (ex []sft.Example) {
	for i := range int32(9) {
		e := sft.Example{Prompt: 2}
		for j := range 4 + i%5 {
			e.Tokens = append(e.Tokens, (i*17+j*j*3)%96)
		}
		ex = append(ex, e)
	}
	return ex
}

// saved is every file of a checkpoint after n steps.
func saved(t *testing.T, l *train.Learner, root string) map[string][]byte {
	t.Helper()
	if err := l.Save(root, 2); err != nil {
		t.Fatal(err)
	}
	steps, err := train.Checkpoints(root)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(root, "[0-9]*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	last := filepath.Base(filepath.Dir(files[len(files)-1]))
	for _, f := range files {
		if filepath.Base(filepath.Dir(f)) == last {
			if out[filepath.Base(f)], err = os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(steps) == 0 || len(out) < 3 {
		t.Fatalf("checkpoints %v, files %d", steps, len(out))
	}
	return out
}

func differ(a, b map[string][]byte) string {
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			return name
		}
	}
	return ""
}

func steps(t *testing.T, l *train.Learner, n, micro int) {
	t.Helper()
	for range n {
		if _, err := sft.Step(l, examples(), micro, 1e-2); err != nil {
			t.Fatal(err)
		}
	}
}

// However a step is cut into passes, three steps give the same bits, pairs and all weights alike; and a
// learner that goes on from a checkpoint gives those of one that never stopped.
func TestStepsAreEqualBits(t *testing.T) {
	for _, full := range []bool{false, true} {
		l := learner(t, full)
		steps(t, l, 3, 256)
		want := saved(t, l, t.TempDir())
		for _, micro := range []int{1, 11, 30} {
			l := learner(t, full)
			steps(t, l, 3, micro)
			if name := differ(want, saved(t, l, t.TempDir())); name != "" {
				t.Errorf("full=%v: passes of %d tokens: %s differs", full, micro, name)
			}
		}
		root := t.TempDir()
		first := learner(t, full)
		steps(t, first, 2, 256)
		saved(t, first, root)
		second := learner(t, full)
		if passed, err := second.Resume(root); err != nil || len(passed) > 0 || second.Step != 2 {
			t.Fatalf("resume: step %d, %v, %v", second.Step, passed, err)
		}
		steps(t, second, 1, 256)
		if name := differ(want, saved(t, second, root)); name != "" {
			t.Errorf("full=%v: going on from a checkpoint: %s differs", full, name)
		}
	}
}

// A damaged checkpoint is passed over, and said; the one before it is taken. Only the newest are kept.
func TestDamagedCheckpoint(t *testing.T) {
	root := t.TempDir()
	l := learner(t, false)
	for range 3 {
		steps(t, l, 1, 256)
		if err := l.Save(root, 2); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := train.Checkpoints(root); err != nil || len(s) != 2 || s[0] != 2 || s[1] != 3 {
		t.Fatalf("kept %v, %v", s, err)
	}
	path := filepath.Join(root, "3", "adapter_model.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	again := learner(t, false)
	passed, err := again.Resume(root)
	if err != nil || again.Step != 2 || len(passed) != 1 || !strings.Contains(passed[0].Error(), "adapter_model.safetensors") {
		t.Errorf("step %d, passed over %v, %v", again.Step, passed, err)
	}
}

// A gradient that is not a number is refused with its tensor's name, and nothing is changed.
func TestUpdateRefusesNaN(t *testing.T) {
	for full, names := range map[bool]string{false: ".lora_A.weight is not finite", true: ".weight is not finite"} {
		for _, x := range []float64{math.NaN(), math.Inf(1)} {
			l := learner(t, full)
			steps(t, l, 1, 256)
			before := saved(t, l, t.TempDir())
			if _, err := sft.Step(poisoned{l, float32(x)}, examples(), 256, 1e-2); err == nil || !strings.Contains(err.Error(), "gradient of model.") || !strings.Contains(err.Error(), names) {
				t.Errorf("full=%v: error %v, want one that names a tensor", full, err)
			}
			if name := differ(before, saved(t, l, t.TempDir())); name != "" {
				t.Errorf("full=%v: %s has changed", full, name)
			}
		}
	}
}

// A step that is too large for its weights is refused too, and a learner that goes on from the checkpoint before
// it has the state from before.
func TestUpdateRefusesInfiniteWeights(t *testing.T) {
	for _, full := range []bool{false, true} {
		l, root := learner(t, full), t.TempDir()
		steps(t, l, 1, 256)
		before := saved(t, l, root)
		if _, err := sft.Step(l, examples(), 256, math.MaxFloat32); err == nil || !strings.Contains(err.Error(), "weight ") || !strings.Contains(err.Error(), "is not finite") {
			t.Fatalf("full=%v: error %v, want one that names a weight", full, err)
		}
		again := learner(t, full)
		if passed, err := again.Resume(root); err != nil || len(passed) > 0 {
			t.Fatal(passed, err)
		}
		if name := differ(before, saved(t, again, t.TempDir())); name != "" {
			t.Errorf("full=%v: %s has changed", full, name)
		}
	}
}

// poisoned hands the learner coefficients that are not numbers.
type poisoned struct {
	*train.Learner
	x float32
}

func (p poisoned) Backward(coef []float32) error {
	for i := range coef {
		coef[i] = p.x
	}
	return p.Learner.Backward(coef)
}
