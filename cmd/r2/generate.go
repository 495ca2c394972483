package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/local"
	"github.com/r2-reasoner/r2/tokenizer"
)

type generateCmd struct {
	Prompt      *string  `placeholder:"TEXT" xor:"in" help:"Complete this text."`
	Chat        *string  `placeholder:"TEXT" xor:"in" help:"Answer this message, by the model's chat template."`
	Input       string   `placeholder:"FILE.jsonl" xor:"in" help:"Rows {\"prompt\"}, {\"messages\"} or {\"tokens\"}; - is standard input."`
	N           int      `short:"n" default:"1" help:"Completions of each prompt."`
	MaxTokens   int      `default:"256" help:"Most tokens of a completion."`
	Temperature *float32 `help:"0 is greedy; left out: generation_config.json's, else 1."`
	TopP        *float32 `help:"Draw from the fewest tokens that hold this probability."`
	TopK        *int     `help:"Draw from the k most likely tokens."`
	MinP        *float32 `help:"Draw from tokens at least this fraction as likely as the likeliest."`
	Stop        []string `sep:"none" placeholder:"TEXT" help:"End before this text; may be repeated."`
	Choice      []string `sep:"none" placeholder:"TEXT" help:"The completion must be one of these; may be repeated."`
	Schema      string   `placeholder:"FILE" help:"The completion is JSON, valid by the JSON schema in this file."`
	IgnoreEOS   bool     `name:"ignore-eos" help:"Go on after an end-of-text token."`
	Use         string   `placeholder:"NAME" help:"Which adapter answers; left out: the only one given, else the base."`
	modelFlags
	outputFlags
}

func (c *generateCmd) Help() string {
	return `Example:

  r2 generate --model models/smollm2 --chat "What is the capital of France?" --temperature 0`
}

// A generateRow is a row of --input. Its sampling fields are named as on the wire.
type generateRow struct {
	Prompt      *string          `json:"prompt"`
	Messages    []router.Message `json:"messages"`
	Tokens      []int32          `json:"tokens"`
	N           *int             `json:"n"`
	MaxTokens   *int             `json:"max_tokens"`
	Temperature *float32         `json:"temperature"`
	TopP        *float32         `json:"top_p"`
	TopK        *int             `json:"top_k"`
	MinP        *float32         `json:"min_p"`
	Seed        *uint64          `json:"seed"`
	Stop        stopList         `json:"stop"`
	IgnoreEOS   *bool            `json:"ignore_eos"`
	Model       *string          `json:"model"`

	place string
}

// A stopList is one string or several, as OpenAI's wire has it.
type stopList []string

// UnmarshalJSON reads a string or a list of strings.
func (s *stopList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = stopList{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// A generated is a row of the output.
type generated struct {
	Index        int       `json:"index"`
	Sample       int       `json:"sample"`
	Tokens       []int32   `json:"tokens"`
	Text         *string   `json:"text,omitempty"`
	LogProbs     []float32 `json:"logprobs"`
	FinishReason string    `json:"finish_reason"`
	PromptTokens int       `json:"prompt_tokens"`
}

// Run completes.
func (c *generateCmd) Run(ctx context.Context) error {
	in, err := c.rows()
	if err != nil {
		return err
	}
	h, err := openHost(c.Model, c.Adapter, c.deviceFlags, hostOptions{sequences: min(64, max(1, len(in)*c.N))})
	if err != nil {
		return err
	}
	defer h.Close()
	jobs := make([]*job, len(in))
	for i := range in {
		if jobs[i], err = c.job(h, &in[i]); err != nil {
			if in[i].place != "" {
				return fmt.Errorf("%s: %w", in[i].place, err)
			}
			return err
		}
	}
	return c.complete(ctx, h, jobs)
}

// rows are what to complete: the flag's text, or the input's rows.
func (c *generateCmd) rows() ([]generateRow, error) {
	switch {
	case c.Prompt != nil:
		return []generateRow{{Prompt: c.Prompt}}, nil
	case c.Chat != nil:
		return []generateRow{{Messages: []router.Message{{Role: "user", Content: *c.Chat}}}}, nil
	case c.Input == "":
		return nil, usage("one of --prompt, --chat and --input is needed")
	}
	var out []generateRow
	for r, err := range rows(c.Input) {
		if err != nil {
			return nil, err
		}
		g := generateRow{place: r.place}
		if err := r.decode(&g, true); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// A job is one row, ready for the engine.
type job struct {
	req  engine.Request
	stop []string
	tok  *tokenizer.Tokenizer
	eos  []int32
	out  []generated
}

func (c *generateCmd) job(h *host, r *generateRow) (*job, error) {
	j := &job{tok: h.tok, stop: c.Stop}
	if r.Stop != nil {
		j.stop = r.Stop
	}
	q := &j.req
	*q = engine.Request{Samples: c.N, Limit: c.MaxTokens, Sampling: h.sampling()}
	set(&q.Samples, r.N)
	set(&q.Limit, r.MaxTokens)
	c.sampling(&q.Sampling, r)
	if q.Sampling.TopP == 0 && (c.TopP != nil || r.TopP != nil) {
		return nil, fmt.Errorf("top_p 0: want more than 0 and at most 1")
	}
	use, err := c.adapter(h, r)
	if err != nil {
		return nil, err
	}
	if q.Adapter, err = h.adapter(use); err != nil {
		return nil, err
	}
	if q.Prompt, err = promptIDs(h, r); err != nil {
		return nil, err
	}
	ignore := c.IgnoreEOS
	set(&ignore, r.IgnoreEOS)
	if !ignore {
		q.Stop, j.eos = h.eos(), h.eos()
	}
	if room := h.context - len(q.Prompt); room > 0 && r.MaxTokens == nil {
		q.Limit = min(q.Limit, room)
	}
	if q.Limit < 1 {
		return nil, fmt.Errorf("max_tokens %d: want at least 1", q.Limit)
	}
	if (len(c.Choice) > 0 || len(j.stop) > 0) && h.tok == nil {
		return nil, fmt.Errorf("--choice and --stop are texts, and %s has no tokenizer", h.name)
	}
	if c.Schema != "" {
		if q.Form, err = c.form(h); err != nil {
			return nil, err
		}
	}
	for _, s := range c.Choice {
		q.Choices = append(q.Choices, h.tok.Encode(s, false))
	}
	return j, nil
}

// form is what --schema asks for.
func (c *generateCmd) form(h *host) (sample.Form, error) {
	if h.forms == nil {
		return nil, fmt.Errorf("--schema is about text, and %s has no tokenizer", h.name)
	}
	b, err := os.ReadFile(c.Schema)
	if err != nil {
		return nil, err
	}
	f, err := h.forms.Form(router.Request{Schema: string(b)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Schema, err)
	}
	return f, nil
}

func (c *generateCmd) sampling(p *sample.Params, r *generateRow) {
	p.Seed = c.Seed
	for _, from := range []struct {
		t, topP, minP *float32
		topK          *int
	}{{c.Temperature, c.TopP, c.MinP, c.TopK}, {r.Temperature, r.TopP, r.MinP, r.TopK}} {
		set(&p.Temperature, from.t)
		set(&p.TopP, from.topP)
		set(&p.MinP, from.minP)
		set(&p.TopK, from.topK)
	}
	set(&p.Seed, r.Seed)
	p.TopK = max(p.TopK, 0) // -1 is vLLM's "all"
}

func (c *generateCmd) adapter(h *host, r *generateRow) (string, error) {
	if r.Model == nil {
		return h.only(c.Use)
	}
	if *r.Model == h.name {
		return "", nil
	}
	return *r.Model, nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// promptIDs are the ids of a row's prompt.
func promptIDs(h *host, r *generateRow) ([]int32, error) {
	given := 0
	for _, g := range []bool{r.Prompt != nil, r.Messages != nil, r.Tokens != nil} {
		if g {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf(`want just one of "prompt", "messages" and "tokens"`)
	}
	if r.Tokens != nil {
		return r.Tokens, nil
	}
	m, err := h.text(0)
	if err != nil {
		return nil, err
	}
	q := router.Request{Messages: r.Messages}
	if r.Prompt != nil {
		q.Prompt = *r.Prompt
	}
	return m.Render(q)
}

// complete runs the jobs together and prints their completions in order.
func (c *generateCmd) complete(ctx context.Context, h *host, jobs []*job) error {
	bar := newProgress(c.outputFlags, "generate", len(jobs), 0)
	defer bar.close()
	g, ctx := errgroup.WithContext(ctx)
	done := make([]chan struct{}, len(jobs))
	for i, j := range jobs {
		done[i] = make(chan struct{})
		g.Go(func() error {
			defer close(done[i])
			return j.run(ctx, h.eng, i)
		})
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for i, j := range jobs {
		<-done[i]
		if ctx.Err() != nil {
			break
		}
		for _, o := range j.out {
			if err := c.print(out, o, len(jobs)*len(j.out) > 1); err != nil {
				return err
			}
		}
		out.Flush()
		if len(jobs) > 1 {
			bar.step(i+1, fmt.Sprintf("%d tokens", h.eng.Stats().Drawn))
		}
	}
	return g.Wait()
}

func (c *generateCmd) print(out *bufio.Writer, o generated, many bool) error {
	switch {
	case c.JSON:
		return encodeLine(out, o)
	case many:
		fmt.Fprintf(out, "--- %d.%d (%s, %d tokens)\n", o.Index, o.Sample, o.FinishReason, len(o.Tokens))
	}
	if o.Text != nil {
		fmt.Fprintln(out, *o.Text)
		return nil
	}
	return encodeLine(out, o.Tokens)
}

// run completes one row. A stop string is looked for in the whole text, so that a sample ends as soon
// as it is written; the request goes on for the others.
func (j *job) run(ctx context.Context, eng *engine.Engine, index int) error {
	n := j.req.Samples
	if n < 1 {
		return fmt.Errorf("n %d: want at least 1", n)
	}
	j.out = make([]generated, n)
	texts := make([]*local.Text, n)
	for i := range j.out {
		j.out[i] = generated{Index: index, Sample: i, Tokens: []int32{}, LogProbs: []float32{}, PromptTokens: len(j.req.Prompt)}
		if j.tok != nil {
			texts[i] = local.NewText(j.tok, local.Ends{Stops: j.stop})
		}
	}
	left := n
	for e, err := range eng.Generate(ctx, j.req) {
		if err != nil {
			return err
		}
		o := &j.out[e.Sample]
		if o.FinishReason != "" {
			continue // a stop string has ended it
		}
		if e.Token.ID >= 0 {
			o.Tokens, o.LogProbs = append(o.Tokens, e.Token.ID), append(o.LogProbs, e.Token.LogProb)
		}
		o.FinishReason = e.Done.String()
		if t := texts[e.Sample]; t != nil {
			j.write(o, t, e)
		}
		if o.FinishReason != "" {
			if left--; left == 0 {
				return nil
			}
		}
	}
	return nil
}

func (j *job) write(o *generated, t *local.Text, e engine.Event) {
	if e.Token.ID >= 0 && !(e.Done == engine.Stop && slices.Contains(j.eos, e.Token.ID)) {
		t.Push(e.Token.ID)
	}
	if e.Done != engine.Running {
		t.Flush()
	}
	if t.Stopped() {
		o.FinishReason = engine.Stop.String()
	}
	if o.FinishReason != "" {
		s := t.String()
		o.Text = &s
	}
}
