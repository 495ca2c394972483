package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/r2-reasoner/r2/train"
)

// A runProgress is state.json: how far a run is, and which of its checkpoints is the best so far.
type runProgress struct {
	Command string   `json:"command"`
	Step    int      `json:"step"`
	Steps   int      `json:"steps"`
	Metric  string   `json:"best_metric,omitempty"` // of metrics.jsonl; "": none is better than another
	Best    *int     `json:"best_step,omitempty"`
	Value   *float64 `json:"best_value,omitempty"`

	more    bool // of Metric is better
	updates int  // optimizer steps of a step
	keep    int  // checkpoints
}

// save writes a checkpoint with all that is said about the run so far. The best checkpoint stays, and is
// what checkpoints/best points to.
func (r *runDir) save(l *train.Learner, p runProgress) error {
	if err := r.findBest(&p); err != nil {
		return err
	}
	var also []int
	if p.Best != nil {
		also = append(also, *p.Best*p.updates)
	}
	if err := l.Save(r.file("checkpoints"), p.keep, also...); err != nil {
		return err
	}
	return r.say(p)
}

// findBest looks at the rows of the steps whose checkpoints are there, and at the newest row, whose
// checkpoint is about to be written. The first of equals is the best.
func (r *runDir) findBest(p *runProgress) error {
	if p.Metric == "" {
		return nil
	}
	there, err := train.Checkpoints(r.file("checkpoints"))
	if err != nil {
		return err
	}
	rows, err := r.rows()
	if err != nil {
		return err
	}
	for _, row := range rows {
		v, ok := row.values[p.Metric]
		step := int(row.values["step"])
		if !ok || step > p.Step || step != p.Step && !slices.Contains(there, step*p.updates) {
			continue
		}
		if p.Best == nil || p.more && v > *p.Value || !p.more && v < *p.Value {
			p.Best, p.Value = &step, &v
		}
	}
	return nil
}

// say writes state.json, the link to the best checkpoint, and the report.
func (r *runDir) say(p runProgress) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(r.file("state.json"), append(b, '\n')); err != nil {
		return err
	}
	if p.Best != nil {
		if err := link(strconv.Itoa(*p.Best*p.updates), r.file("checkpoints/best")); err != nil {
			return err
		}
	}
	return r.report(p)
}

// finish writes the summary once the result is there.
func (r *runDir) finish(p runProgress, result string) error {
	if err := r.findBest(&p); err != nil {
		return err
	}
	summary := map[string]any{"command": p.Command, "steps": p.Steps, "result": result}
	if p.Best != nil {
		summary["best_metric"], summary["best_step"], summary["best_value"] = p.Metric, *p.Best, *p.Value
		summary["best"] = r.file(filepath.Join("checkpoints", strconv.Itoa(*p.Best*p.updates)))
	}
	b, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(r.file("summary.json"), append(b, '\n')); err != nil {
		return err
	}
	return r.say(p)
}

// link makes path a symbolic link to target, in place of one that is there.
func link(target, path string) error {
	if at, err := os.Readlink(path); err == nil && at == target {
		return nil
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("best checkpoint: %w", err)
	}
	return os.Rename(tmp, path)
}
