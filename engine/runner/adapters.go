package runner

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/weights"
)

// Adapter is a as engine.Load takes it: its content's hash, and how it comes to the device and goes. One
// that is not of this model, or of a larger rank than the runner has room for, is refused when it is
// installed.
func (r *Runner) Adapter(a *weights.Adapter) engine.Adapter {
	return engine.Adapter{
		Hash:    hash(a),
		Install: func(slot int) error { return r.install(slot, a) },
		Remove:  r.remove,
	}
}

func (r *Runner) install(slot int, a *weights.Adapter) error {
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		if n := a.Pairs[module].Rank; n > r.size.Rank {
			return fmt.Errorf("runner: the adapter has rank %d on %s, there is room for ranks up to %d: start with more", n, module, r.size.Rank)
		}
	}
	be := r.dec.Backend()
	if err := be.Attach(); err != nil {
		return err
	}
	defer be.Detach()
	ad, err := r.dec.LoadAdapter(a)
	if err != nil {
		return err
	}
	r.SetAdapter(slot, ad)
	return nil
}

func (r *Runner) remove(slot int) {
	be := r.dec.Backend()
	if be.Attach() != nil {
		return // then the device has gone, and its memory with it
	}
	defer be.Detach()
	r.graphs.drop(r.adapters[slot])
	r.dec.FreeAdapter(r.adapters[slot])
	r.adapters[slot] = nil
}

// hash is that of everything of a that changes what it computes.
func hash(a *weights.Adapter) string {
	h := sha256.New()
	var b []byte
	for _, module := range slices.Sorted(maps.Keys(a.Pairs)) {
		p := a.Pairs[module]
		fmt.Fprintf(h, "%q %d %d %d %x\n", module, p.Rank, p.In, p.Out, math.Float64bits(p.Scale))
		for _, m := range [...][]float32{p.A, p.B} {
			b = b[:0]
			for _, x := range m {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
			}
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
