package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/r2-reasoner/r2/bench/report"
	"github.com/r2-reasoner/r2/weights"
)

// curves are what a run's report shows, of what its rows have.
var curves = []struct {
	heading, text, unit string
	fields              []string
}{
	{"Loss", "What the optimizer lowers. Supervised: nats a target token, before the step's update; eval_loss is on examples that are not trained on. GRPO: the clipped objective with the KL term; it need not fall while the reward rises.", "loss", []string{"loss", "eval_loss"}},
	{"Reward", "The mean over all completions whose reward could be computed, and the mean of the groups' standard deviations: where that is 0 there is nothing to learn.", "reward", []string{"reward_mean", "reward_std"}},
	{"KL", "Estimated divergence from the reference policy, nats a token. A steep rise: the policy runs away from where it began.", "nats", []string{"kl"}},
	{"Entropy", "Mean entropy of the policy's distributions at the tokens trained on, nats a token. Near 0 the samples of a group become one.", "nats", []string{"entropy", "entropy_estimate"}},
	{"Length", "Mean tokens of a completion. At the limit, answers are cut off.", "tokens", []string{"length_mean"}},
	{"Truncated", "Share of the completions that the limit cut off before they ended.", "share", []string{"truncated"}},
	{"Clip share", "Share of the tokens that the clip keeps from learning; 0 on the first update after a rollout.", "share", []string{"clip_share"}},
	{"Zero variance", "Share of the groups whose rewards agree: they teach nothing.", "share", []string{"zero_variance"}},
	{"Gradient norm", "Of all gradients together, before clipping.", "norm", []string{"grad_norm"}},
	{"Learning rate", "As scheduled.", "rate", []string{"lr"}},
	{"Parity", "Largest difference between the log-probability a token was drawn with and the trainer's. It must be 0: sampler and trainer are one policy.", "nats", []string{"parity"}},
	{"Speed", "Tokens of the step (supervised: target tokens; GRPO: those of completions) by its seconds.", "tokens/s", []string{"tokens_per_second"}},
}

// report writes report.html.
func (r *runDir) report(p runProgress) error {
	rows, err := r.rows()
	if err != nil {
		return err
	}
	page := report.Page{Title: fmt.Sprintf("r2 %s: %s", p.Command, filepath.Base(r.path)), Intro: intro(p, rows)}
	for _, c := range curves {
		l := report.Lines{X: "step", Y: c.unit}
		for _, field := range c.fields {
			curve := report.Curve{Name: field}
			for _, row := range rows {
				if v, ok := row.values[field]; ok {
					curve.X, curve.Y = append(curve.X, row.values["step"]), append(curve.Y, v)
				}
			}
			if len(curve.X) > 0 {
				l.Curves = append(l.Curves, curve)
			}
		}
		if len(l.Curves) > 0 {
			page.Sections = append(page.Sections, report.Section{Heading: c.heading, Text: c.text + last(l.Curves), Lines: &l})
		}
	}
	return weights.WriteFile(r.file("report.html"), func(w io.Writer) error { return report.Write(w, &page) })
}

func intro(p runProgress, rows []metric) string {
	seconds := 0.0
	for _, row := range rows {
		seconds += row.values["seconds"]
	}
	s := fmt.Sprintf("%d of %d steps in %v.", p.Step, p.Steps, time.Duration(seconds*float64(time.Second)).Round(time.Millisecond))
	if p.Best != nil {
		s += fmt.Sprintf(" The best checkpoint is that of step %d: %s %.4g.", *p.Best, p.Metric, *p.Value)
	}
	return s
}

// last says where each curve ends.
func last(cs []report.Curve) string {
	s := ""
	for _, c := range cs {
		s += fmt.Sprintf(" Last %s: %.4g.", c.Name, c.Y[len(c.Y)-1])
	}
	return s
}
