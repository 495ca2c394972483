package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/r2-reasoner/r2/bench/report"
	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/allocate"
	"github.com/r2-reasoner/r2/train/tasks"
	"github.com/r2-reasoner/r2/weights"
)

type demoCmd struct {
	Items int    `default:"100" help:"Held-out commands to answer."`
	Out   string `default:"r2-demo.html" placeholder:"FILE" help:"The page to write."`
	deviceFlags
	outputFlags
}

func (c *demoCmd) Help() string {
	return `Everything is in the program: tiny models trained by it on SCAN (commands such as "jump around left twice
after walk", to be turned into actions), a pool of three served over HTTP on loopback, and a router whose
decomposer and allocator are LoRA adapters on one base. The commands asked are longer than any the models
were trained on. Example:

  r2 demo --items 50`
}

// A methodRow is one way of answering, measured.
type methodRow struct {
	Method   string       `json:"method"`
	Items    int          `json:"items"`
	Correct  int          `json:"correct"`
	Accuracy float64      `json:"accuracy"`
	Cost     router.Money `json:"cost_usd"`
	Cents    float64      `json:"cents_per_question"`
	Calls    int          `json:"calls"`
	Seconds  float64      `json:"seconds"`
}

// A demoSummary is what --json prints.
type demoSummary struct {
	Methods []methodRow  `json:"methods"`
	GRPO    grpoOutcome  `json:"grpo"`
	Page    string       `json:"page"`
	Seconds float64      `json:"seconds"`
	traces  []demoAnswer // shown
}

// A demoAnswer is a question answered by the router.
type demoAnswer struct {
	task  tasks.Task
	trace *router.Trace
	right bool
}

// Run shows the main job.
func (c *demoCmd) Run(ctx context.Context) error {
	begin := time.Now()
	if c.Items < 1 {
		return usage("--items %d: want at least 1", c.Items)
	}
	m, err := openMiniature(ctx, c.deviceFlags)
	if err != nil {
		return err
	}
	defer m.Close()
	items, err := pickTasks("test", c.Items, c.Seed)
	if err != nil {
		return err
	}
	c.note("answering %d held-out commands over a pool of %d models at %s", len(items), len(m.pool.Models()), m.config.Pool[0].URL)
	s := &demoSummary{Page: c.Out}
	if err := c.methods(ctx, m, items, s); err != nil {
		return err
	}
	c.note("one GRPO update of the allocator from %d groups of %d", grpoQuestions, grpoSamples)
	if s.GRPO, err = m.improve(ctx, c.Seed); err != nil {
		return err
	}
	s.Seconds = time.Since(begin).Seconds()
	err = weights.WriteFile(c.Out, func(w io.Writer) error { return report.Write(w, s.page()) })
	if err != nil {
		return err
	}
	if c.JSON {
		return encodeLine(os.Stdout, s)
	}
	return s.print(os.Stdout)
}

// pickTasks draws n tasks of SCAN's length split.
func pickTasks(split string, n int, seed uint64) ([]tasks.Task, error) {
	all, err := tasks.SCAN(split)
	if err != nil {
		return nil, err
	}
	var out []tasks.Task
	for _, i := range rand.New(rand.NewPCG(seed, 0x5ca9)).Perm(len(all))[:min(n, len(all))] {
		out = append(out, all[i])
	}
	return out, nil
}

// methods measures each way of answering on the same items.
func (c *demoCmd) methods(ctx context.Context, m *miniature, items []tasks.Task, s *demoSummary) error {
	for _, card := range m.pool.Models() {
		row, _, err := c.measure(ctx, card.Name+" alone", items, func(ctx context.Context, q string) (*router.Trace, error) {
			return m.alone(ctx, card.Name, q)
		})
		if err != nil {
			return err
		}
		s.Methods = append(s.Methods, row)
	}
	random, dearest := *m.router, *m.router
	random.Allocator = allocate.Random{Seed: c.Seed}
	cards := m.pool.Models()
	best := cards[len(cards)-1].Name
	dearest.Allocator = allocate.Fixed(best)
	for _, way := range []struct {
		name string
		r    *router.Router
	}{{"plan, random models", &random}, {"plan, all on " + best, &dearest}, {"R2", m.router}} {
		row, traces, err := c.measure(ctx, way.name, items, way.r.Answer)
		if err != nil {
			return err
		}
		s.Methods = append(s.Methods, row)
		s.traces = traces
	}
	return nil
}

// alone asks one model for the whole answer in one call.
func (m *miniature) alone(ctx context.Context, model, question string) (*router.Trace, error) {
	r := router.Request{Messages: []router.Message{{Role: "user", Content: question}}, Temperature: new(0.0)}
	a, err := m.pool.Complete(ctx, model, r)
	return &router.Trace{Question: question, Answer: strings.TrimSpace(a.Text), Calls: make([]router.Call, 1), In: a.In, Out: a.Out, Cost: a.Cost}, err
}

// measure answers all items one way. An item whose answer failed counts as wrong.
func (c *demoCmd) measure(ctx context.Context, name string, items []tasks.Task, answer func(context.Context, string) (*router.Trace, error)) (methodRow, []demoAnswer, error) {
	begin := time.Now()
	bar := newProgress(c.outputFlags, name, len(items), 0)
	defer bar.close()
	out := make([]demoAnswer, len(items))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, task := range items {
		g.Go(func() error {
			t, err := answer(gctx, task.Question)
			if gctx.Err() != nil {
				return gctx.Err()
			}
			out[i] = demoAnswer{task, t, err == nil && tasks.CheckSCAN(t.Answer, task.Answer)}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return methodRow{}, nil, err
	}
	row := methodRow{Method: name, Items: len(items), Seconds: time.Since(begin).Seconds()}
	for _, a := range out {
		if a.right {
			row.Correct++
		}
		row.Cost = row.Cost.Plus(a.trace.Cost)
		row.Calls += len(a.trace.Calls)
	}
	row.Accuracy = float64(row.Correct) / float64(len(items))
	row.Cents = float64(row.Cost) / 1e10 / float64(len(items))
	return row, out, nil
}

// print shows people what was found.
func (s *demoSummary) print(out io.Writer) error {
	fmt.Fprintln(out, "\nA few answers of R2:")
	for _, a := range s.traces[:min(3, len(s.traces))] {
		fmt.Fprintf(out, "\n  %s\n", a.task.Question)
		for i, st := range a.trace.Steps {
			fmt.Fprintf(out, "    %d. %-24s → %-5s %s\n", i+1, st.Subtask, st.Model, strings.TrimSpace(st.Answer))
		}
		fmt.Fprintf(out, "    %s, $%v\n", verdict(a), a.trace.Cost)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "method\taccuracy\tcents/question\tcalls\tseconds\t")
	for _, r := range s.Methods {
		fmt.Fprintf(w, "%s\t%.1f %%\t%.5f\t%d\t%.1f\t\n", r.Method, 100*r.Accuracy, r.Cents, r.Calls, r.Seconds)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nOne GRPO update of the allocator (%d groups of %d, parity %g): mean reward of drawn allocations on %d held-out commands %.3f before, %.3f after.\n",
		s.GRPO.Groups, s.GRPO.Samples, s.GRPO.Parity, s.GRPO.HeldOut, s.GRPO.Before, s.GRPO.After)
	fmt.Fprintf(out, "%.0f s; page: %s\n", s.Seconds, s.Page)
	return nil
}

func verdict(a demoAnswer) string {
	if a.right {
		return "right"
	}
	return "wrong"
}

// page is the same for a browser.
func (s *demoSummary) page() *report.Page {
	table := &report.Table{Head: []string{"method", "accuracy", "US cents a question", "calls", "seconds"}}
	plot := &report.Scatter{X: "US cents a question", Y: "accuracy"}
	for _, r := range s.Methods {
		table.Rows = append(table.Rows, []string{r.Method, fmt.Sprintf("%.1f %%", 100*r.Accuracy), fmt.Sprintf("%.5f", r.Cents),
			fmt.Sprint(r.Calls), fmt.Sprintf("%.1f", r.Seconds)})
		plot.Points = append(plot.Points, report.Point{Name: r.Method, X: r.Cents, Y: r.Accuracy})
	}
	var chains []report.Chain
	for _, a := range s.traces[:min(8, len(s.traces))] {
		ch := report.Chain{Question: a.task.Question, Answer: a.trace.Answer, Verdict: verdict(a)}
		for _, st := range a.trace.Steps {
			ch.Links = append(ch.Links, report.Link{Subtask: st.Subtask, Model: st.Model, Answer: strings.TrimSpace(st.Answer)})
		}
		chains = append(chains, ch)
	}
	g := s.GRPO
	return &report.Page{
		Title: "R2 on SCAN's length split",
		Intro: fmt.Sprintf("%d commands longer than any that the models were trained on, answered by a pool of tiny models over HTTP. R2 splits a command into subtasks and names a model for each; plans and allocations are written by LoRA adapters on one base.", s.Methods[0].Items),
		Sections: []report.Section{
			{Heading: "Accuracy and cost", Table: table, Plot: plot},
			{Heading: "One GRPO update of the allocator", Text: fmt.Sprintf("%d questions with %d drawn allocations each, executed over HTTP, one update of the adapter. Mean reward of drawn allocations on %d held-out commands: %.3f before, %.3f after. Largest difference between a sampler's and the trainer's log-probability: %g.", g.Groups, g.Samples, g.HeldOut, g.Before, g.After, g.Parity)},
			{Heading: "Plans and allocations", Chains: chains},
		},
	}
}
