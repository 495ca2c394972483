// Package bench measures what this machine reaches against what it could: operations on a model's
// shapes, the prefill of a prompt, one sequence, a group of samples and a training step, each beside
// the bound that the processor's arithmetic and memory set.
package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// A Row is one measurement. Bound is what the roof allows and Reached what was measured, both in Unit
// and the more the better; Share is Reached/Bound. Both are 0 where the roof says nothing. Share exceeds 1 where the caches hold what the bound
// reads from memory, and where rows are rounded: the roof is of float32 arithmetic. Flops and Bytes are what an operation of "kernels" computes and moves.
type Row struct {
	Bench   string    `json:"bench"` // kernels, prefill, decode, group or grpo
	Case    string    `json:"case"`
	Model   string    `json:"model"`
	DType   string    `json:"dtype"`       // of the frozen matrices
	Acts    string    `json:"activations"` // what rows are rounded to where they meet one
	Device  string    `json:"device"`
	Threads int       `json:"threads"`
	Unit    string    `json:"unit"`
	Bound   float64   `json:"bound"`
	Reached float64   `json:"reached"`
	Share   float64   `json:"share"`
	Flops   float64   `json:"flops,omitempty"`
	Bytes   float64   `json:"bytes,omitempty"`
	Seconds float64   `json:"seconds"`      // of one run, the median
	Each    []float64 `json:"seconds_each"` // of every run, in order
}

// A Subject is a model on a device, to be measured.
type Subject struct {
	Name    string // of the model
	Decoder *model.Decoder
	Threads int // of the device
	Roof    Roof
	Repeat  int // runs that count, after one that does not
	Seed    uint64
	Spare   int64 // device memory that training may spend to compute less
}

// A Load is how much one run does.
type Load struct {
	Prompt  int // tokens of a prompt
	Tokens  int // drawn for each sample
	Samples int // of one prompt
	Prompts int // of a training step
}

// Default is the load of each benchmark where nothing else is asked for.
func Default(name string) Load {
	return map[string]Load{
		"prefill": {Prompt: 512, Tokens: 1, Samples: 1},
		"decode":  {Prompt: 16, Tokens: 128, Samples: 1},
		"group":   {Prompt: 128, Tokens: 64, Samples: 16},
		"grpo":    {Prompt: 128, Tokens: 64, Samples: 8, Prompts: 2},
	}[name]
}

// check refuses a load that s cannot run.
func (s *Subject) check(l Load) error {
	switch {
	case l.Prompt < 1 || l.Tokens < 1 || l.Samples < 1 || s.Repeat < 1:
		return fmt.Errorf("a prompt of %d tokens, %d tokens of %d samples, %d runs: all must be at least 1",
			l.Prompt, l.Tokens, l.Samples, s.Repeat)
	case l.Prompt+l.Tokens+1 > s.Decoder.Context:
		return fmt.Errorf("a prompt of %d tokens and %d more do not fit the context of %d", l.Prompt, l.Tokens+1, s.Decoder.Context)
	}
	return nil
}

// row is a measurement of runs that took each, of amount units of work that take bound seconds at best.
func (s *Subject) row(name, of, unit string, amount, bound float64, each []float64) Row {
	t := median(each)
	r := Row{Bench: name, Case: of, Model: s.Name, DType: s.Decoder.Format().Type.String(), Acts: s.Decoder.Format().Acts.String(), Device: s.Decoder.Backend().Name(), Threads: s.Threads,
		Unit: unit, Reached: amount / t, Seconds: t, Each: each}
	if bound > 0 {
		r.Bound = amount / bound
		r.Share = r.Reached / r.Bound
	}
	return r
}

// repeat runs f once to warm up and then Repeat times, and gives the seconds of each.
func (s *Subject) repeat(f func(run int) (time.Duration, error)) (each []float64, err error) {
	for i := range s.Repeat + 1 {
		t, err := f(i)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			each = append(each, t.Seconds())
		}
	}
	return each, nil
}

// prompt is n random ids, others for each run, so that no prefix of one is in the cache.
func (s *Subject) prompt(run, n int) []int32 {
	rng := rand.New(rand.NewPCG(s.Seed, uint64(run)))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = rng.Int32N(int32(s.Decoder.Config.Vocab))
	}
	return ids
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Shapes are configurations that --shape names: a model of random weights for speed alone.
func Shapes() map[string]weights.Config {
	qwen := weights.Config{Architecture: "qwen2", HeadDim: 64, Vocab: 151936, Context: 32768, Theta: 1e6, Eps: 1e-6,
		QKVBias: true, TieEmbeddings: true, BOS: -1, PAD: -1}
	half := qwen
	half.Layers, half.Hidden, half.Heads, half.KVHeads, half.FFN = 24, 896, 14, 2, 4864
	one := qwen
	one.Layers, one.Hidden, one.Heads, one.KVHeads, one.HeadDim, one.FFN = 28, 1536, 12, 2, 128, 8960
	three := qwen
	three.Layers, three.Hidden, three.Heads, three.KVHeads, three.HeadDim, three.FFN = 36, 2048, 16, 2, 128, 11008
	seven := qwen
	seven.Layers, seven.Hidden, seven.Heads, seven.KVHeads, seven.HeadDim, seven.FFN = 28, 3584, 28, 4, 128, 18944
	seven.Vocab, seven.TieEmbeddings = 152064, false
	smol := weights.Config{Architecture: "llama", Layers: 30, Hidden: 576, Heads: 9, KVHeads: 3, HeadDim: 64, FFN: 1536,
		Vocab: 49152, Context: 8192, Theta: 1e5, Eps: 1e-5, TieEmbeddings: true, BOS: -1, PAD: -1}
	return map[string]weights.Config{"smollm2-135m": smol, "qwen2.5-0.5b": half, "qwen2.5-1.5b": one, "qwen2.5-3b": three, "qwen2.5-7b": seven}
}
