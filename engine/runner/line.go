package runner

import (
	"errors"
	"fmt"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model/batch"
)

// Begin queues a step that can be a graph, on a device that need not be waited for: see engine.Pipeline. Tokens that the
// step before draws go to it on the device.
func (r *Runner) Begin(b *batch.Batch, draws []sample.Draw) bool {
	be := r.dec.Backend()
	later, ok := be.(kernels.Deferrer)
	if !ok || r.graphs.flying == len(r.graphs.steps) || r.known(b) != nil || be.Attach() != nil {
		return false
	}
	defer be.Detach()
	r.graphs.sweep()
	s, ok := r.shape(b, draws)
	if !ok {
		return false
	}
	f := r.fill(s, b, draws)
	if r.launch(s, f) != nil { // Step tells why
		r.graphs.begun--
		return false
	}
	n := len(f.draws)
	later.Defer(r.lp.Slice(0, n), r.ids.Slice(0, n))
	r.graphs.flying++
	return true
}

// Finish waits for the first step under way. The result is valid until the next Finish or Step.
func (r *Runner) Finish() ([]engine.Token, error) {
	g := &r.graphs
	if g.flying == 0 {
		return nil, errors.New("runner: no step is under way")
	}
	be := r.dec.Backend()
	if err := be.Attach(); err != nil {
		return nil, err
	}
	defer be.Detach()
	f, next := &g.steps[(g.begun+g.flying-1)%2], &g.steps[g.begun%2]
	raw := r.raw[:8*len(f.draws)]
	if err := be.(kernels.Deferrer).Take(raw); err != nil {
		g.flying = 0
		return nil, r.account(err, f)
	}
	g.flying--
	r.tokens = r.tokens[:len(f.draws)]
	clear(r.tokens)
	r.take(raw, &f.batch, f.draws)
	if g.flying > 0 {
		for i, row := range next.follow {
			next.batch.Tokens[i] = r.tokens[row].ID
		}
	}
	return r.pick(f), nil
}

// account says what of step f is not finite, if that is why it failed; the pass may have been loaded with another since.
func (r *Runner) account(err error, f *filled) error {
	if errors.Is(err, kernels.ErrLost) {
		return fmt.Errorf("%w: %w", engine.ErrFatal, err)
	}
	if again := r.pass.Load(&f.batch, r.adapters, r.cache); again != nil {
		return errors.Join(err, again)
	}
	return r.explain(err)
}
