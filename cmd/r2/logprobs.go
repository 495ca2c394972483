package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router/allocate"
)

type logprobsCmd struct {
	Input string  `required:"" placeholder:"FILE.jsonl" help:"Rows {\"prompt\",\"completion\"}, {\"messages\"} or {\"tokens\"}; - is standard input."`
	Alpha float64 `default:"0.4" help:"Confidence is this quantile of the completion's token probabilities."`
	Use   string  `placeholder:"NAME" help:"Which adapter scores; left out: the only one given, else the base."`
	modelFlags
	outputFlags
}

func (c *logprobsCmd) Help() string {
	return `logprobs[i] is of tokens[i] given those before: natural log, of the unmodified distribution; the first is
null. Example:

  echo '{"prompt":"The sky is","completion":" blue"}' | r2 logprobs --model models/smollm2 --input - --json`
}

// A scoredRow is a row of the output.
type scoredRow struct {
	Index      int        `json:"index"`
	Tokens     []int32    `json:"tokens"`
	LogProbs   []*float32 `json:"logprobs"`
	Confidence *float64   `json:"confidence"`

	learn []bool
	place string
}

// Run scores.
func (c *logprobsCmd) Run(ctx context.Context) error {
	if !(c.Alpha >= 0 && c.Alpha <= 1) {
		return usage("--alpha %v: want 0 to 1", c.Alpha)
	}
	be, err := c.deviceFlags.open()
	if err != nil {
		return err
	}
	h, err := openModel(be, c.Model, c.Adapter, c.deviceFlags)
	if err != nil {
		return err
	}
	out, longest, err := c.rows(h)
	if err != nil {
		h.files.Close()
		return err
	}
	if err := h.start(hostOptions{context: longest}); err != nil {
		h.files.Close()
		return err
	}
	defer h.Close()
	use, err := h.only(c.Use)
	if err != nil {
		return err
	}
	adapter, err := h.adapter(use)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(256)
	for _, s := range out {
		g.Go(func() error {
			if err := s.score(ctx, h.eng, adapter, c.Alpha); err != nil {
				return fmt.Errorf("%s: %w", s.place, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.print(h, out)
}

// rows reads what to score; longest is the tokens of the longest.
func (c *logprobsCmd) rows(h *host) (out []*scoredRow, longest int, err error) {
	for r, err := range rows(c.Input) {
		if err != nil {
			return nil, 0, err
		}
		var e example
		if err := r.decode(&e, false); err != nil {
			return nil, 0, err
		}
		ids, mask, err := h.vocabulary().tokens(&e, false)
		if err != nil {
			return nil, 0, r.errorf("%w", err)
		}
		if len(ids) > h.dec.Context {
			return nil, 0, r.errorf("%d tokens do not fit into the context of %d", len(ids), h.dec.Context)
		}
		longest = max(longest, len(ids))
		out = append(out, &scoredRow{Index: len(out), Tokens: ids, learn: mask, place: r.place})
	}
	return out, max(longest, 1), nil
}

// score fills in the log-probabilities and the confidence.
func (s *scoredRow) score(ctx context.Context, eng *engine.Engine, adapter int, alpha float64) error {
	s.LogProbs = make([]*float32, len(s.Tokens))
	var answer []float32
	for e, err := range eng.Generate(ctx, engine.Request{Prompt: s.Tokens, Samples: 1, Adapter: adapter, PromptLogProbs: true}) {
		if err != nil {
			return err
		}
		for i := range e.Prompt {
			s.LogProbs[i+1] = &e.Prompt[i]
			if s.learn[i+1] {
				answer = append(answer, e.Prompt[i])
			}
		}
	}
	if len(answer) > 0 {
		p := allocate.Quantile(answer, alpha)
		s.Confidence = &p
	}
	return nil
}

func (c *logprobsCmd) print(h *host, out []*scoredRow) error {
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	for _, s := range out {
		if c.JSON {
			if err := encodeLine(w, s); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "--- %d: %d tokens", s.Index, len(s.Tokens))
		if s.Confidence != nil {
			fmt.Fprintf(w, ", confidence %.4f", *s.Confidence)
		}
		fmt.Fprintln(w)
		for i, id := range s.Tokens {
			lp := "       –"
			if s.LogProbs[i] != nil {
				lp = fmt.Sprintf("%8.4f", *s.LogProbs[i])
			}
			piece := ""
			if h.tok != nil {
				piece = strings.Trim(fmt.Sprintf("%q", h.tok.Bytes(id)), `"`)
			}
			fmt.Fprintf(w, "%s  %6d  %s\n", lp, id, piece)
		}
	}
	return nil
}
