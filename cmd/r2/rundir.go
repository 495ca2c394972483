package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

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
	lock    *os.File
}

// openRun makes the directory, or checks that the run in it has the same configuration. Until close no
// other process can open it.
func openRun(path string, config []setting) (r *runDir, err error) {
	r = &runDir{path: path}
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
		err = writeFile(r.file("config.yaml"), text)
	case err == nil:
		err = sameConfig(path, have, text)
	}
	return r, err
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
	if r.metrics != nil {
		r.metrics.Close()
	}
	r.lock.Close()
}

func (r *runDir) file(name string) string { return filepath.Join(r.path, name) }

// openMetrics opens metrics.jsonl to append after the row of step last; rows after it, and a row cut
// short by a kill, are dropped.
func (r *runDir) openMetrics(last int) error {
	var keep []byte
	f, err := os.Open(r.file("metrics.jsonl"))
	if err == nil {
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			var row struct{ Step int }
			if json.Unmarshal(sc.Bytes(), &row) != nil || row.Step > last {
				break
			}
			keep = append(append(keep, sc.Bytes()...), '\n')
		}
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFile(r.file("metrics.jsonl"), keep); err != nil {
		return err
	}
	r.metrics, err = os.OpenFile(r.file("metrics.jsonl"), os.O_APPEND|os.O_WRONLY, 0o666)
	return err
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
	return r.metrics.Sync()
}

// writeFile replaces a file atomically.
func writeFile(path string, b []byte) error {
	return weights.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
