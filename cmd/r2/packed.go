package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// openPacked opens the file of packed matrices beside a model, if --packed asks for it. What it holds counts
// while the model's tensors, the flags and the way of packing are those that it was written with.
func (f deviceFlags) openPacked(be kernels.Backend, m *weights.Model) (*weights.Packed, error) {
	if !f.Packed {
		return nil, nil
	}
	mapper, ok := be.(kernels.Mapper)
	if !ok {
		return nil, usage("--packed: %s does not map packed matrices; leave it out", be.Name())
	}
	path := fmt.Sprintf("%s.%s-%s.r2packed", filepath.Clean(m.Path), f.DType, f.Acts)
	return m.Packed(path, fmt.Sprintf("%s %s %s %s", m.Sum(), f.DType, f.Acts, mapper.Layout())), nil
}

// load loads a model's decoder, by the file of packed matrices where --packed says so.
func (f deviceFlags) load(be kernels.Backend, m *weights.Model, o model.Options) (dec *model.Decoder, err error) {
	if o.Packed, err = f.openPacked(be, m); err != nil {
		return nil, err
	}
	if dec, err = model.Load(be, m.Config, m, o); err == nil && o.Packed != nil {
		err = o.Packed.Save()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	if len(dec.Widened) > 0 {
		fmt.Fprintf(os.Stderr, "%s: %s has no kernel for matrices of %v, or for several types in one, and holds them as f32; --dtype chooses another type\n", m.Path, be.Name(), dec.Widened)
	}
	return dec, nil
}
