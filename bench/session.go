package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/kvcache"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model"
)

const pageSize = 16

// A session is an engine on the subject, with room for one load.
type session struct {
	eng  *engine.Engine
	run  *runner.Runner
	stop context.CancelFunc
	done chan error
}

// session starts an engine for prompts × samples of l. A prompt is one batch.
func (s *Subject) session(l Load, ad *model.Adapter) (*session, error) {
	sequences := l.Samples * max(1, l.Prompts)
	longest := l.Prompt + l.Tokens + 1
	pages := (longest + pageSize - 1) / pageSize
	// As many as a run needs, samples sharing those that their prompt fills: the first run, which does not count, has
	// the system clear the memory of all of them, as other engines do before they begin.
	shared := l.Prompt / pageSize
	cache := max(1, l.Prompts)*shared + sequences*(pages-shared)
	tokens := max(l.Prompt*max(1, l.Prompts), sequences)
	size := model.Size{Tokens: tokens, Sequences: sequences, Wanted: sequences, Slice: min(sequences, 64), Pages: pages, PageSize: pageSize}
	if ad != nil {
		size.Rank = ad.Rank
	}
	run, err := runner.New(s.Decoder, size, cache)
	if err != nil {
		return nil, err
	}
	run.SetAdapter(1, ad)
	n := &session{run: run, done: make(chan error, 1)}
	n.eng = engine.New(run, kvcache.New(cache, pageSize), engine.Options{Vocab: s.Decoder.Config.Vocab,
		Context: s.Decoder.Context, Adapters: 1, TokensPerStep: tokens, MaxSequences: sequences})
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { n.done <- n.eng.Run(ctx) }()
	return n, nil
}

// close stops the engine.
func (n *session) close() error {
	n.stop()
	return <-n.done
}

// draw has each sample of the prompt draw n tokens. first is when the first token came, last the last.
func (n *session) draw(ctx context.Context, prompt []int32, tokens, samples int, seed uint64) (first, last time.Duration, err error) {
	start := time.Now()
	count := 0
	for _, err := range n.eng.Generate(ctx, engine.Request{Prompt: prompt, Samples: samples, Limit: tokens,
		Sampling: sample.Params{Temperature: 1, Seed: seed}}) {
		if err != nil {
			return 0, 0, err
		}
		if last = time.Since(start); count == 0 {
			first = last
		}
		count++
	}
	if count != tokens*samples {
		return 0, 0, fmt.Errorf("%d tokens came of %d", count, tokens*samples)
	}
	return first, last, nil
}
