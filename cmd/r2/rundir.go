package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/weights"
)

// A setting is one line of a run's configuration.
type setting struct {
	name  string
	value any
}

// A runDir is the directory of a training run: its configuration, a row of metrics a step, its
// checkpoints and its result.
type runDir struct {
	path    string
	metrics *os.File
	events  *os.File // TensorBoard's
	lock    *os.File
}

// openRun makes the directory, or checks that the run in it has the same configuration. Until close no
// other process can open it.
func openRun(path string, config []setting) (_ *runDir, err error) {
	r := &runDir{path: path}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, err
	}
	if r.lock, err = lockDir(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	var want yaml.MapSlice
	for _, s := range config {
		want = append(want, yaml.MapItem{Key: s.name, Value: s.value})
	}
	text, err := yaml.Marshal(want)
	if err != nil {
		return nil, err
	}
	have, err := os.ReadFile(r.file("config.yaml"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = r.unclaimed(); err == nil {
			err = writeFile(r.file("config.yaml"), text)
		}
	case err == nil:
		err = sameConfig(path, have, text)
	}
	return r, err
}

// unclaimed refuses a directory whose checkpoints are of a run that nothing is known about.
func (r *runDir) unclaimed() error {
	there, err := train.Checkpoints(r.file("checkpoints"))
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s has checkpoints but no config.yaml to say of which run; put it back, or use another --out", r.path)
	}
	return err
}

// sameConfig says which settings differ between the run in a directory and the one asked for.
func sameConfig(path string, have, want []byte) error {
	var h, w map[string]any
	if err := yaml.Unmarshal(have, &h); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(path, "config.yaml"), err)
	}
	if err := yaml.Unmarshal(want, &w); err != nil {
		return err
	}
	var order yaml.MapSlice
	if err := yaml.Unmarshal(want, &order); err != nil {
		return err
	}
	for _, item := range order {
		name := fmt.Sprint(item.Key)
		if fmt.Sprint(h[name]) != fmt.Sprint(w[name]) {
			return fmt.Errorf("%s holds a run with %s %v, this one asks for %v; use another --out, or the same settings to go on", path, name, h[name], w[name])
		}
	}
	return nil
}

// close gives the directory up.
func (r *runDir) close() {
	for _, f := range []*os.File{r.metrics, r.events, r.lock} {
		if f != nil {
			f.Close()
		}
	}
}

func (r *runDir) file(name string) string { return filepath.Join(r.path, name) }

// openMetrics opens metrics.jsonl to append after the row of step last; rows after it, and a row cut
// short by a kill, are dropped. TensorBoard's file is made anew from those that stay.
func (r *runDir) openMetrics(last int) error {
	rows, err := r.rows()
	if err != nil {
		return err
	}
	var keep []byte
	for i, row := range rows {
		if row.values["step"] > float64(last) {
			rows = rows[:i]
			break
		}
		keep = append(append(keep, row.text...), '\n')
	}
	if err := writeFile(r.file("metrics.jsonl"), keep); err != nil {
		return err
	}
	if r.metrics, err = os.OpenFile(r.file("metrics.jsonl"), os.O_APPEND|os.O_WRONLY, 0o666); err != nil {
		return err
	}
	return r.openEvents(rows)
}

// A metric is a row of metrics.jsonl: its text, and those of its fields that are numbers.
type metric struct {
	text   []byte
	values map[string]float64
}

func parseMetric(text []byte) (metric, error) {
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return metric{}, err
	}
	m := metric{text: bytes.Clone(text), values: map[string]float64{}}
	for k, v := range all {
		if x, ok := v.(float64); ok {
			m.values[k] = x
		}
	}
	if m.values["seconds"] > 0 {
		m.values["tokens_per_second"] = m.values["tokens"] / m.values["seconds"]
	}
	return m, nil
}

// rows are the rows of metrics.jsonl up to the first that is cut short.
func (r *runDir) rows() ([]metric, error) {
	f, err := os.Open(r.file("metrics.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []metric
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		m, err := parseMetric(sc.Bytes())
		if err != nil {
			break
		}
		out = append(out, m)
	}
	return out, sc.Err()
}

// append adds a row to metrics.jsonl. It comes before the checkpoint of its step, so that whoever goes
// on from there finds it.
func (r *runDir) append(row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return err
	}
	if _, err = r.metrics.Write(append(b, '\n')); err != nil {
		return err
	}
	if err := r.metrics.Sync(); err != nil {
		return err
	}
	m, err := parseMetric(b)
	if err != nil {
		return err
	}
	return r.event(m, float64(time.Now().UnixMilli())/1000)
}

// writeFile replaces a file atomically.
func writeFile(path string, b []byte) error {
	return weights.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
