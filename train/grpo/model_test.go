package grpo

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/ref"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
	"github.com/r2-reasoner/r2/weights"
)

// decoder is a real model as a policy, whose gradients a test can read; the reference is its base.
type decoder struct {
	d     *model.Decoder
	ad    *model.Adapter
	pass  *model.Pass
	grads *model.Grads
	norm  float64
}

func (p *decoder) run(b *batch.Batch, adapter int32) ([]float32, error) {
	b.Adapters = b.Adapters[:0]
	for range b.Sequences() {
		b.Adapters = append(b.Adapters, adapter)
	}
	if err := p.pass.Load(b, []*model.Adapter{nil, p.ad}, nil); err != nil {
		return nil, err
	}
	p.pass.Forward()
	out := make([]float32, len(b.Want))
	return out, p.pass.LogProbs(out)
}

func (p *decoder) Distributions(b *batch.Batch) ([]float32, []float32, error) {
	logp, err := p.run(b, 1)
	return logp, make([]float32, len(logp)), err
}
func (p *decoder) Reference(b *batch.Batch) ([]float32, error) { return p.run(b, 0) }
func (p *decoder) Backward(coef []float32) error               { return p.pass.Backward(coef, p.grads) }
func (p *decoder) Update(float32) (float32, error)             { return 0, nil }

// gradients reads them all, by name.
func (p *decoder) gradients(t *testing.T) map[string][]float64 {
	out := map[string][]float64{}
	for _, q := range p.grads.Params() {
		raw := make([]byte, 4*q.G.Rows*q.G.Cols)
		if err := p.d.Backend().Read(raw, q.G); err != nil {
			t.Fatal(err)
		}
		v := make([]float64, len(raw)/4)
		for i := range v {
			v[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
			p.norm += v[i] * v[i]
		}
		out[q.Name] = v
	}
	p.norm = math.Sqrt(p.norm)
	return out
}

type endToEnd struct {
	Case, Adapter string
	Temperature   float32
	Rows          []struct {
		Prompt     []int32 `json:"prompt_ids"`
		Completion []int32 `json:"completion_ids"`
	}
	Advantages []float64
	Old        [][]float64 `json:"old_logp"`
	Results    []struct {
		Name        string
		Loss        Kind    `json:"loss_type"`
		Beta        float64 `json:"beta"`
		Epsilon     float64 `json:"epsilon"`
		EpsilonHigh float64 `json:"epsilon_high"`
		Value       float64 `json:"loss"`
		Norm        float64 `json:"grad_norm"`
	}
}

func open(t *testing.T, e *endToEnd) *decoder {
	var be kernels.Backend = ref.New()
	dir := modeltest.Shared(t, "goldens", e.Case)
	m, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	a, err := weights.OpenAdapter(dir + "/" + e.Adapter)
	if err != nil {
		t.Fatal(err)
	}
	p := &decoder{}
	if p.d, err = model.Load(be, m.Config, m, model.Options{}); err != nil {
		t.Fatal(err)
	}
	if p.ad, err = p.d.LoadAdapter(a); err != nil {
		t.Fatal(err)
	}
	if p.grads, err = p.d.NewGrads(p.ad); err != nil {
		t.Fatal(err)
	}
	p.pass = p.d.NewPass(model.Size{Tokens: 128, Sequences: 8, Wanted: 64, Rank: p.ad.Rank, Train: true})
	return p
}

// From token ids to the gradients of a real model's adapter, as TRL and PyTorch compute them.
func TestEndToEndGradientsMatchTRL(t *testing.T) {
	var e endToEnd
	data, err := os.ReadFile(modeltest.Shared(t, "goldens", "grpo", "end_to_end.json"))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := weights.OpenSafetensors(modeltest.Shared(t, "goldens", "grpo", "end_to_end.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, r := range e.Results {
		var first map[string][]float64
		for _, tokens := range []int{1, 20, 1000} { // a sequence at a time, two, all
			p := open(t, &e)
			tr := Trainer[int]{Policy: p, TokensPerBatch: tokens,
				Config: Config{Loss: r.Loss, EpsilonLow: r.Epsilon, EpsilonHigh: r.EpsilonHigh, KL: r.Beta}}
			var st Stats
			if err := tr.update([][]Rollout{e.rollouts()}, &st, 0); err != nil {
				t.Fatal(err)
			}
			grads, worst, n := p.gradients(t), 0.0, 0
			for _, name := range want.Names() {
				key, ok := strings.CutPrefix(name, r.Name+".grad.base_model.model.")
				if !ok {
					continue
				}
				w, err := want.Tensor(name)
				if err != nil {
					t.Fatal(err)
				}
				worst = max(worst, difference(grads[key], w.Float64(nil)))
				n++
			}
			if first == nil {
				first = grads
			}
			if !reflect.DeepEqual(grads, first) {
				t.Errorf("%s: batches of %d tokens change bits of the gradient", r.Name, tokens)
			}
			loss, norm := math.Abs(st.Loss-r.Value), math.Abs(p.norm/r.Norm-1)
			t.Logf("%s, %d tokens a batch: loss off by %.1e, norm by %.1e, gradients of %d tensors by %.1e of the largest", r.Name, tokens, loss, norm, n, worst)
			if !(loss < 1e-6 && norm < 1e-6 && worst < 3e-6) || n == 0 || len(grads) != n {
				t.Errorf("%s: too far off", r.Name)
			}
		}
	}
}

// rollouts have the advantages and log-probabilities of the reference.
func (e *endToEnd) rollouts() (g []Rollout) {
	for i, row := range e.Rows {
		r := Rollout{Tokens: append(append([]int32{}, row.Prompt...), row.Completion...), Prompt: len(row.Prompt),
			Temperature: e.Temperature, Advantage: float32(e.Advantages[i])}
		for _, lp := range e.Old[i] {
			r.LogProbs = append(r.LogProbs, float32(lp))
		}
		g = append(g, r)
	}
	return g
}

// difference is the largest |got - want| by the largest |want|.
func difference(got, want []float64) (worst float64) {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	top := 0.0
	for i, w := range want {
		top, worst = max(top, math.Abs(w)), max(worst, math.Abs(got[i]-w))
	}
	return worst / top
}
