package model

import (
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// Grads are the gradients of what is trained: one adapter's pairs, or all weights of a decoder
// loaded to be trained.
type Grads struct {
	d      *Decoder
	ad     *Adapter
	sites  []pair
	stacks [][]kernels.Tensor // of the adapter's stacks
}

// A Param is a tensor in training and its gradient.
type Param struct {
	Name string
	W, G kernels.Tensor
	OneD bool // a norm's weight or a bias
}

// NewGrads makes room for the gradients of an adapter; with nil, of the decoder's own weights.
func (d *Decoder) NewGrads(ad *Adapter) (*Grads, error) {
	g := &Grads{d: d, ad: ad}
	if ad == nil {
		if d.Frozen {
			return nil, fmt.Errorf("model: the weights are frozen; load them to be trained")
		}
		return g, nil
	}
	if !d.Frozen {
		return nil, fmt.Errorf("model: an adapter is trained over frozen weights")
	}
	g.sites, g.stacks = make([]pair, len(ad.sites)), make([][]kernels.Tensor, len(ad.stacks))
	for first, stacks := range ad.stacks {
		for _, s := range stacks {
			s.A = d.be.New(kernels.F32, s.A.Rows, s.A.Cols)
			g.stacks[first] = append(g.stacks[first], s.A)
			for _, i := range s.of {
				p := &ad.sites[i]
				g.sites[i] = pair{A: s.view(p), B: d.be.New(kernels.F32, p.B.Rows, p.B.Cols)}
			}
		}
	}
	return g, nil
}

// Adapter is the adapter the gradients are of, or nil.
func (g *Grads) Adapter() *Adapter { return g.ad }

// Params lists what is trained, always in the same order.
func (g *Grads) Params() []Param {
	var ps []Param
	if g.ad == nil {
		for _, p := range g.d.params {
			ps = append(ps, Param{Name: p.names[0], W: p.w, G: p.grad, OneD: p.oneD})
		}
		return ps
	}
	for i, s := range g.ad.sites {
		if !s.A.Zero() {
			ps = append(ps, Param{Name: g.d.modulePath(i) + ".lora_A.weight", W: s.A, G: g.sites[i].A},
				Param{Name: g.d.modulePath(i) + ".lora_B.weight", W: s.B, G: g.sites[i].B})
		}
	}
	return ps
}

// Settle completes the gradients: call it when all of a step's are added up, before they are used.
func (g *Grads) Settle() { g.d.settle() }

func (d *Decoder) settle() {
	if d.Config.TieEmbeddings && !d.first.Zero() {
		d.be.Add(d.embed.grad, d.embed.grad, d.first)
		d.be.Fill(d.first, 0)
	}
}

// Zero clears the gradients.
func (g *Grads) Zero() {
	if !g.d.first.Zero() {
		g.d.be.Fill(g.d.first, 0)
	}
	for _, p := range g.Params() {
		g.d.be.Fill(p.G, 0)
	}
}

// SaveWeights reads the weights of a decoder in training back, under their checkpoint's names.
func (d *Decoder) SaveWeights(dt weights.DType) ([]weights.Tensor, error) { return d.save(dt, false) }

// SaveGradients reads their gradients back, in float32, under the same names.
func (d *Decoder) SaveGradients() ([]weights.Tensor, error) {
	d.settle()
	return d.save(weights.F32, true)
}

func (d *Decoder) save(dt weights.DType, grad bool) ([]weights.Tensor, error) {
	var out []weights.Tensor
	for _, p := range d.params {
		t := p.w
		if grad {
			t = p.grad
		}
		v, err := d.read(t)
		if err != nil {
			return nil, err
		}
		width, at := t.Cols, 0
		if p.oneD {
			width = 1
		}
		for i, name := range p.names {
			n := p.rows[i] * width
			shape := []int{p.rows[i], width}
			if p.oneD {
				shape = shape[:1]
			}
			out = append(out, weights.Encode(name, dt, shape, v[at:at+n]))
			at += n
		}
	}
	return out, nil
}

// Explain looks for the first layer whose output is not finite, when a pass has failed.
func (p *Pass) Explain(err error) error {
	d := p.d
	sum := d.be.New(kernels.F32, 1, 1)
	defer d.be.Free(sum)
	x := d.be.New(kernels.F32, p.act.x.Rows, p.act.x.Cols)
	defer d.be.Free(x)
	bad := func(t kernels.Tensor) bool {
		d.be.SumSquares(sum, t)
		v, e := d.read(sum)
		return e == nil && (math.IsNaN(float64(v[0])) || math.IsInf(float64(v[0]), 0))
	}
	ids := p.ids.Slice(0, x.Rows)
	if d.embed.w.Zero() {
		d.be.Gather(x, d.embed.t, ids)
	} else {
		d.be.Embed(x, d.embed.w, ids)
	}
	if bad(x) {
		return fmt.Errorf("model: embedding of the batch is not finite: %w", err)
	}
	for i := range d.layers {
		p.block(i, x, x)
		if bad(x) {
			return fmt.Errorf("model: output of layer %d is not finite: %w", i, err)
		}
	}
	return err
}

// SetWeights replaces the weights of a decoder in training by those of a file.
func (d *Decoder) SetWeights(f interface {
	Tensor(name string) (weights.Tensor, error)
}) error {
	for _, p := range d.params {
		at := 0
		for i, name := range p.names {
			t, err := f.Tensor(name)
			if err != nil {
				return err
			}
			n := p.rows[i]
			if t.Shape[0] != n {
				return fmt.Errorf("tensor %s has %d rows, the model has %d", name, t.Shape[0], n)
			}
			view := p.w.Slice(at, n)
			if p.oneD {
				view = p.w.Columns(at, n)
			}
			d.be.Write(view, floatBytes(t.Float32(nil)))
			at += n
		}
	}
	return d.be.Sync()
}

// SetAdapter replaces the values of an adapter on the device by those of a file with the same pairs.
func (d *Decoder) SetAdapter(ad *Adapter, a *weights.Adapter) error {
	for i, s := range ad.sites {
		w, ok := a.Pairs[d.modulePath(i)]
		if ok == s.A.Zero() || ok && (w.Rank != s.A.Rows || w.In != s.A.Cols || w.Out != s.B.Rows) {
			return fmt.Errorf("adapter: %s is another adapter's: rank or targets differ", d.modulePath(i))
		}
		if ok {
			d.be.Write(s.A, floatBytes(w.A))
			d.be.Write(s.B, floatBytes(w.B))
		}
	}
	return d.be.Sync()
}
