package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/weights"
)

// A stopwatch is a device that times its graphs.
type stopwatch struct {
	driver.Device
	at [2]driver.Event
}

func (s *stopwatch) Replay(e driver.Exec) error {
	return errors.Join(s.Device.Record(s.at[0]), s.Device.Replay(e), s.Device.Record(s.at[1]))
}

// overhead times decode steps and the graph within each: what is left is the host's, and the device waits.
func overhead(o options, _ []string) error {
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Bind(); err != nil {
		return err
	}
	watch := &stopwatch{Device: d}
	for i := range watch.at {
		if watch.at[i], err = d.NewEvent(); err != nil {
			return err
		}
	}
	cfg, err := shapeOf(o.shape)
	if err != nil {
		return err
	}
	cfg.Layers, cfg.Vocab = min(cfg.Layers, 4), min(cfg.Vocab, 8192) // the host's part is by the step, not by the layer
	be, err := cuda.On(watch, cuda.Options{})
	if err != nil {
		return err
	}
	dec, err := model.Load(be, cfg, &model.Random{Config: cfg, Seed: o.seed, Std: 0.02}, model.Options{Convert: true, DType: weights.BF16, Context: 512})
	if err != nil {
		return err
	}
	for _, n := range []int{1, 8, 64, 256} {
		if o.simulated() && n > 8 {
			break
		}
		row, err := watch.steps(dec, n)
		if err != nil {
			return err
		}
		if err := o.add(row); err != nil {
			return err
		}
	}
	return nil
}

// steps times decode steps of n sequences.
func (s *stopwatch) steps(dec *model.Decoder, n int) (bench.Row, error) {
	const pageSize, pages = 16, 8
	run, err := runner.New(dec, model.Size{Tokens: n, Sequences: n, Wanted: n, Pages: pages, PageSize: pageSize}, n*pages)
	if err != nil {
		return bench.Row{}, err
	}
	b, draws := &batch.Batch{Starts: []int32{0}}, make([]sample.Draw, n)
	for i := range int32(n) {
		var mine []int32
		for p := range int32(pages) {
			mine = append(mine, i*pages+p)
		}
		b.Tokens, b.Positions, b.Slots = append(b.Tokens, i), append(b.Positions, 64), append(b.Slots, (i*pages+4)*pageSize)
		b.Starts, b.Lengths, b.Pages = append(b.Starts, i+1), append(b.Lengths, 65), append(b.Pages, mine)
		b.Want, b.Temperatures = append(b.Want, i), append(b.Temperatures, 1)
		draws[i] = sample.Draw{Params: sample.Params{Temperature: 1}, Sample: uint32(i)}
	}
	var host []float64
	for i := range 25 {
		start := time.Now()
		if _, err := run.Step(b, draws); err != nil {
			return bench.Row{}, err
		}
		took := time.Since(start)
		graph, err := s.Elapsed(s.at[0], s.at[1])
		if err != nil {
			return bench.Row{}, err
		}
		if i >= 5 {
			host = append(host, 1e3*(took-graph).Seconds())
		}
	}
	slices.Sort(host)
	return bench.Row{Bench: "overhead", Case: fmt.Sprintf("a decode step of %d beside its graph, 5th and 95th percentile %.3f and %.3f", n, host[1], host[18]),
		Device: s.Name(), Unit: "ms", Reached: host[len(host)/2], Each: host}, nil
}
