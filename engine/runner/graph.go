package runner

import (
	"fmt"
	"math/bits"
	"slices"

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
	mixed  int             // those of several adapters
	stale  []kernels.Graph // to be freed when the device is attached
	steps  [2]filled       // the last two that were begun
	begun  int             // steps so far: the last is in steps[begun%2]
	flying int             // of those, how many are under way: see Begin
}

// A filled is a step's batch and the rows that fill it up.
type filled struct {
	batch  batch.Batch
	draws  []sample.Draw // of all rows
	places []int         // of the step's rows, ascending
	follow []int32       // rows of what the step before draws that are this one's tokens; empty: they are known
}

// Steps of more adapters than mostRuns are not recorded, nor are more than mostMixed shapes of several.
const (
	mostRuns  = 4
	mostMixed = 128
)

// A shape is all of a decode step that is not in a tensor. The keys keep adapters alive, so that no other can have
// the address of one.
type shape struct {
	runs                [mostRuns]run
	n                   int // of runs
	temperatures, masks bool
}

// A run is rows that stand together and share an adapter; nil: none.
type run struct {
	adapter *model.Adapter
	rows    int
}

// graphRows is the number of rows, at least n, that a graph is recorded for: a multiple of a quarter of the
// power of two below n, so that at most a fifth of the rows are there to fill it up.
func graphRows(n int) int {
	step := max(1, 1<<bits.Len(uint(n-1))/8)
	return (n + step - 1) / step * step
}

// mixedRows is graphRows where there are several runs, and so many more shapes: the next power of two.
func mixedRows(n int) int { return 1 << bits.Len(uint(n-1)) }

func sameRows(n int) int { return n }

// shape is the graph that b's step can be, if it can: one token of each sequence, all drawn on the device.
func (r *Runner) shape(b *batch.Batch, draws []sample.Draw) (shape, bool) {
	n := len(b.Tokens)
	if r.graphs.on == nil || n == 0 || b.Sequences() != n || len(b.Want) != n {
		return shape{}, false
	}
	exact := shape{temperatures: len(b.Temperatures) > 0, masks: len(b.Masks) > 0}
	for i := range n {
		if int(b.Starts[i]) != i || int(b.Want[i]) != i || kindOf(&draws[i]) != onDevice || looked(&draws[i]) {
			return shape{}, false
		}
		if i == 0 || adapterOf(b, i) != adapterOf(b, i-1) {
			if exact.n == mostRuns {
				return shape{}, false
			}
			exact.runs[exact.n].adapter = r.adapters[adapterOf(b, i)]
			exact.n++
		}
		exact.runs[exact.n-1].rows++
	}
	s := r.rounded(exact)
	if s.n > 1 && r.graphs.of[s] == nil && r.graphs.mixed >= mostMixed {
		return shape{}, false
	}
	return s, true
}

// rounded is s with rows to fill it up, as far as there is room.
func (r *Runner) rounded(s shape) shape {
	room := min(r.size.Sequences, r.size.Tokens, r.size.Wanted)
	ups := []func(int) int{mixedRows, graphRows, sameRows}
	if s.n == 1 {
		ups = ups[1:]
	}
	for _, up := range ups {
		t, all := s, 0
		for i := range t.n {
			t.runs[i].rows = up(s.runs[i].rows)
			all += t.runs[i].rows
		}
		if all <= room {
			return t
		}
	}
	return s
}

// adapterOf is the number of row i's adapter, where each row is a sequence.
func adapterOf(b *batch.Batch, i int) int32 {
	if len(b.Adapters) == 0 {
		return 0
	}
	return b.Adapters[i]
}

// replay runs b as the graph of its shape. The result is the bits that its operations give.
func (r *Runner) replay(s shape, b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	f := r.fill(s, b, draws)
	if err := r.launch(s, f); err != nil {
		return nil, err
	}
	r.tokens = r.tokens[:len(f.draws)]
	clear(r.tokens)
	if err := r.read(&f.batch, f.draws); err != nil {
		return nil, r.explain(err)
	}
	return r.pick(f), nil
}

// launch queues what f needs, and the graph.
func (r *Runner) launch(s shape, f *filled) error {
	if err := r.pass.Load(&f.batch, r.adapters, r.cache); err != nil {
		return err
	}
	r.writeUniforms(f.draws)
	if len(f.follow) > 0 {
		r.pass.Follow(r.ids, f.follow)
	}
	g := r.graphs.of[s]
	if g == nil {
		var err error
		if g, err = r.graphs.on.Capture(r.decode); err != nil {
			return fmt.Errorf("runner: a step of %d rows as a graph: %w", len(f.draws), err)
		}
		r.graphs.of[s] = g
		if s.n > 1 {
			r.graphs.mixed++
		}
	}
	g.Launch()
	return nil
}

// pick leaves the tokens of the step's rows alone.
func (r *Runner) pick(f *filled) []engine.Token {
	for i, at := range f.places {
		r.tokens[i] = r.tokens[at]
	}
	r.tokens = r.tokens[:len(f.places)]
	return r.tokens
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

// fill is b with rows that nobody reads at each run's end, and its draws likewise.
func (r *Runner) fill(s shape, b *batch.Batch, draws []sample.Draw) *filled {
	before := &r.graphs.steps[r.graphs.begun%2]
	r.graphs.begun++
	to := &r.graphs.steps[r.graphs.begun%2]
	to.draws, to.places, to.follow = to.draws[:0], to.places[:0], to.follow[:0]
	f := &to.batch
	f.Reset()
	f.Starts = append(f.Starts[:0], 0)
	words, at := len(b.Masks)/len(b.Tokens), 0
	for _, run := range s.runs[:s.n] {
		number := adapterOf(b, at)
		for range run.rows {
			row := len(f.Tokens)
			f.Starts, f.Want = append(f.Starts, int32(row+1)), append(f.Want, int32(row))
			if len(b.Adapters) > 0 {
				f.Adapters = append(f.Adapters, number)
			}
			if at == len(b.Tokens) || adapterOf(b, at) != number {
				to.nobody(words, len(b.Temperatures) > 0)
				continue
			}
			to.token(b.Tokens[at], before)
			f.Positions = append(f.Positions, b.Positions[at])
			f.Lengths, f.Pages, f.Slots = append(f.Lengths, b.Lengths[at]), append(f.Pages, b.Pages[at]), append(f.Slots, b.Slots[at])
			if len(b.Temperatures) > 0 {
				f.Temperatures = append(f.Temperatures, b.Temperatures[at])
			}
			f.Masks = append(f.Masks, b.Masks[at*words:(at+1)*words]...)
			to.draws, to.places = append(to.draws, draws[at]), append(to.places, row)
			at++
		}
	}
	if b.Tokens[0] >= 0 {
		to.follow = to.follow[:0]
	}
	return to
}

// token adds a token: an id, or below 0 what a row of the step before draws.
func (to *filled) token(t int32, before *filled) {
	row := int32(0)
	if t < 0 {
		t, row = 0, int32(before.places[^t])
	}
	to.batch.Tokens, to.follow = append(to.batch.Tokens, t), append(to.follow, row)
}

// nobody adds a row that nobody reads.
func (to *filled) nobody(words int, temperatures bool) {
	f := &to.batch
	to.token(0, nil)
	f.Positions, f.Lengths = append(f.Positions, 0), append(f.Lengths, 1)
	f.Pages, f.Slots = append(f.Pages, nowhere), append(f.Slots, -1)
	if temperatures {
		f.Temperatures = append(f.Temperatures, 1)
	}
	for range words {
		f.Masks = append(f.Masks, 1<<32-1)
	}
	to.draws = append(to.draws, sample.Draw{})
}

// drop gives up the graphs that an adapter is part of.
func (g *graphs) drop(ad *model.Adapter) {
	for s, graph := range g.of {
		if slices.ContainsFunc(s.runs[:s.n], func(r run) bool { return r.adapter == ad }) {
			g.stale = append(g.stale, graph)
			delete(g.of, s)
			if s.n > 1 {
				g.mixed--
			}
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
