package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/r2-reasoner/r2/train/events"
)

// openEvents writes TensorBoard's file of the rows there are, and opens it to append. Its name and its
// times begin with the run's configuration, so that a run taken up again has one file.
func (r *runDir) openEvents(rows []metric) error {
	info, err := os.Stat(r.file("config.yaml"))
	if err != nil {
		return err
	}
	at := float64(info.ModTime().Unix())
	var b bytes.Buffer
	w, err := events.NewWriter(&b, at)
	if err != nil {
		return err
	}
	for _, row := range rows {
		at += row.values["seconds"]
		if err := w.Scalars(at, int64(row.values["step"]), row.scalars()); err != nil {
			return err
		}
	}
	path := r.file(fmt.Sprintf("%s%d.r2", events.Name, info.ModTime().Unix()))
	if err := writeFile(path, b.Bytes()); err != nil {
		return err
	}
	r.events, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o666)
	return err
}

// event appends a row to TensorBoard's file.
func (r *runDir) event(m metric, at float64) error {
	return events.Append(r.events).Scalars(at, int64(m.values["step"]), m.scalars())
}

// scalars are the row's numbers but for step.
func (m metric) scalars() map[string]float64 {
	out := maps.Clone(m.values)
	maps.DeleteFunc(out, func(k string, _ float64) bool { return k == "step" || strings.HasPrefix(k, "seconds") })
	return out
}
