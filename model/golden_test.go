package model_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// golden is what golden.json of a case holds of what these tests compare.
type golden struct {
	Sequences [][]int32        `json:"sequences"`
	Positions map[string][]int `json:"logits_positions"`
	Adapters  map[string]struct {
		Positions map[string][]int `json:"logits_positions"`
	} `json:"adapters"`
	SFT *struct {
		Batch []struct {
			IDs    []int32 `json:"ids"`
			Prompt int     `json:"prompt_len"`
		} `json:"batch"`
		Loss float64 `json:"loss"`
	} `json:"sft"`
}

type device struct {
	name   string
	be     kernels.Backend
	logits float64 // tolerance on a logit, absolute: both sides round logits to float32, 2e-6 at 32 to 64
	grad   float64 // on a gradient, by the tensor's largest
}

func devices() []device {
	return []device{{"ref", ref.New(), 4e-6, 2e-6}, {"cpu", cpu.New(2), 1e-4, 1e-4}}
}

var cases = []string{"qwen2_f32", "qwen2_tied_bf16_sharded", "llama_rope3", "qwen3", "llama_plain", "qwen2_swa_off"}

// Every golden model gives PyTorch's logits and log-probabilities, with and without its adapters.
func TestGoldenLogits(t *testing.T) {
	for _, name := range cases {
		for _, dev := range devices() {
			t.Run(name+"/"+dev.name, func(t *testing.T) {
				dir := modeltest.Shared(t, "goldens", name)
				c := open(t, dir, dev.be, model.Options{})
				worst := c.compare(t, "", nil, c.g.Positions)
				adapters, _ := filepath.Glob(filepath.Join(dir, "adapter_*"))
				for _, a := range adapters {
					if strings.HasSuffix(a, "modules_to_save") {
						continue // refused by name: weights' tests
					}
					key := filepath.Base(a)
					worst = max(worst, c.compare(t, key+".", c.adapter(t, a), c.g.Adapters[key].Positions))
				}
				t.Logf("worst error %.1e", worst)
				if !(worst <= dev.logits) {
					t.Errorf("worst error %.1e exceeds %.0e", worst, dev.logits)
				}
			})
		}
	}
}

type goldenCase struct {
	d *model.Decoder
	g golden
	f *weights.Safetensors
}

func open(t *testing.T, dir string, be kernels.Backend, o model.Options) *goldenCase {
	t.Helper()
	m, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	c := &goldenCase{}
	if c.d, err = model.Load(be, m.Config, m, o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err == nil {
		err = json.Unmarshal(b, &c.g)
	}
	if err == nil {
		c.f, err = weights.OpenSafetensors(filepath.Join(dir, "golden.safetensors"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.f.Close() })
	return c
}

func (c *goldenCase) adapter(t *testing.T, dir string) *model.Adapter {
	t.Helper()
	a, err := weights.OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	ad, err := c.d.LoadAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	return ad
}

func (c *goldenCase) floats(name string) []float64 {
	w, err := c.f.Tensor(name)
	if err != nil {
		return nil
	}
	return w.Float64(nil)
}

// compare runs the sequences there are numbers for and returns the worst difference.
func (c *goldenCase) compare(t *testing.T, prefix string, ad *model.Adapter, positions map[string][]int) (worst float64) {
	t.Helper()
	for i, ids := range c.g.Sequences {
		at, ok := positions[fmt.Sprint(i)]
		if !ok {
			continue
		}
		b := sequence(ids, ad != nil)
		p := c.d.NewPass(model.Size{Tokens: len(ids), Sequences: 1, Wanted: len(ids), Slice: len(ids), Rank: 64})
		if err := p.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
			t.Fatal(err)
		}
		p.Forward()
		lp := make([]float32, len(ids))
		if err := p.LogProbs(lp); err != nil {
			t.Fatal(err)
		}
		for j, want := range c.floats(fmt.Sprintf("%slogprob.%d", prefix, i)) {
			worst = max(worst, math.Abs(float64(lp[j])-want))
		}
		want := c.floats(fmt.Sprintf("%slogits.%d", prefix, i))
		if want == nil {
			t.Fatalf("no %slogits.%d", prefix, i)
		}
		p.Slices(func(_, n int, logits kernels.Tensor, _ kernels.Dist) {
			got := read(t, c.d.Backend(), logits)
			for r, row := range at {
				for j := range logits.Cols {
					worst = max(worst, math.Abs(float64(got[row*logits.Cols+j])-want[r*logits.Cols+j]))
				}
			}
		})
	}
	return worst
}

// sequence is a batch of one, every position wanted; the last target is arbitrary.
func sequence(ids []int32, adapted bool) *batch.Batch {
	b := &batch.Batch{Tokens: ids, Starts: []int32{0, int32(len(ids))}, Lengths: []int32{int32(len(ids))}}
	for i := range ids {
		b.Positions = append(b.Positions, int32(i))
		b.Want = append(b.Want, int32(i))
		b.Targets = append(b.Targets, ids[(i+1)%len(ids)])
	}
	if adapted {
		b.Adapters = []int32{1}
	}
	return b
}

func read(t *testing.T, be kernels.Backend, x kernels.Tensor) []float32 {
	t.Helper()
	b := make([]byte, 4*x.Rows*x.Cols)
	if err := be.Read(b, x); err != nil {
		t.Fatal(err)
	}
	return weights.Tensor{Type: weights.F32, Shape: []int{len(b) / 4}, Data: b}.Float32(nil)
}

// The gradients of the golden SFT loss are PyTorch's, for the pairs of adapter_all and for all weights.
func TestGoldenGradients(t *testing.T) {
	for _, name := range cases {
		for _, dev := range devices() {
			for _, full := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/full=%v", name, dev.name, full), func(t *testing.T) {
					dir := modeltest.Shared(t, "goldens", name)
					c := open(t, dir, dev.be, model.Options{Train: full})
					prefix := "sft.grad.base_model.model."
					if full {
						prefix = "full.grad."
					}
					if !c.has(prefix) {
						t.Skip("no gradients in this case")
					}
					var ad *model.Adapter
					if !full {
						ad = c.adapter(t, filepath.Join(dir, "adapter_all"))
					}
					worst := c.gradients(t, ad, prefix)
					t.Logf("worst error %.1e of the tensor's largest", worst)
					if !(worst <= dev.grad) {
						t.Errorf("worst error %.1e exceeds %.0e", worst, dev.grad)
					}
				})
			}
		}
	}
}

func (c *goldenCase) has(prefix string) bool {
	for _, n := range c.f.Names() {
		if strings.HasPrefix(n, prefix) {
			return true
		}
	}
	return false
}

func (c *goldenCase) gradients(t *testing.T, ad *model.Adapter, prefix string) (worst float64) {
	t.Helper()
	b, coef := c.sftBatch(ad != nil)
	p := c.d.NewPass(model.Size{Tokens: len(b.Tokens), Sequences: len(c.g.SFT.Batch), Wanted: len(b.Want), Slice: 7, Rank: 64, Train: true})
	if err := p.Load(b, []*model.Adapter{nil, ad}, nil); err != nil {
		t.Fatal(err)
	}
	g, err := c.d.NewGrads(ad)
	if err != nil {
		t.Fatal(err)
	}
	p.Forward()
	lp := make([]float32, len(b.Want))
	if err := p.LogProbs(lp); err != nil {
		t.Fatal(err)
	}
	loss := 0.0
	for i := range lp {
		loss += float64(coef[i]) * float64(lp[i])
	}
	if ad != nil && math.Abs(loss-c.g.SFT.Loss) > 1e-5 {
		t.Errorf("loss %v, want %v", loss, c.g.SFT.Loss)
	}
	if err := p.Backward(coef, g); err != nil {
		t.Fatal(err)
	}
	if ad == nil {
		return c.fullGradients(t, prefix)
	}
	for _, q := range g.Params() {
		worst = max(worst, difference(read(t, c.d.Backend(), q.G), c.floats(prefix+q.Name)))
	}
	return worst
}

func (c *goldenCase) fullGradients(t *testing.T, prefix string) (worst float64) {
	ts, err := c.d.SaveGradients()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ts {
		worst = max(worst, difference(w.Float32(nil), c.floats(prefix+w.Name)))
	}
	return worst
}

// difference is the largest |got − want| by the largest |want|; Inf when the lengths differ.
func difference(got []float32, want []float64) (worst float64) {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	top := 0.0
	for i := range want {
		top = max(top, math.Abs(want[i]))
		worst = max(worst, math.Abs(float64(got[i])-want[i]))
	}
	return worst / top
}

// sftBatch packs the golden batch; the coefficients are those of its loss, −1/targets.
func (c *goldenCase) sftBatch(adapted bool) (*batch.Batch, []float32) {
	b := &batch.Batch{Starts: []int32{0}}
	for _, s := range c.g.SFT.Batch {
		at := int32(len(b.Tokens))
		b.Tokens = append(b.Tokens, s.IDs...)
		for j := range s.IDs {
			b.Positions = append(b.Positions, int32(j))
			if j >= s.Prompt-1 && j+1 < len(s.IDs) {
				b.Want = append(b.Want, at+int32(j))
				b.Targets = append(b.Targets, s.IDs[j+1])
			}
		}
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
		b.Lengths = append(b.Lengths, int32(len(s.IDs)))
		if adapted {
			b.Adapters = append(b.Adapters, 1)
		}
	}
	coef := make([]float32, len(b.Want))
	for i := range coef {
		coef[i] = -1 / float32(len(coef))
	}
	return b, coef
}
