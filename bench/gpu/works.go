package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/r2-reasoner/r2/bench"
	"github.com/r2-reasoner/r2/bench/predict"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/weights"
)

// works measures each piece of work that predicted.json predicts, on a model's folder, and adds it beside the prediction.
func works(o options, args []string) error {
	dir, err := only(args, "the model's folder")
	if err != nil {
		return err
	}
	acts := map[string]kernels.DType{"f32": kernels.F32, "bf16": kernels.BF16}
	a, ok := acts[o.acts]
	if !ok {
		return fmt.Errorf("-activations %s: want f32 or bf16", o.acts)
	}
	d, err := o.open()
	if err != nil {
		return err
	}
	defer d.Close()
	be, err := cuda.On(d, cuda.Options{Activations: a})
	if err != nil {
		return err
	}
	files, err := weights.Open(dir)
	if err != nil {
		return err
	}
	defer files.Close()
	m := &measured{be: be, rank: predict.Rank, few: o.simulated()}
	if m.dec, err = model.Load(be, files.Config, files, model.Options{Context: 2048}); err != nil {
		return err
	}
	predictions, err := predict.Committed()
	if err != nil {
		return err
	}
	for _, w := range predict.Works {
		if o.simulated() {
			w = small(w)
		}
		took, err := m.measure(w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Case, err)
		}
		row := bench.Row{Bench: "work", Case: w.Case, DType: "bf16", Acts: o.acts, Device: d.Name(), Unit: "a second", Reached: 1 / took.Seconds(), Seconds: took.Seconds()}
		for _, p := range predictions {
			if p.Case == w.Case && p.Acts == o.acts && o.shape == "qwen2.5-7b" {
				row.Bound = 1 / p.Seconds
				row.Share = row.Reached / row.Bound
				fmt.Printf("%-34s measured %10.3f ms, predicted %10.3f ms\n", w.Case, 1e3*took.Seconds(), 1e3*p.Seconds)
			}
		}
		if err := o.add(row); err != nil {
			return err
		}
	}
	return nil
}

// small is a work of the same kind for the simulator.
func small(w predict.Work) predict.Work {
	w.N, w.Tokens, w.Context = min(w.N, 2), min(w.Tokens, 3), min(w.Context, 20)
	if w.Kind == predict.Linear || w.Kind == predict.Attention || w.Kind == predict.Gradient {
		w.N = 32
	}
	return w
}

// A measured model is on a device, with what its work needs, which stays there.
type measured struct {
	be      *cuda.Device
	dec     *model.Decoder
	rank    int
	adapter *model.Adapter
	run     *runner.Runner
	learner *train.Learner
	few     bool // the sizes are small's
}

// timed is the time of a call: of one alone where the sizes are small's, since the simulator's time means nothing.
func (m *measured) timed(call func() error) (time.Duration, error) {
	if !m.few {
		return timed(call, m.be.Sync)
	}
	start := time.Now()
	err := errors.Join(call(), m.be.Sync())
	return time.Since(start), err
}

func (m *measured) measure(w predict.Work) (time.Duration, error) {
	c := m.dec.Config
	switch w.Kind {
	case predict.Step:
		return m.step(w)
	case predict.Linear:
		p := square{rows: w.N, n: w.N, raw: halves(w.N * w.N)}
		return p.on(m.be)
	case predict.Attention, predict.Gradient:
		return m.attention(w, c.Heads, c.KVHeads, c.HeadDim)
	}
	return m.training(w)
}

// load has an adapter ready.
func (m *measured) load() error {
	if m.adapter != nil {
		return nil
	}
	cfg := weights.AdapterConfig{R: m.rank, Alpha: 2 * float64(m.rank), Targets: weights.Targets{Names: model.Modules()}}
	a, err := model.RandomAdapter(m.dec.Config, cfg, 1)
	if err == nil {
		err = m.attached(func() error { m.adapter, err = m.dec.LoadAdapter(a); return err })
	}
	return err
}

func (m *measured) attached(f func() error) error {
	if err := m.be.Attach(); err != nil {
		return err
	}
	defer m.be.Detach()
	return f()
}

// step times a batch. One runner has room for all.
func (m *measured) step(w predict.Work) (time.Duration, error) {
	if err := m.load(); err != nil {
		return 0, err
	}
	if m.run == nil {
		const pageSize = 16
		size := model.Size{PageSize: pageSize, Rank: m.rank}
		pages := 0
		for _, x := range predict.Works {
			if m.few {
				x = small(x)
			}
			if x.Kind == predict.Step {
				each := (x.Context + pageSize - 1) / pageSize
				size.Tokens, size.Sequences, size.Pages = max(size.Tokens, x.N*x.Tokens), max(size.Sequences, x.N), max(size.Pages, each)
				pages = max(pages, x.N*each)
			}
		}
		size.Wanted = size.Sequences
		var err error
		if m.run, err = runner.New(m.dec, size, pages); err != nil {
			return 0, err
		}
		m.run.SetAdapter(1, m.adapter)
	}
	b, draws := predict.Steps(w.N, w.Tokens, w.Context, w.Shared)
	if w.Rank > 0 {
		for range w.N {
			b.Adapters = append(b.Adapters, 1)
		}
	}
	return m.timed(func() error { return stepped(m.run, b, draws) })
}

func stepped(r *runner.Runner, b *batch.Batch, draws []sample.Draw) error {
	_, err := r.Step(b, draws)
	return err
}

// attention times it, or its gradient, on one sequence.
func (m *measured) attention(w predict.Work, heads, kv, dim int) (took time.Duration, err error) {
	err = m.attached(func() error {
		var all []kernels.Tensor
		tensor := func(t kernels.DType, rows, cols int, v float32) kernels.Tensor {
			x := m.be.New(t, rows, cols)
			if v != 0 {
				m.be.Fill(x, v)
			}
			all = append(all, x)
			return x
		}
		defer func() {
			for _, x := range all {
				m.be.Free(x)
			}
		}()
		n := w.N
		q, out, key, v := tensor(kernels.F32, n, heads*dim, 0.5), tensor(kernels.F32, n, heads*dim, 0), tensor(kernels.F32, n, kv*dim, 0.5), tensor(kernels.F32, n, kv*dim, 0.5)
		lse, starts, lengths := tensor(kernels.F32, n, heads, 0), tensor(kernels.I32, 2, 1, 0), tensor(kernels.I32, 1, 1, 0)
		m.be.Write(starts, []byte{0, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), 0})
		m.be.Write(lengths, []byte{byte(n), byte(n >> 8), byte(n >> 16), 0})
		a := kernels.Attn{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: float32(1 / math.Sqrt(float64(dim))), Starts: starts, Lengths: lengths, MaxQueries: n}
		call := func() error { m.be.Attention(out, lse, q, key, v, a); return nil }
		if w.Kind == predict.Gradient {
			dq, dout, dk, dv := tensor(kernels.F32, n, heads*dim, 0), tensor(kernels.F32, n, heads*dim, 0.5), tensor(kernels.F32, n, kv*dim, 0), tensor(kernels.F32, n, kv*dim, 0)
			m.be.Attention(out, lse, q, key, v, a)
			call = func() error { m.be.AttentionGrad(dq, dk, dv, dout, out, lse, q, key, v, a); return nil }
		}
		took, err = m.timed(call)
		return err
	})
	return took, err
}

// training times a part of a group's pass through a learner.
func (m *measured) training(w predict.Work) (time.Duration, error) {
	if err := m.load(); err != nil {
		return 0, err
	}
	b := &batch.Batch{}
	batch.Pack(b, predict.Group(w.Context, w.Tokens, w.N), predict.MicroTokens)
	if m.learner == nil {
		room := max(len(b.Tokens), len(b.Want))
		var err error
		size := model.Size{Tokens: room, Sequences: b.Sequences(), Wanted: room, Slice: 128}
		if m.learner, err = train.New(m.dec, m.adapter, nil, size, train.Optimizer{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Clip: 1}); err != nil {
			return 0, err
		}
	}
	l, coef := m.learner, make([]float32, len(b.Want))
	for i := range coef {
		coef[i] = 1e-4
	}
	forward := func() error { _, _, err := l.Distributions(b); return err }
	alone, err := m.timed(map[string]func() error{
		predict.Forward:   forward,
		predict.Reference: func() error { _, err := l.Reference(b); return err },
		predict.Backward:  forward,
		predict.Update:    func() error { _, err := l.Update(1e-5); return err },
	}[w.Kind])
	if err != nil || w.Kind != predict.Backward {
		return alone, err
	}
	both, err := m.timed(func() error { return errors.Join(forward(), l.Backward(coef)) })
	return both - alone, err
}
