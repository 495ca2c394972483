package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/train/journal"
	"github.com/r2-reasoner/r2/train/rollout"
	"github.com/r2-reasoner/r2/weights"
)

type grpoCmd struct {
	Model         string  `placeholder:"PATH" help:"The base: a folder in the Hugging Face layout, or a .gguf file."`
	Task          string  `placeholder:"NAME" help:"A benchmark with a checker: scan, gsm8k, math, csqa or p3. Without --data, the training split of scan; the others need the benchmark's own file there."`
	RewardCmd     string  `placeholder:"CMD" help:"A command that scores rollouts: JSON lines in, JSON lines out."`
	RewardURL     string  `placeholder:"URL" help:"A server that scores rollouts: a POST of the lines that --reward-cmd reads, answered by those it writes."`
	Module        string  `placeholder:"decomposer|allocator" help:"Train a module of the router of --config, the rest of it as it is: rewards come from answering."`
	Config        string  `placeholder:"r2.yaml" help:"The router and its pool, for --module."`
	Cost          float64 `help:"Reward taken off for each US cent that an answer costs, for --module."`
	Stepwise      bool    `help:"Each decision of the allocator pays for its own subtask, not for the whole answer."`
	Data          string  `placeholder:"FILE.jsonl" help:"Rows {\"prompt\"} or {\"messages\"}, and {\"answer\"} where there is one; or the file of a benchmark."`
	LoRA          string  `name:"lora" default:"r=16,alpha=32,targets=all,rslora=false" help:"The adapter to train."`
	InitAdapter   string  `placeholder:"DIR" help:"Begin from this adapter; it is then the reference policy."`
	Steps         int     `default:"100" help:"Training steps."`
	Prompts       int     `default:"8" help:"Prompts a step."`
	Samples       int     `default:"8" help:"Completions of each prompt."`
	MaxTokens     int     `default:"256" help:"Most tokens of a completion."`
	Temperature   float64 `default:"1" help:"Of drawing; the log-probabilities are those of this distribution."`
	Loss          string  `default:"grpo" help:"grpo, bnpo, dr_grpo, dapo, cispo or gspo."`
	Advantage     string  `default:"group" help:"Advantages divided by the deviation of the group, the batch, or none."`
	Epsilon       string  `default:"0.2,0.28" help:"How far the ratio may fall and rise before it is clipped."`
	KL            float64 `name:"kl" default:"0.04" help:"Weight of the divergence from the reference policy."`
	KLKind        string  `name:"kl-kind" default:"k3" help:"The estimator: k1, k2 or k3."`
	KLRef         string  `name:"kl-ref" default:"start" help:"The reference policy: start (the adapter training begins from) or base."`
	KLCorrect     bool    `name:"kl-correct" help:"Weigh the divergence by the ratio, as TRL does by default."`
	Delta         float64 `help:"Most that the unclipped ratio counts for; 0: no such limit."`
	Overlong      string  `default:"keep" enum:"keep,mask,penalty" help:"Completions cut off at --max-tokens: keep, mask (not trained on) or penalty (up to 1 off over the last fifth)."`
	Updates       int     `default:"1" help:"Optimizer steps on the rollouts of a step."`
	Refill        int     `default:"0" help:"Most prompts a step draws in place of ones whose rewards agree."`
	AllowMismatch bool    `help:"Go on where sampler and trainer disagree on a log-probability."`
	Out           string  `required:"" placeholder:"DIR" help:"The run's directory."`
	dataFlags
	optimizerFlags
	deviceFlags
	outputFlags
}

func (c *grpoCmd) Help() string {
	return `Example:

  r2 grpo --model models/smollm2 --data prompts.jsonl --reward-cmd "python3 reward.py" \
      --steps 10 --prompts 4 --samples 4 --max-tokens 64 --out runs/grpo

The command is started once a step. It gets a JSON line for each rollout on standard input, the row's own
fields with "completion", and answers each in order with a line {"reward": x} or {"error": "why"}.
The same command goes on where a stopped run left off.`
}

// Run trains.
func (c *grpoCmd) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	opt, err := c.optimizer()
	if err != nil {
		return err
	}
	schedule, err := c.schedule(c.Steps)
	if err != nil {
		return err
	}
	if c.Module != "" {
		return c.runModule(ctx, cfg, opt, schedule)
	}
	h, ad, ref, err := c.open()
	if err != nil {
		return err
	}
	defer h.Close()
	score, err := newScorer(h, c)
	if err != nil {
		return err
	}
	tasks, err := score.tasks(c)
	if err != nil {
		return err
	}
	defer tasks.Close()
	settings, err := c.settings()
	if err != nil {
		return err
	}
	run, err := openRun(c.Out, settings)
	if err != nil {
		return err
	}
	defer run.close()
	if score.journal, err = journal.Open(run.file("journal.db")); err != nil {
		return err
	}
	defer score.journal.Close()
	size := trainSize(grpo.Rows(tasks.longest, c.MaxTokens, c.Samples), c.MicroTokens)
	size, err = plan(c.outputFlags, h.dec, ad, size)
	if err != nil {
		return err
	}
	learner, err := train.New(h.dec, ad, ref, size, opt)
	if err != nil {
		return err
	}
	src := &rollout.Source{Engine: h.eng, Adapter: 1, Limit: c.MaxTokens, Temperature: float32(c.Temperature), Stop: h.eos(),
		Vocab: h.config.Vocab, Seed: c.Seed}
	trainer := &grpo.Trainer[*grpoTask]{Config: cfg, Sampler: src, Scorer: score, Policy: learner, Device: h.eng,
		Group: c.Samples, TokensPerBatch: c.MicroTokens, Updates: c.Updates}
	t := &grpoRun{c: c, run: run, learner: learner, schedule: schedule, kept: &score.kept}
	order := &shuffle{seed: c.Seed, n: tasks.count()}
	t.take = func(ctx context.Context, step int, lr float32) (grpo.Stats, error) {
		src.Begin(step)
		score.begin(step)
		t.names = nil
		picked, others := c.draw(order, step)
		batch, err := tasks.read(picked)
		if err != nil {
			return grpo.Stats{}, err
		}
		spare, err := tasks.read(others)
		if err != nil {
			return grpo.Stats{}, err
		}
		t.names = places(batch)
		return trainer.Step(ctx, batch, spare, lr)
	}
	return t.train(ctx)
}

// config is the objective the flags describe.
func (c *grpoCmd) config() (grpo.Config, error) {
	cfg := grpo.Config{Loss: grpo.Kind(c.Loss), Advantage: grpo.Scale(c.Advantage), KL: c.KL, Length: c.MaxTokens,
		Kind: grpo.Divergence(c.KLKind), Corrected: c.KLCorrect, Delta: c.Delta, Overlong: grpo.Overlong(c.Overlong)}
	if c.Overlong == "keep" {
		cfg.Overlong = grpo.Kept
	}
	low, high, ok := strings.Cut(c.Epsilon, ",")
	if !ok {
		high = low
	}
	var err1, err2 error
	cfg.EpsilonLow, err1 = strconv.ParseFloat(strings.TrimSpace(low), 64)
	cfg.EpsilonHigh, err2 = strconv.ParseFloat(strings.TrimSpace(high), 64)
	sources := 0
	for _, s := range []string{c.RewardCmd, c.RewardURL, c.Module} {
		if s != "" {
			sources++
		}
	}
	switch {
	case err1 != nil || err2 != nil:
		return cfg, usage("--epsilon %s: want one number or two, such as 0.2,0.28", c.Epsilon)
	case sources > 1:
		return cfg, usage("--reward-cmd, --reward-url and --module: give one")
	case c.Module != "" && c.Module != allocatorName && c.Module != decomposerName:
		return cfg, usage("--module %s: want allocator or decomposer", c.Module)
	case c.Module != "" && (c.Config == "" || c.Task == "" || c.Model != ""):
		return cfg, usage("--module needs --config with the router, whose model is the base, and --task with questions; not --model")
	case c.Module == "" && (c.Model == "" || c.Config != "" || c.Cost != 0 || c.Stepwise):
		return cfg, usage("--model is missing; --config, --cost and --stepwise belong to --module")
	case c.Module == allocatorName && c.Refill > 0:
		return cfg, usage("--refill: the decisions of a question belong together, so none is drawn again for the allocator")
	case c.Module == decomposerName && c.Stepwise, !(c.Cost >= 0):
		return cfg, usage("--stepwise is for the allocator's decisions, and --cost is a number from 0 up")
	case c.KLRef != "start" && c.KLRef != "base":
		return cfg, usage("--kl-ref %s is not known: use start or base", c.KLRef)
	case sources == 0 && c.Task == "":
		return cfg, usage("say where rewards come from: --task, --reward-cmd or --reward-url")
	case (c.RewardCmd != "" || c.RewardURL != "") && c.Data == "":
		return cfg, usage("--reward-cmd and --reward-url need --data")
	case c.Steps < 1 || c.Prompts < 1 || c.MaxTokens < 1 || c.Updates < 1 || c.Refill < 0:
		return cfg, usage("--steps, --prompts, --max-tokens and --updates must be at least 1, --refill not negative")
	case c.Samples < 2:
		return cfg, usage("--samples %d: at least 2 completions of a prompt are needed to compare", c.Samples)
	case !(c.Temperature > 0):
		return cfg, usage("--temperature %v: completions to compare are drawn at a temperature above 0", c.Temperature)
	}
	if err := cfg.Check(); err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

// open loads the base with the adapter to train as its first, and the reference policy.
func (c *grpoCmd) open() (h *host, ad, ref *model.Adapter, err error) {
	be, err := c.deviceFlags.open()
	if err != nil {
		return nil, nil, nil, err
	}
	h, ad, ref, err = openPolicy(be, trainFlags{model: c.Model, lora: c.LoRA, init: c.InitAdapter, deviceFlags: c.deviceFlags},
		hostOptions{sequences: min(64, c.Prompts*c.Samples)})
	if c.KLRef == "base" {
		ref = nil
	}
	return h, ad, ref, err
}

// openPolicy opens a base, the adapter to train over it (number 1 of the engine), and the adapter it
// begins from as the reference; nil is the base.
func openPolicy(be kernels.Backend, f trainFlags, o hostOptions) (h *host, ad, ref *model.Adapter, err error) {
	if h, err = openModel(be, f.model, nil, f.deviceFlags); err != nil {
		return nil, nil, nil, err
	}
	fail := func(err error) (*host, *model.Adapter, *model.Adapter, error) {
		h.files.Close()
		return nil, nil, nil, err
	}
	a, err := f.adapter(h.config)
	if err != nil {
		return fail(err)
	}
	if err := be.Attach(); err != nil {
		return fail(err)
	}
	ad, err = h.dec.LoadAdapter(a)
	if err == nil && f.init != "" {
		ref, err = h.dec.LoadAdapter(a)
	}
	be.Detach()
	if err != nil {
		return fail(err)
	}
	h.adapters, h.loaded = []string{"policy"}, []*model.Adapter{ad}
	if err := h.start(o); err != nil {
		return fail(err)
	}
	return h, ad, ref, nil
}

func (c *grpoCmd) settings() ([]setting, error) {
	hash, router := "", ""
	for file, to := range map[string]*string{c.Data: &hash, c.Config: &router} {
		if file != "" {
			var err error
			if *to, err = hashFiles([]string{file}); err != nil {
				return nil, err
			}
		}
	}
	own := append(c.dataFlags.settings(), c.optimizerFlags.settings()...)
	return append([]setting{{"command", "grpo"}, {"model", c.Model}, {"init_adapter", c.InitAdapter}, {"lora", c.LoRA},
		{"module", c.Module}, {"config", c.Config}, {"config_sha256", router}, {"cost", c.Cost}, {"stepwise", c.Stepwise},
		{"task", c.Task}, {"reward_cmd", c.RewardCmd}, {"reward_url", c.RewardURL}, {"data", c.Data}, {"data_sha256", hash}, {"steps", c.Steps},
		{"prompts", c.Prompts}, {"samples", c.Samples}, {"max_tokens", c.MaxTokens}, {"temperature", c.Temperature},
		{"loss", c.Loss}, {"advantage", c.Advantage}, {"epsilon", c.Epsilon}, {"kl", c.KL},
		{"kl_kind", c.KLKind}, {"kl_ref", c.KLRef}, {"kl_correct", c.KLCorrect}, {"delta", c.Delta}, {"overlong", c.Overlong}, {"updates", c.Updates},
		{"refill", c.Refill}, {"seed", c.Seed}, {"dtype", c.DType}, {"activations", c.Acts}}, own...), nil
}

// grpoRun is a run under way.
type grpoRun struct {
	c        *grpoCmd
	run      *runDir
	learner  *train.Learner
	schedule train.Schedule
	take     func(ctx context.Context, step int, lr float32) (grpo.Stats, error)
	names    []string // of the batch's rows
	kept     *kept
}

// A grpoRow is a row of metrics.jsonl.
type grpoRow struct {
	Step int     `json:"step"`
	LR   float64 `json:"lr"`
	grpo.Stats
	Seconds float64 `json:"seconds"`
}

func (t *grpoRun) train(ctx context.Context) error {
	if err := resumeRun(t.run, t.learner, t.c.Updates, t.c.outputFlags); err != nil {
		return err
	}
	bar := newProgress(t.c.outputFlags, "grpo", t.c.Steps, t.learner.Step/t.c.Updates)
	defer bar.close()
	for step := t.learner.Step / t.c.Updates; step < t.c.Steps; step++ {
		row, err := t.step(ctx, step)
		if err != nil {
			return err
		}
		stop := ctx.Err() != nil
		if err := t.run.append(row); err != nil {
			return err
		}
		if row.Step%t.c.SaveEvery == 0 || row.Step == t.c.Steps || stop {
			if err := t.run.save(t.learner, t.progress(row.Step)); err != nil {
				return err
			}
		}
		bar.step(row.Step, fmt.Sprintf("reward %.3f  parity %g  %.0f tok/s", row.RewardMean, row.Parity, float64(row.Tokens)/row.Seconds))
		if t.c.JSON {
			json.NewEncoder(os.Stdout).Encode(row)
		}
		if stop && row.Step < t.c.Steps {
			t.c.note("stopped after step %d; the same command goes on from there", row.Step)
			return ctx.Err()
		}
	}
	return t.finish()
}

// progress is how far the run is at a step.
func (t *grpoRun) progress(step int) runProgress {
	return runProgress{Command: "grpo", Step: step, Steps: t.c.Steps, Metric: "reward_mean", more: true, updates: t.c.Updates, keep: t.c.Keep}
}

// step takes one training step. An interrupt ends the run after it, not within.
func (t *grpoRun) step(ctx context.Context, step int) (grpoRow, error) {
	begin := time.Now()
	lr := t.schedule.Rate(step)
	st, err := t.take(context.WithoutCancel(ctx), step, float32(lr))
	if err != nil {
		return grpoRow{}, ofRows(step+1, t.names, t.kept.useless(context.WithoutCancel(ctx), err))
	}
	if st.Parity != 0 && !t.c.AllowMismatch {
		return grpoRow{}, fmt.Errorf("step %d: sampler and trainer differ by up to %g in a log-probability; they must agree to the bit (--allow-mismatch goes on all the same)", step+1, st.Parity)
	}
	return grpoRow{Step: step + 1, LR: lr, Stats: st, Seconds: time.Since(begin).Seconds()}, nil
}

func (t *grpoRun) finish() error {
	path := t.run.file("adapter")
	if err := t.learner.Export(path, weights.F32); err != nil {
		return err
	}
	if err := t.run.finish(t.progress(t.c.Steps), path); err != nil {
		return err
	}
	if !t.c.JSON {
		fmt.Printf("%s after %d steps\n", path, t.c.Steps)
	}
	return nil
}
