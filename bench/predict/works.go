package predict

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/r2-reasoner/r2/bench"
	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// A Work is a piece of work that is predicted, and can be measured.
type Work struct {
	Case            string
	Kind            string // see Kinds
	N               int    // sequences, samples of a group, or the size of a product or of attention
	Tokens, Context int    // of each
	Shared          int    `json:",omitempty"` // tokens of the context that each Samples sequences share
	Rank            int    // of an adapter
	Target          string
	Must, Then      float64 // of what Rate gives
}

// Kinds of work.
const (
	Step      = "step"      // a batch of sequences, each with some tokens more
	Linear    = "product"   // a square product
	Attention = "attention" // causal, forward
	Gradient  = "attention's gradient"
	Forward   = "forward" // a training batch, and so on
	Reference = "reference"
	Backward  = "backward"
	Update    = "update"
)

// The GRPO step that is asked for: prompts with some samples each, and the tokens of both.
const (
	Prompts, Samples   = 64, 5
	PromptLen, DrawLen = 512, 1024
	Rank               = 32
)

// Works are all of them, of Qwen2.5-7B.
var Works = func() (all []Work) {
	for i, n := range []int{1, 8, 64, 256} {
		all = append(all, Work{Case: fmt.Sprintf("decode, %d sequences at 1k", n), Kind: Step, N: n, Tokens: 1, Context: 1024,
			Target: "% of the roof", Must: []float64{60, 60, 50, 45}[i], Then: []float64{80, 75, 70, 60}[i]})
	}
	all = append(all, Work{Case: "prefill of 2k", Kind: Step, N: 1, Tokens: 2048, Context: 2048, Target: "tokens/s", Must: 25e3, Then: 40e3})
	for i, n := range []int{4096, 8192} {
		cublas := []float64{716, 795}[i] // as published with fast.cu
		all = append(all, Work{Case: fmt.Sprintf("product %d", n), Kind: Linear, N: n, Target: "TFLOP/s", Must: 0.6 * cublas, Then: 0.95 * cublas})
	}
	const step = "GRPO: "
	return append(all,
		Work{Case: "attention 16k", Kind: Attention, N: 16384, Target: "TFLOP/s", Must: 300, Then: 600},
		Work{Case: "attention's gradient 4k", Kind: Gradient, N: 4096, Target: "TFLOP/s", Must: 200, Then: 400},
		Work{Case: step + "prompts, four at a time", Kind: Step, N: 4, Tokens: PromptLen, Context: PromptLen, Rank: Rank},
		Work{Case: step + "a token of 320 rollouts", Kind: Step, N: Prompts * Samples, Tokens: 1, Context: PromptLen + DrawLen/2, Shared: PromptLen, Rank: Rank},
		Work{Case: step + "forward of a group", Kind: Forward, N: Samples, Tokens: DrawLen, Context: PromptLen, Rank: Rank},
		Work{Case: step + "reference of a group", Kind: Reference, N: Samples, Tokens: DrawLen, Context: PromptLen, Rank: Rank},
		Work{Case: step + "backward of a group", Kind: Backward, N: Samples, Tokens: DrawLen, Context: PromptLen, Rank: Rank},
		Work{Case: step + "update", Kind: Update, N: Samples, Tokens: DrawLen, Context: PromptLen, Rank: Rank})
}()

// Qwen7B is Qwen2.5-7B.
func Qwen7B() *Model { return &Model{Config: bench.Shapes()["qwen2.5-7b"]} }

// scene records a work.
func (m *Model) scene(w Work, t *Training) (Scene, error) {
	switch w.Kind {
	case Step:
		return m.Step(w.N, w.Tokens, w.Context, w.Shared, w.Rank)
	case Linear:
		return Product(w.N, w.N, w.N), nil
	case Attention:
		return Attend("Attention", w.N, m.Heads, m.KVHeads, m.HeadDim), nil
	case Gradient:
		return Attend("AttentionGrad", w.N, m.Heads, m.KVHeads, m.HeadDim), nil
	}
	return map[string]Scene{Forward: t.Forward, Reference: t.Reference, Backward: t.Backward, Update: t.Update}[w.Kind], nil
}

// Roof is the least seconds that a step, a product or attention can take on a GPU: weights and keys once from memory, operations
// at the matrix units' rate. 0 for other work.
func (m *Model) Roof(w Work, g GPU) float64 {
	flops, bytes := m.need(w)
	return max(flops/g.Rate(), bytes/g.Memory)
}

// need is the operations and the bytes of a work.
func (m *Model) need(w Work) (flops, bytes float64) {
	n := float64(w.N)
	attended := func(queries, keys float64) float64 { // by causal attention of one sequence, in one layer
		return 4 * queries * (keys - queries/2) * float64(m.Heads*m.HeadDim)
	}
	switch w.Kind {
	case Step:
		layers, head := 0.0, float64(m.Vocab*m.Hidden)
		for _, p := range m.Projections(0) {
			layers += float64(p.In*p.Out) * float64(m.Layers)
		}
		tokens := n * float64(w.Tokens)
		flops = 2*layers*tokens + 2*head*n + n*float64(m.Layers)*attended(float64(w.Tokens), float64(w.Context))
		cached := n * float64(w.Context-w.Tokens) * float64(2*m.KVHeads*m.HeadDim*m.Layers) * 4
		return flops, 2*(layers+head) + cached
	case Linear:
		return 2 * n * n * n, product(w.N, w.N, w.N, 2)
	case Attention:
		return attended(n, n), 0
	case Gradient:
		return 2.5 * attended(n, n), 0
	}
	return 0, 0
}

// Rate is what a work's target is of, if it takes so long.
func (m *Model) Rate(w Work, g GPU, seconds float64) float64 {
	switch {
	case w.Target == "" || seconds == 0:
		return 0
	case w.Target == "tokens/s":
		return float64(w.N*w.Tokens) / seconds
	case w.Target == "TFLOP/s":
		flops, _ := m.need(w)
		return flops / seconds * 1e-12
	}
	return 100 * m.Roof(w, g) / seconds
}

// A Prediction is of one work, with products that take activations as Acts.
type Prediction struct {
	Work     `json:"work"`
	Acts     string             `json:"activations"`
	Seconds  float64            `json:"seconds"`
	Launches int                `json:"launches"`
	Bytes    int                `json:"bytes"` // of memory that is held
	By       map[string]float64 `json:"by"`    // seconds by what is waited for
	Kernels  []Share            `json:"kernels"`
}

// A Share is one kernel's part of a work, at the largest call.
type Share struct {
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"`
	Call    string  `json:"call"`
	Cost    Cost    `json:"cost"`
	By      string  `json:"by"`
}

// Predict predicts a scene.
func (s *Survey) Predict(w Work, scene Scene, g GPU) (Prediction, error) {
	p := Prediction{Work: w, Bytes: scene.Bytes, By: map[string]float64{}}
	of := map[string]*Share{}
	largest := map[string]float64{}
	for _, c := range sorted(scene.Calls) {
		costs, err := s.Costs(c)
		if err != nil {
			return p, err
		}
		n := scene.Calls[c]
		for _, x := range costs {
			t, by := g.Time(x)
			p.Seconds += float64(n) * (t + g.Launch)
			p.By[by] += float64(n) * t
			p.By["launches"] += float64(n) * g.Launch
			p.Launches += n
			if of[x.Kernel] == nil {
				of[x.Kernel] = &Share{}
			}
			k := of[x.Kernel]
			k.Seconds += float64(n) * t
			k.Calls += n
			if all := float64(n) * t; all > largest[x.Kernel] {
				largest[x.Kernel] = all
				k.Call, k.Cost, k.By = fmt.Sprintf("%s %v", c.Op, trimmed(c.Dims)), x, by
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		p.Kernels = append(p.Kernels, *of[name])
	}
	slices.SortStableFunc(p.Kernels, func(a, b Share) int { return compare(b.Seconds, a.Seconds) })
	return p, nil
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// sorted are the calls in an order that is always the same, so that sums are.
func sorted(calls map[Call]int) []Call {
	return slices.SortedFunc(maps.Keys(calls), func(a, b Call) int {
		if a.Op != b.Op {
			return map[bool]int{true: -1, false: 1}[a.Op < b.Op]
		}
		return slices.Compare(a.Dims[:], b.Dims[:])
	})
}

func trimmed(d [7]int) []int {
	n := len(d)
	for n > 1 && d[n-1] == 0 {
		n--
	}
	return d[:n]
}

// All predicts every work for both ways of taking activations. made is called with each.
func All(c weights.Config, g GPU, made func(Prediction)) (all []Prediction, err error) {
	var before *Survey
	for _, acts := range []k.DType{k.F32, k.BF16} {
		s, err := NewSurvey(g.Multiprocessors, acts)
		if err != nil {
			return nil, err
		}
		if before != nil {
			s.share(before)
		}
		of, err := s.all(c, g, made)
		if err != nil {
			return nil, err
		}
		before, all = s, append(all, of...)
	}
	return all, nil
}

// all predicts every work that depends on how activations are taken.
func (s *Survey) all(c weights.Config, g GPU, made func(Prediction)) (all []Prediction, err error) {
	m := &Model{Config: c, On: s}
	var t Training
	for _, w := range Works {
		if w.Kind == Forward {
			if t, err = m.Train(PromptLen, DrawLen, Samples, Rank); err != nil {
				return nil, err
			}
		}
		scene, err := m.scene(w, &t)
		if err == nil {
			err = s.Know(sorted(scene.Calls))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Case, err)
		}
		p, err := s.Predict(w, scene, g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Case, err)
		}
		p.Acts = s.acts.String()
		all = append(all, p)
		made(p)
	}
	return all, nil
}

//go:embed predicted.json
var committed []byte

// Committed are the predictions that stand in predicted.json, for hardware to confirm or to refute.
func Committed() (all []Prediction, err error) { return all, json.Unmarshal(committed, &all) }
