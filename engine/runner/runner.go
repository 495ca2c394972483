// Package runner runs the engine's batches on a device: it takes a batch there, runs the decoder,
// draws or scores the wanted rows, and brings back one id and one log-probability a row.
package runner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
)

// A Runner is an engine.Stepper on one decoder. It owns the cache tensors; adapters are numbered
// from 1 and belong to whoever set them.
type Runner struct {
	dec      *model.Decoder
	pass     *model.Pass
	cache    *model.Cache
	adapters []*model.Adapter
	size     model.Size
	graphs   graphs

	ids, lp, lse, uniform kernels.Tensor
	raw                   []byte
	logits                []float32
	tokens                []engine.Token
	beside                beside
	host                  host
}

var _ engine.Pipeline = (*Runner)(nil)

// New makes room for batches of at most size, and a cache of pages.
func New(dec *model.Decoder, size model.Size, pages int) (*Runner, error) {
	be := dec.Backend()
	if err := be.Attach(); err != nil {
		return nil, err
	}
	defer be.Detach()
	r := &Runner{
		dec: dec, pass: dec.NewPass(size), cache: dec.NewCache(pages, size.PageSize), adapters: make([]*model.Adapter, 1), size: size,
		ids: be.New(kernels.I32, size.Wanted, 1), lp: be.New(kernels.F32, size.Wanted, 1),
		lse: be.New(kernels.F32, size.Wanted, 1), uniform: be.New(kernels.F32, size.Wanted, 1),
		raw: make([]byte, 4*max(2*size.Wanted, dec.Config.Vocab)), logits: make([]float32, dec.Config.Vocab),
		tokens: make([]engine.Token, 0, size.Wanted), beside: newBeside(be, size.Wanted),
	}
	r.host.init(be, size.Wanted, dec.Config.Vocab)
	r.graphs.on, _ = be.(kernels.Capturer)
	r.graphs.of = map[shape]kernels.Graph{}
	return r, be.Sync()
}

// SetAdapter makes ad adapter i, from 1; nil takes it away. It must not be called while a batch runs.
func (r *Runner) SetAdapter(i int, ad *model.Adapter) {
	for len(r.adapters) <= i {
		r.adapters = append(r.adapters, nil)
	}
	if old := r.adapters[i]; old != nil {
		r.graphs.drop(old)
	}
	r.adapters[i] = ad
}

// Step runs b and draws or scores its wanted rows, with the device to itself. The result is valid until
// the next Step. Once the device is lost, the error is engine.ErrFatal.
func (r *Runner) Step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	tokens, err := r.step(b, draws)
	if errors.Is(err, kernels.ErrLost) {
		err = fmt.Errorf("%w: %w", engine.ErrFatal, err)
	}
	return tokens, err
}

func (r *Runner) step(b *batch.Batch, draws []sample.Draw) ([]engine.Token, error) {
	if err := r.dec.Backend().Attach(); err != nil {
		return nil, err
	}
	defer r.dec.Backend().Detach()
	if err := r.known(b); err != nil {
		return nil, err
	}
	r.graphs.sweep()
	if s, ok := r.shape(b, draws); ok {
		return r.replay(s, b, draws)
	}
	if err := r.pass.Load(b, r.adapters, r.cache); err != nil {
		return nil, err
	}
	r.writeUniforms(draws)
	r.pass.Forward()
	n := len(b.Want)
	r.tokens = r.tokens[:n]
	clear(r.tokens)
	r.beside.arena = r.beside.arena[:0]
	if n == 0 {
		return r.tokens, r.dec.Backend().Sync()
	}
	var err error
	if r.scores(draws) {
		r.pass.Score(r.lp, r.lse)
		if err = r.read(b, draws); err != nil {
			return nil, r.explain(err)
		}
		return r.tokens, nil
	}
	r.pass.Slices(func(i, n int, logits kernels.Tensor, dist kernels.Dist) {
		for j := 0; j < n && err == nil; {
			end := j + 1
			for end < n && kindOf(&draws[i+end]) == kindOf(&draws[i+j]) {
				end++
			}
			err = r.rows(kindOf(&draws[i+j]), i+j, end-j, logits.Slice(j, end-j), rows(dist, j, end-j), b, draws)
			j = end
		}
		if err == nil {
			err = r.look(i, n, logits, dist, b, draws)
		}
	})
	if err == nil {
		err = r.read(b, draws)
	}
	if err != nil {
		return nil, r.explain(err)
	}
	return r.tokens, nil
}

// known is an error if b asks for an adapter that is not there.
func (r *Runner) known(b *batch.Batch) error {
	for _, a := range b.Adapters {
		if int(a) >= len(r.adapters) || a != 0 && r.adapters[a] == nil {
			return fmt.Errorf("runner: there is no adapter %d", a)
		}
	}
	return nil
}

// scores reports whether all rows are scored, on a device that does so without logits, and nobody looks at those.
func (r *Runner) scores(draws []sample.Draw) bool {
	if !r.dec.Scores() {
		return false
	}
	for i := range draws {
		if kindOf(&draws[i]) != scored || looked(&draws[i]) {
			return false
		}
	}
	return true
}

// A kind is how a row's token is found.
type kind uint8

const (
	onDevice kind = iota
	onHost        // top-k, top-p, min-p: the row's logits are read
	scored        // no draw: the target's log-probability
)

func kindOf(d *sample.Draw) kind {
	switch {
	case d.Score:
		return scored
	case d.Host():
		return onHost
	}
	return onDevice
}

func rows(d kernels.Dist, i, n int) kernels.Dist {
	if !d.Temperature.Zero() {
		d.Temperature = d.Temperature.Slice(i, n)
	}
	if !d.Mask.Zero() {
		d.Mask = d.Mask.Slice(i, n)
	}
	return d
}

// rows draws or scores wanted rows i … i+n-1, all of one kind.
func (r *Runner) rows(k kind, i, n int, logits kernels.Tensor, dist kernels.Dist, b *batch.Batch, draws []sample.Draw) error {
	be := r.dec.Backend()
	switch k {
	case scored:
		be.LogProb(r.lp.Slice(i, n), r.lse.Slice(i, n), logits, r.pass.Targets(i, n), dist)
	case onDevice:
		be.Sample(r.ids.Slice(i, n), r.lp.Slice(i, n), logits, r.uniform.Slice(i, n), dist)
	case onHost:
		return r.choose(i, n, logits, b, draws)
	}
	return nil
}

// readLogits brings a row of logits to the host.
func (r *Runner) readLogits(row kernels.Tensor) error {
	raw := r.raw[:4*row.Cols]
	if err := r.dec.Backend().Read(raw, row); err != nil {
		return err
	}
	for j := range r.logits {
		r.logits[j] = float32At(raw, j)
	}
	return nil
}

// mask is that of wanted row i, or nil.
func mask(b *batch.Batch, i, vocab int) []uint32 {
	if len(b.Masks) == 0 {
		return nil
	}
	w := (vocab + 31) / 32
	return b.Masks[i*w : (i+1)*w]
}

// writeUniforms takes each drawn row's uniform number to the device.
func (r *Runner) writeUniforms(draws []sample.Draw) {
	raw := r.raw[:4*len(draws)]
	for i, d := range draws {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(sample.Uniform(d.Seed, d.Sample, d.Step)))
	}
	r.dec.Backend().Write(r.uniform.Slice(0, len(draws)), raw)
}

// read brings back what the device drew or scored.
func (r *Runner) read(b *batch.Batch, draws []sample.Draw) error {
	n := len(draws)
	raw := r.raw[:8*n]
	if err := readBoth(r.dec.Backend(), raw, r.lp.Slice(0, n), r.ids.Slice(0, n)); err != nil {
		return err
	}
	r.take(raw, b, draws)
	return nil
}

// take takes the tokens out of what was read.
func (r *Runner) take(raw []byte, b *batch.Batch, draws []sample.Draw) {
	n := len(draws)
	for i := range draws {
		t, kind := &r.tokens[i], kindOf(&draws[i])
		if kind != onHost {
			t.LogProb = float32At(raw, i)
		}
		switch kind {
		case onDevice:
			t.ID = int32(binary.LittleEndian.Uint32(raw[4*(n+i):]))
		case scored:
			t.ID = b.Targets[i]
		}
	}
}

// readBoth reads two tensors, at once where the device can.
func readBoth(be kernels.Backend, dst []byte, a, b kernels.Tensor) error {
	if both, ok := be.(kernels.BothReader); ok {
		return both.ReadBoth(dst, a, b)
	}
	n := 4 * a.Rows * a.Cols
	if err := be.Read(dst[:n], a); err != nil {
		return err
	}
	return be.Read(dst[n:], b)
}

// explain looks for what of the pass is not finite, unless the device can compute no more.
func (r *Runner) explain(err error) error {
	if errors.Is(err, kernels.ErrLost) {
		return err
	}
	return r.pass.Explain(err)
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
