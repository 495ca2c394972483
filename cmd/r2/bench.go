package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/trace"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

type benchCmds struct {
	Machine benchCmd      `cmd:"" default:"withargs" help:"kernels, prefill, decode, group or grpo: this machine beside its bound."`
	Serve   benchServeCmd `cmd:"" help:"A service of chat completions under load."`
}

func (c *benchCmds) Help() string {
	return `Examples:

  r2 bench decode --model models/smollm2 --dtype bf16
  r2 bench serve --url http://127.0.0.1:8000/v1 --name smollm2 --clients 16`
}

type benchCmd struct {
	What    string `arg:"" enum:"kernels,prefill,decode,group,grpo" placeholder:"WHAT" help:"kernels, prefill, decode, group or grpo."`
	Model   string `placeholder:"PATH" xor:"what" help:"A folder in the Hugging Face layout, or a .gguf file."`
	Shape   string `placeholder:"NAME" xor:"what" help:"Random weights in the shape of: smollm2-135m, qwen2.5-0.5b, -1.5b, -3b or -7b."`
	Threads int    `default:"0" help:"Goroutines that compute; 0: one a processor."`
	Repeat  int    `default:"3" help:"Runs that count, after one that does not; their median is reported."`
	Prompt  int    `default:"0" help:"Tokens of a prompt; 0: 512 for prefill, 16 for decode, else 128."`
	Tokens  int    `default:"0" help:"Tokens drawn for each sample; 0: 128 for decode, else 64."`
	Samples int    `default:"0" help:"Samples of a prompt; 0: 16 for group, 8 for grpo."`
	Prompts int    `default:"0" help:"Prompts of a training step; 0: 2."`
	deviceFlags
	outputFlags
}

func (c *benchCmd) Help() string {
	return `Example:

  r2 bench decode --model models/smollm2 --dtype bf16 --threads 2

Shows what was reached beside the bound that this machine's arithmetic and memory set, which is measured
first. With -v, the time by operation too (each operation is then waited for).`
}

// Run measures.
func (c *benchCmd) Run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Threads == 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	be, roof, err := c.machine()
	if err != nil {
		return err
	}
	var traced *trace.Device
	if c.Verbose {
		traced = trace.New(be)
		be = traced
	}
	s, closer, err := c.subject(be)
	if err != nil {
		return err
	}
	defer closer()
	s.Roof, s.Repeat, s.Threads, s.Seed = roof, c.Repeat, c.Threads, c.Seed
	if free, known := available(be); known {
		s.Spare = free / 4 // as a training run does
	}
	if traced != nil {
		traced.Reset()
	}
	rows, err := c.measure(ctx, s)
	if err != nil {
		return err
	}
	c.print(rows)
	if traced != nil {
		for _, st := range traced.Stats() {
			fmt.Fprintln(os.Stderr, st)
		}
	}
	return nil
}

func (c *benchCmd) check() error {
	switch {
	case c.Device == "ref":
		return usage("--device ref: it has no roof to be measured; use another")
	case (c.Model == "") == (c.Shape == ""):
		return usage("say what to measure: --model or --shape")
	case c.Shape != "" && bench.Shapes()[c.Shape].Layers == 0:
		return usage("--shape %s: want one of %s", c.Shape, strings.Join(slices.Sorted(maps.Keys(bench.Shapes())), ", "))
	case c.Threads < 0 || c.Repeat < 1 || c.Prompt < 0 || c.Tokens < 0 || c.Samples < 0 || c.Prompts < 0:
		return usage("--repeat must be at least 1, and --threads, --prompt, --tokens, --samples and --prompts not negative")
	}
	return nil
}

// machine opens the device and measures its roof.
func (c *benchCmd) machine() (kernels.Backend, bench.Roof, error) {
	be, err := c.open()
	if err != nil {
		return nil, bench.Roof{}, err
	}
	roof := bench.Roof{}
	if own, ok := be.(interface {
		Roof() (flops, bytes float64, err error)
	}); ok {
		c.note("measuring the roof of %s", be.Name())
		roof.Flops, roof.Bytes, err = own.Roof()
		c.Threads = 0
	} else {
		c.note("measuring the roof of %d threads", c.Threads)
		roof, be = bench.CPURoof(c.Threads), cpu.New(c.Threads)
	}
	c.note("%.0f GFLOP/s, %.1f GB/s", roof.Flops*1e-9, roof.Bytes*1e-9)
	return be, roof, err
}

// subject opens the model, or makes one of the shape.
func (c *benchCmd) subject(be kernels.Backend) (*bench.Subject, func() error, error) {
	if c.Shape != "" {
		return c.random(be)
	}
	h, err := openModel(be, c.Model, nil, c.deviceFlags)
	if err != nil {
		return nil, nil, err
	}
	return &bench.Subject{Name: h.name, Decoder: h.dec}, h.files.Close, nil
}

func (c *benchCmd) random(be kernels.Backend) (*bench.Subject, func() error, error) {
	cfg := bench.Shapes()[c.Shape]
	opts, err := c.options()
	if err != nil {
		return nil, nil, err
	}
	stored := map[string]kernels.DType{"bf16": kernels.BF16, "int8": kernels.Q8_0, "int4": kernels.Q4_0}[c.DType]
	if err := c.fits(be, cfg, stored); err != nil {
		return nil, nil, err
	}
	if err := be.Attach(); err != nil {
		return nil, nil, err
	}
	defer be.Detach()
	dec, err := model.Load(be, cfg, &model.Random{Config: cfg, Seed: c.Seed, Std: 0.02}, opts)
	return &bench.Subject{Name: c.Shape, Decoder: dec}, func() error { return nil }, err
}

// fits refuses a shape whose weights the free memory cannot hold, where that is known.
func (c *benchCmd) fits(be kernels.Backend, cfg weights.Config, dt kernels.DType) error {
	need := int64(0)
	for _, p := range cfg.Parameters() {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		need += int64(dt.Bytes(n))
	}
	if free, known := available(be); known && need > free {
		return fmt.Errorf("--shape %s: its weights take %.1f GB in %s, %.1f GB are free: take a smaller one, or --dtype bf16, int8 or int4",
			c.Shape, float64(need)*1e-9, dt, float64(free)*1e-9)
	}
	return nil
}

// load is the benchmark's own, where the flags say nothing else.
func (c *benchCmd) load() bench.Load {
	l := bench.Default(c.What)
	for to, n := range map[*int]int{&l.Prompt: c.Prompt, &l.Tokens: c.Tokens, &l.Samples: c.Samples, &l.Prompts: c.Prompts} {
		if n > 0 {
			*to = n
		}
	}
	return l
}

func (c *benchCmd) measure(ctx context.Context, s *bench.Subject) ([]bench.Row, error) {
	var row bench.Row
	var err error
	switch c.What {
	case "kernels":
		return s.Kernels(ctx)
	case "grpo":
		return s.GRPO(ctx, c.load())
	case "prefill":
		row, err = s.Prefill(ctx, c.load())
	case "decode":
		row, err = s.Decode(ctx, c.load())
	case "group":
		row, err = s.Group(ctx, c.load())
	}
	return []bench.Row{row}, err
}

// print shows the rows: JSON lines, or a table.
func (c *benchCmd) print(rows []bench.Row) {
	if c.JSON {
		for _, r := range rows {
			json.NewEncoder(os.Stdout).Encode(r)
		}
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "bench\tcase\tbound\treached\tunit\tshare\tms")
	if c.What == "kernels" {
		fmt.Fprint(w, "\tMFLOP\tMB")
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		bound, share := "-", "-"
		if r.Bound > 0 {
			bound, share = fmt.Sprintf("%.4g", r.Bound), fmt.Sprintf("%.0f %%", 100*r.Share)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.4g\t%s\t%s\t%.3f", r.Bench, r.Case, bound, r.Reached, r.Unit, share, 1e3*r.Seconds)
		if c.What == "kernels" {
			fmt.Fprintf(w, "\t%.4g\t%.4g", 1e-6*r.Flops, 1e-6*r.Bytes)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Printf("%s in %s with activations in %s on %s\n", rows[0].Model, rows[0].DType, rows[0].Acts, rows[0].Device)
}
