package sft_test

import (
	"encoding/json"
	"iter"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/sft"
	"github.com/r2-reasoner/r2/weights"
)

// golden is what PyTorch did in a few steps of AdamW on the adapter of a tiny model.
type golden struct {
	SFT struct {
		Batch []struct {
			IDs    []int32
			Prompt int `json:"prompt_len"`
		}
		AdamW struct {
			LR    float32
			Betas [2]float32
			Eps   float32
			Decay float32 `json:"weight_decay"`
			Clip  float32 `json:"clip_grad_norm"`
			Steps []struct {
				Loss float64
				Norm float64 `json:"grad_norm"`
			} `json:"per_step"`
			After float64 `json:"loss_after"`
		}
	}
}

// Five steps from PyTorch's adapter end where PyTorch's end, and at the same bits whatever the batches.
func TestStepsMatchPyTorch(t *testing.T) {
	for i, name := range []string{"qwen2_f32", "qwen2_tied_bf16_sharded", "llama_rope3", "qwen3", "llama_plain"} {
		t.Run(name, func(t *testing.T) {
			dir := modeltest.Shared(t, "goldens", name)
			one := follow(t, dir, 1)
			if i > 0 {
				return // the cut below costs as much again, and is the same for every model
			}
			whole := follow(t, dir, 1000)
			if len(one.Pairs) == 0 || len(one.Pairs) != len(whole.Pairs) {
				t.Errorf("%d and %d pairs", len(one.Pairs), len(whole.Pairs))
			}
			for module, p := range one.Pairs {
				q := whole.Pairs[module]
				if different(p.A, q.A, 0)+different(p.B, q.B, 0) != 0 {
					t.Errorf("%s depends on how the step is cut into batches", module)
				}
			}
		})
	}
}

// follow trains as the golden did and returns the adapter.
func follow(t *testing.T, dir string, tokens int) *weights.Adapter {
	var g golden
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, dec := learner(t, dir, g)
	var examples []sft.Example
	for _, s := range g.SFT.Batch {
		examples = append(examples, sft.Example{Tokens: s.IDs, Prompt: s.Prompt})
	}
	worstLoss, worstNorm := 0.0, 0.0
	for _, want := range g.SFT.AdamW.Steps {
		st, err := sft.Step(l, examples, tokens, g.SFT.AdamW.LR)
		if err != nil {
			t.Fatal(err)
		}
		worstLoss = max(worstLoss, math.Abs(st.Loss-want.Loss))
		worstNorm = max(worstNorm, math.Abs(st.GradNorm/want.Norm-1))
	}
	st, err := sft.Evaluate(l, all(examples), tokens)
	if err != nil {
		t.Fatal(err)
	}
	worstLoss = max(worstLoss, math.Abs(st.Loss-g.SFT.AdamW.After))
	got, err := dec.SaveAdapter(l.Adapter())
	if err != nil {
		t.Fatal(err)
	}
	astray, n := compare(t, dir, got)
	t.Logf("loss off by %.1e, norm by %.1e of itself, %d of %d entries by more than 1e-5", worstLoss, worstNorm, astray, n)
	// An entry whose gradient is nearly zero may go the other way by up to the learning rate a step.
	if !(worstLoss < 1e-5 && worstNorm < 1e-5) || astray > 3 || len(g.SFT.AdamW.Steps) != 5 {
		t.Error("too far from PyTorch's")
	}
	return got
}

func learner(t *testing.T, dir string, g golden) (*train.Learner, *model.Decoder) {
	m, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	dec, err := model.Load(ref.New(), m.Config, m, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := weights.OpenAdapter(filepath.Join(dir, "adapter_all"))
	if err != nil {
		t.Fatal(err)
	}
	ad, err := dec.LoadAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	o := g.SFT.AdamW
	l, err := train.New(dec, ad, nil, model.Size{Tokens: 128, Sequences: 4, Wanted: 64},
		train.Optimizer{Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, Decay: o.Decay, Clip: o.Clip})
	if err != nil {
		t.Fatal(err)
	}
	return l, dec
}

func all(examples []sft.Example) iter.Seq2[sft.Example, error] {
	return func(yield func(sft.Example, error) bool) {
		for _, e := range examples {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// compare counts the entries that differ from the golden's final ones by more than 1e-5.
func compare(t *testing.T, dir string, got *weights.Adapter) (astray, n int) {
	want, err := weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for module, p := range got.Pairs {
		for suffix, v := range map[string][]float32{".lora_A.weight": p.A, ".lora_B.weight": p.B} {
			w, err := want.Tensor("sft.final.base_model.model." + module + suffix)
			if err != nil {
				t.Fatal(err)
			}
			astray += different(v, w.Float32(nil), 1e-5)
			n += len(v)
		}
	}
	return astray, n
}

// different counts where a and b are more than tolerance apart.
func different(a, b []float32, tolerance float64) (n int) {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	for i := range a {
		if !(math.Abs(float64(a[i])-float64(b[i])) <= tolerance) {
			n++
		}
	}
	return n
}
