package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/sft"
	"github.com/r2-reasoner/r2/weights"
)

type sftCmd struct {
	Model       string   `placeholder:"PATH" help:"The base: a folder in the Hugging Face layout, or a .gguf file."`
	Data        []string `required:"" sep:"none" placeholder:"FILE.jsonl" help:"Examples; may be repeated."`
	EvalData    string   `placeholder:"FILE.jsonl" help:"Examples whose loss is reported at every checkpoint."`
	LoRA        string   `name:"lora" default:"r=16,alpha=32,targets=all,rslora=false" help:"The adapter to train."`
	Full        bool     `help:"Train all weights instead of an adapter."`
	InitAdapter string   `placeholder:"DIR" help:"Begin from this adapter."`
	Init        string   `placeholder:"random:SEED" help:"A new model of random weights, with --config and --tokenizer; implies --full."`
	Config      string   `placeholder:"config.json" help:"Configuration of the new model."`
	Tokenizer   string   `placeholder:"DIR" help:"Tokenizer of the new model."`
	Steps       int      `help:"Optimizer steps; 0: by --epochs."`
	Epochs      float64  `default:"1" help:"Passes over the data."`
	Batch       int      `default:"8" help:"Sequences a step; the loss is the mean over their target tokens."`
	NoShuffle   bool     `help:"Take rows in file order; otherwise a permutation by seed and epoch."`
	Out         string   `required:"" placeholder:"DIR" help:"The run's directory."`
	dataFlags
	optimizerFlags
	deviceFlags
	outputFlags
}

func (c *sftCmd) Help() string {
	return `Rows are {"messages"}, {"prompt","completion"} or {"tokens","mask"}. Example:

  r2 sft --model models/qwen --data train.jsonl --lora r=16,alpha=32 --steps 200 --out runs/sft

The adapter is then in runs/sft/adapter, in PEFT's layout. The same command goes on where a stopped run
left off.`
}

// Run trains.
func (c *sftCmd) Run(ctx context.Context) error {
	opt, err := c.optimizer()
	if err != nil {
		return err
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	defer l.Close()
	data, err := openDataset(l.vocabulary(), c.Data, l.context(), c.dataFlags)
	if err != nil {
		return err
	}
	defer data.Close()
	data.say(c.outputFlags)
	longest := data.longest
	var eval *dataset
	evalHash := ""
	if c.EvalData != "" {
		if eval, err = openDataset(l.vocabulary(), []string{c.EvalData}, l.context(), c.dataFlags); err != nil {
			return err
		}
		defer eval.Close()
		eval.say(c.outputFlags)
		longest, evalHash = max(longest, eval.longest), eval.hash
	}
	steps, err := c.steps(len(data.places))
	if err != nil {
		return err
	}
	schedule, err := c.schedule(steps)
	if err != nil {
		return err
	}
	run, err := openRun(c.Out, c.settings(data.hash, evalHash, steps))
	if err != nil {
		return err
	}
	defer run.close()
	learner, err := l.learner(longest, c.MicroTokens, opt, c.outputFlags)
	if err != nil {
		return err
	}
	t := &sftRun{c: c, l: l, run: run, learner: learner, data: data, eval: eval, steps: steps, schedule: schedule,
		rows: shuffle{seed: c.Seed, n: len(data.places), plain: c.NoShuffle}}
	return t.train(ctx)
}

// settings are what a run that goes on must have as it had them: the rows evaluated on too, for they choose the best checkpoint.
func (c *sftCmd) settings(hash, evalHash string, steps int) []setting {
	own := append(c.dataFlags.settings(), c.optimizerFlags.settings()...)
	return append([]setting{{"command", "sft"}, {"model", c.Model}, {"init", c.Init}, {"init_adapter", c.InitAdapter},
		{"lora", c.LoRA}, {"full", c.Full}, {"data", c.Data}, {"data_sha256", hash}, {"eval_data", c.EvalData},
		{"eval_data_sha256", evalHash}, {"steps", steps}, {"batch", c.Batch},
		{"shuffle", !c.NoShuffle}, {"seed", c.Seed}, {"dtype", c.DType}, {"activations", c.Acts}}, own...)
}

// steps is how many optimizer steps to take over n examples.
func (c *sftCmd) steps(n int) (int, error) {
	if c.Batch < 1 || c.Steps < 0 || !(c.Epochs > 0) {
		return 0, usage("--batch must be at least 1, --steps not negative, --epochs above 0")
	}
	if c.Steps > 0 {
		return c.Steps, nil
	}
	return max(1, int(c.Epochs*float64(perEpoch(n, c.Batch))+0.5)), nil
}

func perEpoch(n, batch int) int { return (n + batch - 1) / batch }

// pick is the rows of a step: each epoch goes once through all of them, its last step with what is left.
func (t *sftRun) pick(step int) []int {
	n := len(t.data.places)
	epoch, j := step/perEpoch(n, t.c.Batch), step%perEpoch(n, t.c.Batch)
	return t.rows.in(epoch)[j*t.c.Batch : min(n, (j+1)*t.c.Batch)]
}

// sftRun is a run under way.
type sftRun struct {
	c        *sftCmd
	l        *trainee
	run      *runDir
	learner  *train.Learner
	data     *dataset
	eval     *dataset // nil: none
	steps    int
	schedule train.Schedule
	rows     shuffle
}

// An sftRow is a row of metrics.jsonl.
type sftRow struct {
	Step     int      `json:"step"`
	Loss     float64  `json:"loss"`
	EvalLoss *float64 `json:"eval_loss,omitempty"`
	LR       float64  `json:"lr"`
	GradNorm float64  `json:"grad_norm"`
	Tokens   int      `json:"tokens"`
	Seconds  float64  `json:"seconds"`
}

func (t *sftRun) train(ctx context.Context) error {
	if err := t.resume(); err != nil {
		return err
	}
	bar := newProgress(t.c.outputFlags, "sft", t.steps, t.learner.Step)
	defer bar.close()
	for t.learner.Step < t.steps {
		row, err := t.step()
		if err != nil {
			return err
		}
		stop := ctx.Err() != nil
		save := row.Step%t.c.SaveEvery == 0 || row.Step == t.steps || stop
		if save && t.eval != nil {
			if err := t.evaluate(&row); err != nil {
				return err
			}
		}
		if err := t.run.append(row); err != nil {
			return err
		}
		if save {
			if err := t.run.save(t.learner, t.progress(row.Step)); err != nil {
				return err
			}
		}
		bar.step(row.Step, fmt.Sprintf("loss %.4f  lr %.2e  %.0f tok/s", row.Loss, row.LR, float64(row.Tokens)/row.Seconds))
		if t.c.JSON {
			json.NewEncoder(os.Stdout).Encode(row)
		}
		if stop && row.Step < t.steps {
			t.c.note("stopped after step %d; the same command goes on from there", row.Step)
			return ctx.Err()
		}
	}
	return t.finish()
}

// progress is how far the run is at a step. Without --eval-data there is no best checkpoint: the loss of
// one batch says too little.
func (t *sftRun) progress(step int) runProgress {
	p := runProgress{Command: "sft", Step: step, Steps: t.steps, updates: 1, keep: t.c.Keep}
	if t.eval != nil {
		p.Metric = "eval_loss"
	}
	return p
}

func (t *sftRun) step() (sftRow, error) {
	begin := time.Now()
	step := t.learner.Step
	lr := t.schedule.Rate(step)
	ex, names, err := t.data.read(t.pick(step))
	if err != nil {
		return sftRow{}, err
	}
	st, err := sft.Step(t.learner, ex, t.c.MicroTokens, float32(lr))
	if err != nil {
		return sftRow{}, ofRows(step+1, names, err)
	}
	return sftRow{Step: step + 1, Loss: st.Loss, LR: lr, GradNorm: st.GradNorm, Tokens: st.Tokens,
		Seconds: time.Since(begin).Seconds()}, nil
}

// resume goes on from the newest whole checkpoint.
func (t *sftRun) resume() error {
	return resumeRun(t.run, t.learner, 1, t.c.outputFlags)
}

// resumeRun goes on from the newest whole checkpoint of a run whose steps take so many updates each.
func resumeRun(run *runDir, l *train.Learner, updates int, o outputFlags) error {
	passed, err := l.Resume(run.file("checkpoints"))
	if err != nil {
		return err
	}
	for _, p := range passed {
		fmt.Fprintf(os.Stderr, "warning: passed over a checkpoint: %v\n", p) // however quiet the run is to be
	}
	if l.Step > 0 {
		o.note("going on from step %d", l.Step/updates)
	}
	return run.openMetrics(l.Step / updates)
}

func (t *sftRun) evaluate(row *sftRow) error {
	st, err := sft.Evaluate(t.learner, t.eval.all(), t.c.MicroTokens)
	row.EvalLoss = &st.Loss
	return err
}

// finish writes the result.
func (t *sftRun) finish() error {
	path, err := t.l.export(t.run, t.learner)
	if err != nil {
		return err
	}
	if err := t.run.finish(t.progress(t.steps), path); err != nil {
		return err
	}
	if !t.c.JSON {
		fmt.Printf("%s after %d steps\n", path, t.learner.Step)
	}
	return nil
}

// open opens what is to be trained.
func (c *sftCmd) open() (*trainee, error) {
	if c.Init != "" {
		var seed uint64
		if _, err := fmt.Sscanf(c.Init, "random:%d", &seed); err != nil {
			return nil, usage("--init %s: want random:SEED", c.Init)
		}
		if c.Config == "" || c.Model != "" || c.InitAdapter != "" {
			return nil, usage("--init random needs --config, and neither --model nor --init-adapter")
		}
		return openNew(c.deviceFlags, seed, c.Config, c.Tokenizer)
	}
	if c.Model == "" {
		return nil, usage("--model is missing (or --init random:SEED with --config)")
	}
	t := trainFlags{model: c.Model, lora: c.LoRA, full: c.Full, init: c.InitAdapter, deviceFlags: c.deviceFlags}
	return t.open(c.outputFlags)
}

// exportType is the type all weights are written in: the one asked for, else the configuration's.
func exportType(dtype string, cfg weights.Config) weights.DType {
	if dtype == "bf16" || dtype == "auto" && cfg.DType == "bfloat16" {
		return weights.BF16
	}
	return weights.F32
}

// trainSize is the room a learner needs for sequences of at most longest tokens.
func trainSize(longest, micro int) model.Size {
	n := max(longest, micro)
	return model.Size{Tokens: n, Sequences: n, Wanted: n, Slice: min(n, 128)}
}

func copyFiles(from, to string, names ...string) error {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
