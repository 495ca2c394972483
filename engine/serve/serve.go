// Package serve answers the calls of router/openai on an engine in this process: every parameter of a call
// becomes part of an engine's request or of how its tokens become text, or refuses the call by its name.
package serve

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/router/openai"
	"github.com/r2-reasoner/r2/tokenizer"
)

// A Host is a model in this process: an engine, and what makes its requests of text and text of its tokens. Its
// fields are set before the first call.
type Host struct {
	Engine    *engine.Engine
	Tokenizer *tokenizer.Tokenizer
	Forms     *local.Forms
	Defaults  sample.Params // of what a call leaves open: those of generation_config.json
	MaxTokens int           // most tokens of an answer, where generation_config.json says; 0: the context
	EOS       []int32       // ids that end a text
	Vocab     int           // ids are below it
	Context   int           // most tokens of a prompt and its answer
	Metrics   *Metrics      // nil: nothing is counted

	unseeded atomic.Uint64 // calls that came without a seed
	tools    sync.Once
	style    toolStyle
}

// A Model is one policy of a host: the base, or an adapter on it.
type Model struct {
	*Host
	Adapter int // of the engine; 0 is the base
}

var _ openai.Model = (*Model)(nil)

// Answer draws the answers. Each is a request of the engine of its own, so that a stop string ends it alone; they
// share the pages of their prompt all the same. The i-th answer's seed is the call's plus i, so it is the answer
// that a call with that seed gives alone.
func (m *Model) Answer(ctx context.Context, c *openai.Call) iter.Seq2[openai.Part, error] {
	return func(yield func(openai.Part, error) bool) {
		draws, err := m.draws(c)
		if err != nil {
			yield(openai.Part{}, err)
			return
		}
		if len(draws) == 1 {
			for p, err := range draws[0].parts(ctx) {
				if !yield(p, err) || err != nil {
					return
				}
			}
			return
		}
		for p := range merge(ctx, draws) {
			if !yield(p.part, p.err) || p.err != nil {
				return
			}
		}
	}
}

// draws prepares all answers of a call.
func (m *Model) draws(c *openai.Call) ([]*draw, error) {
	base, err := m.request(c)
	if err != nil {
		return nil, err
	}
	prompts, err := m.prompts(c)
	if err != nil {
		return nil, err
	}
	seed := m.seed(c)
	var out []*draw
	for p, ids := range prompts {
		q := base
		q.Prompt = ids
		if q.Limit, err = m.limit(c, len(ids)); err != nil {
			return nil, err
		}
		for i := range c.BestOf {
			d := &draw{m: m, c: c, index: p*c.BestOf + i, q: q}
			d.q.Sampling.Seed = seed + uint64(i)
			if i > 0 && !c.Echo { // the prompt is scored once
				d.q.PromptLogProbs, d.q.PromptRanks, d.q.PromptTop = false, false, 0
			}
			d.begin()
			out = append(out, d)
		}
	}
	return out, nil
}

// seed is the call's, or one that no other call without a seed gets: a function of the process's seed and of how
// many came before.
func (m *Model) seed(c *openai.Call) uint64 {
	if c.Seed != nil {
		return *c.Seed
	}
	return mix(m.Defaults.Seed ^ mix(m.unseeded.Add(1)))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014), a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// An arrival is a part on its way from its draw.
type arrival struct {
	part openai.Part
	err  error
}

// merge yields the parts of all draws as they come. When the consumer leaves, all have ended when the sequence has.
func merge(ctx context.Context, draws []*draw) iter.Seq[arrival] {
	return func(yield func(arrival) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ch := make(chan arrival, len(draws))
		var wg sync.WaitGroup
		for _, d := range draws {
			wg.Go(func() {
				for p, err := range d.parts(ctx) {
					select {
					case ch <- arrival{p, err}:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		go func() { wg.Wait(); close(ch) }()
		defer func() {
			cancel()
			for range ch {
			}
		}()
		for a := range ch {
			if !yield(a) {
				return
			}
		}
	}
}

// refuse names the parameter that cannot be served.
func refuse(param, format string, a ...any) error {
	return &router.ParamError{Param: param, Reason: fmt.Sprintf(format, a...)}
}

// refused is an engine's refusal as the refusal of a parameter: its errors begin with what they are about.
func refused(err error) error {
	var re *engine.RequestError
	if !errors.As(err, &re) {
		return err
	}
	text := re.Error()
	param, _, _ := strings.Cut(text, " ")
	param = strings.TrimSuffix(param, ":")
	if as, ok := map[string]string{"limit": "max_tokens", "choices": "structured_outputs", "form": "structured_outputs", "stop": "stop_token_ids"}[param]; ok {
		param = as
	}
	return refuse(param, "%s", text)
}
