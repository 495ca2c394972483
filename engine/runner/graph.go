package runner

import (
	"fmt"
	"math/bits"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
)

// graphs are the recorded decode steps of a device that can record: one for each shape, made when a step has
// it for the first time. What changes from step to step is in tensors; a step of fewer rows than a shape's is
// filled up with rows that nobody reads, which changes no other row.
type graphs struct {
	on     kernels.Capturer // nil: the device cannot
	of     map[shape]kernels.Graph
	stale  []kernels.Graph // to be freed when the device is attached
	filled batch.Batch     // a step's batch and the rows that fill it up
}

// A shape is all of a decode step that is not in a tensor.
type shape struct {
	rows                int
	adapter             *model.Adapter // of every row; nil: none. The key keeps it alive, so that no other can have its address.
	temperatures, masks bool
}

// graphRows is the number of rows, at least n, that a graph is recorded for: a multiple of a quarter of the
// power of two below n, so that at most a fifth of the rows are there to fill it up.
func graphRows(n int) int {
	step := max(1, 1<<bits.Len(uint(n-1))/8)
	return (n + step - 1) / step * step
}

// shape is the graph that b's step can be, if it can: one token of each sequence, all drawn on the device.
func (r *Runner) shape(b *batch.Batch, draws []sample.Draw) (shape, bool) {
	n := len(b.Tokens)
	if r.graphs.on == nil || n == 0 || b.Sequences() != n || len(b.Want) != n {
		return shape{}, false
	}
	s := shape{rows: graphRows(n), temperatures: len(b.Temperatures) > 0, masks: len(b.Masks) > 0}
	if s.rows > min(r.size.Sequences, r.size.Tokens, r.size.Wanted) {
		s.rows = n
	}
	if len(b.Adapters) > 0 {
		s.adapter = r.adapters[b.Adapters[0]]
	}
	for i := range n {
		other := len(b.Adapters) > 0 && b.Adapters[i] != b.Adapters[0]
		if other || int(b.Starts[i]) != i || int(b.Want[i]) != i || kindOf(&draws[i]) != onDevice || looked(&draws[i]) {
			return shape{}, false
		}
	}
	return s, true
}

// replay runs b as the graph of its shape. The result is the bits that its operations give.
func (r *Runner) replay(s shape, b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	r.fill(s.rows, b)
	if err := r.pass.Load(&r.graphs.filled, r.adapters, r.cache); err != nil {
		return nil, err
	}
	r.writeUniforms(draws)
	g := r.graphs.of[s]
	if g == nil {
		var err error
		if g, err = r.graphs.on.Capture(r.decode); err != nil {
			return nil, fmt.Errorf("runner: a step of %d rows as a graph: %w", s.rows, err)
		}
		r.graphs.of[s] = g
	}
	g.Launch()
	r.tokens = r.tokens[:len(draws)]
	clear(r.tokens)
	if err := r.read(b, draws); err != nil {
		return nil, r.explain(err)
	}
	return r.tokens, nil
}

// decode queues the loaded batch's pass and the draws of all its rows.
func (r *Runner) decode() {
	r.pass.Forward()
	r.pass.Slices(func(i, n int, logits kernels.Tensor, dist kernels.Dist) {
		r.dec.Backend().Sample(r.ids.Slice(i, n), r.lp.Slice(i, n), logits, r.uniform.Slice(i, n), dist)
	})
}

// nowhere is the cache page, as good as any, that a row that fills up a step looks at; it writes to none.
var nowhere = []int32{0}

// fill sets graphs.filled to b, with rows that nobody reads up to so many.
func (r *Runner) fill(rows int, b *batch.Batch) {
	f := &r.graphs.filled
	f.Reset()
	f.Tokens, f.Positions = append(f.Tokens, b.Tokens...), append(f.Positions, b.Positions...)
	f.Starts, f.Lengths = append(f.Starts, b.Starts...), append(f.Lengths, b.Lengths...)
	f.Pages, f.Slots, f.Adapters = append(f.Pages, b.Pages...), append(f.Slots, b.Slots...), append(f.Adapters, b.Adapters...)
	f.Want, f.Temperatures, f.Masks = append(f.Want, b.Want...), append(f.Temperatures, b.Temperatures...), append(f.Masks, b.Masks...)
	for n := len(b.Tokens); n < rows; n++ {
		f.Tokens, f.Positions = append(f.Tokens, 0), append(f.Positions, 0)
		f.Starts, f.Lengths = append(f.Starts, int32(n+1)), append(f.Lengths, 1)
		f.Pages, f.Slots, f.Want = append(f.Pages, nowhere), append(f.Slots, -1), append(f.Want, int32(n))
		if len(b.Adapters) > 0 {
			f.Adapters = append(f.Adapters, b.Adapters[0])
		}
		if len(b.Temperatures) > 0 {
			f.Temperatures = append(f.Temperatures, 1)
		}
		for range len(b.Masks) / len(b.Tokens) {
			f.Masks = append(f.Masks, 1<<32-1)
		}
	}
}

// drop gives up the graphs that an adapter is part of.
func (g *graphs) drop(ad *model.Adapter) {
	for s, graph := range g.of {
		if s.adapter == ad {
			g.stale = append(g.stale, graph)
			delete(g.of, s)
		}
	}
}

// sweep frees the graphs that were given up; the device is attached.
func (g *graphs) sweep() {
	for _, graph := range g.stale {
		graph.Free()
	}
	g.stale = g.stale[:0]
}
