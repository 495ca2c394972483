package runner

import (
	"fmt"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model/batch"
)

// A host draws the tokens of rows whose logits must be looked at: with a truncation, a penalty or a bias. A row costs
// about what an operation of the model does, and knows nothing of others, so that rows are drawn at the same time where
// the device lends its threads.
type host struct {
	threads kernels.Sharer // nil: one row after the other
	places  []place        // of the rows at work
	draw    func(i int)    // in place i

	// the rows at work are wanted rows first … of b
	first int
	b     *batch.Batch
	draws []sample.Draw
}

// A place is room for a row.
type place struct {
	raw     []byte // its logits as they came
	logits  []float32
	scratch sample.Scratch
	id      int32
	lp      float32
}

func (h *host) init(be kernels.Backend, wanted, vocab int) {
	n := 1
	if threads, ok := be.(kernels.Sharer); ok {
		h.threads, n = threads, max(1, min(threads.Threads(), wanted))
	}
	h.places = make([]place, n)
	for i := range h.places {
		h.places[i] = place{raw: make([]byte, 4*vocab), logits: make([]float32, vocab)}
	}
	h.draw = func(i int) {
		p, d := &h.places[i], &h.draws[h.first+i]
		for j := range p.logits {
			p.logits[j] = float32At(p.raw, j)
		}
		p.id, p.lp = sample.Choose(p.logits, *d, mask(h.b, h.first+i, len(p.logits)), d.Uniform(), &p.scratch)
	}
}

// choose draws the tokens of wanted rows i … i+n-1 on the host.
func (r *Runner) choose(i, n int, logits kernels.Tensor, b *batch.Batch, draws []sample.Draw) error {
	h := &r.host
	h.b, h.draws = b, draws
	for at := 0; at < n; at += len(h.places) {
		places := h.places[:min(len(h.places), n-at)]
		for k := range places {
			if err := r.dec.Backend().Read(places[k].raw, logits.Slice(at+k, 1)); err != nil {
				return err
			}
		}
		h.first = i + at
		if h.threads != nil {
			h.threads.Share(len(places), h.draw)
		} else {
			h.draw(0)
		}
		for k := range places {
			if err := r.drawn(h.first+k, &places[k], &draws[h.first+k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// drawn takes the token of wanted row i from its place.
func (r *Runner) drawn(i int, p *place, d *sample.Draw) error {
	if p.id < 0 {
		return fmt.Errorf("sample: row %d has no token to draw", i)
	}
	t := &r.tokens[i]
	t.ID, t.LogProb = p.id, p.lp
	if d.Top > 0 {
		s, at := &r.beside, len(r.beside.arena)
		s.arena = p.scratch.Top(s.arena, d.Top)
		t.Top = s.arena[at:len(s.arena):len(s.arena)]
	}
	return nil
}
