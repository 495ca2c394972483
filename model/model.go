// Package model is the decoder: Qwen2, Qwen3 and Llama as flags of one type, its forward pass, and
// the backward pass that training LoRA pairs or all weights needs.
package model

import (
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// A Decoder is a transformer on one device. Its frozen weights are read-only after Load; a decoder
// loaded to be trained holds its matrices as tensors instead.
type Decoder struct {
	Config  weights.Config
	Context int // positions there are rotations for
	Frozen  bool
	// Widened are the types of the files that the device holds as float32, which takes more room, because it has no
	// kernel for them, or because matrices that it holds as one have several. In order of type, each once.
	Widened []weights.DType

	be    kernels.Backend
	embed linear
	head  linear // the embedding itself where the two are tied
	// first is the gradient of a trained embedding's rows, apart from that of the head it is tied to: in one
	// sum, their order would depend on how a step is cut into passes. Settle adds it.
	first kernels.Tensor
	norm  vector
	rope  kernels.Tensor
	shape
	layers []layer
	params []param // of a decoder to be trained
}

// Backend is the device the decoder is on.
func (d *Decoder) Backend() kernels.Backend { return d.be }

// Format is how the device holds the frozen matrices; the first stands for all. It is zero where they are trained.
func (d *Decoder) Format() kernels.Format { return d.layers[0].qkv.w.Format }

// keyType is what keys and values are kept as: rounded where rows are that meet the matrices, if the device takes them so.
func (d *Decoder) keyType() kernels.DType {
	r, ok := d.be.(kernels.KeyRounder)
	if d.Format().Acts != kernels.F32 && ok && r.RoundsKeys() && d.Config.HeadDim%2 == 0 {
		return kernels.BF16
	}
	return kernels.F32
}

// KeyBytes is what a pass holds of a token's keys and values beside those that it rounds them from, for one layer at a time.
func (d *Decoder) KeyBytes() int {
	if t := d.keyType(); t != kernels.F32 {
		return 2 * d.kv * t.Size()
	}
	return 0
}

type layer struct {
	attnNorm, ffnNorm    vector
	qNorm, kNorm         vector // Qwen3
	qkv, o, gateUp, down linear // queries, keys and values are one matrix, and so are gate and up
}

// A linear is a matrix of outputs × inputs: w when frozen, t with its gradient when trained.
type linear struct {
	w       kernels.Weight
	t, grad kernels.Tensor
	bias    vector
}

// A vector is one row: a norm's weight or a bias. The zero vector is absent.
type vector struct{ t, grad kernels.Tensor }

// A param is one matrix or row to be trained. Its rows are those of the named tensors, stacked.
type param struct {
	names   []string
	rows    []int
	w, grad kernels.Tensor
	oneD    bool
}

// Options say how to load a decoder.
type Options struct {
	DType   weights.DType // of the frozen matrices: F32, F16, BF16, Q8_0, or Q4_0 (Q4_1 stays as stored); ignored unless Convert
	Convert bool          // to DType; otherwise as stored
	Acts    kernels.DType // what rows are rounded to where they meet a frozen matrix: see kernels.Format
	Context int           // positions; 0: the configuration's
	Train   bool          // all weights, in float32
	// Packed, if not nil, has the matrices as the device packed them before, or gets them: Save keeps them. It must stay open
	// as long as the decoder is used.
	Packed *weights.Packed
}

// Load reads a decoder's weights onto a device. A tensor that is missing, has another shape or holds
// a NaN or an infinity is an error that names it.
func Load(be kernels.Backend, cfg weights.Config, src Source, o Options) (*Decoder, error) {
	if o.Train && o.Acts != kernels.F32 {
		return nil, fmt.Errorf("activations are rounded to %v only where they meet frozen matrices: none is when all weights are trained", o.Acts)
	}
	d := &Decoder{Config: cfg, be: be, Frozen: !o.Train}
	c := &d.Config
	d.shape = shapeOf(c)
	d.Context = c.Context
	if o.Context > 0 && o.Context < d.Context {
		d.Context = o.Context
	}
	l := &loader{be: be, src: src, o: o, d: d}
	if l.mapper, _ = be.(kernels.Mapper); l.mapper == nil && o.Packed != nil {
		return nil, fmt.Errorf("%s cannot map packed matrices", be.Name())
	}
	d.embed = l.matrix(c.Vocab, c.Hidden, "model.embed_tokens")
	d.head = d.embed
	switch {
	case !c.TieEmbeddings:
		d.head = l.matrix(c.Vocab, c.Hidden, "lm_head")
		d.first = d.embed.grad
	case o.Train:
		d.first = be.New(kernels.F32, c.Vocab, c.Hidden)
	}
	d.norm = l.norm(c.Hidden, "model.norm")
	for i := range c.Layers {
		d.layers = append(d.layers, l.layer(i))
	}
	if l.err != nil {
		return nil, l.err
	}
	d.rope = be.New(kernels.F32, d.Context, c.HeadDim)
	be.Write(d.rope, floatBytes(rotations(c, d.Context)))
	return d, be.Sync()
}

// A Source is where weights come from: a model's files, or random numbers.
type Source interface {
	Tensor(name string) (weights.Tensor, error)
}

type loader struct {
	be  kernels.Backend
	src Source
	o   Options
	d   *Decoder
	err error

	mapper kernels.Mapper // nil if the device is none
}

func (l *loader) layer(i int) layer {
	c, s := &l.d.Config, l.d.shape
	at := func(name string) string { return fmt.Sprintf("model.layers.%d.%s", i, name) }
	y := layer{
		attnNorm: l.norm(c.Hidden, at("input_layernorm")),
		ffnNorm:  l.norm(c.Hidden, at("post_attention_layernorm")),
	}
	var names [sites]string
	for i, p := range c.Projections(i) {
		names[i] = p.Module
	}
	q, k, v, gate, up := names[siteQ], names[siteK], names[siteV], names[siteGate], names[siteUp]
	y.qkv = l.matrix(s.qkv, c.Hidden, q, k, v)
	y.o = l.matrix(c.Hidden, s.q, names[siteO])
	y.gateUp = l.matrix(2*c.FFN, c.Hidden, gate, up)
	y.down = l.matrix(c.Hidden, c.FFN, names[siteDown])
	if c.QKVBias {
		y.qkv.bias = l.vector([]int{s.q, s.kv, s.kv}, ".bias", q, k, v)
	}
	if c.OutBias {
		y.o.bias = l.vector([]int{c.Hidden}, ".bias", names[siteO])
	}
	if c.MLPBias {
		y.gateUp.bias = l.vector([]int{c.FFN, c.FFN}, ".bias", gate, up)
		y.down.bias = l.vector([]int{c.Hidden}, ".bias", names[siteDown])
	}
	if c.QKNorm {
		y.qNorm = l.norm(c.HeadDim, at("self_attn.q_norm"))
		y.kNorm = l.norm(c.HeadDim, at("self_attn.k_norm"))
	}
	return y
}

func (l *loader) norm(n int, name string) vector { return l.vector([]int{n}, ".weight", name) }

// read returns a tensor after checking its shape and that its values are finite.
func (l *loader) read(name string) (weights.Tensor, error) {
	t, err := l.src.Tensor(name)
	if err != nil {
		return t, err
	}
	if ok, i := t.Finite(); !ok {
		return t, fmt.Errorf("tensor %s: element %d is not a finite number; the file is damaged", name, i)
	}
	return t, nil
}

// matrix loads the weights of the modules named, stacked by rows.
func (l *loader) matrix(rows, cols int, modules ...string) linear {
	if w, ok := l.mapped(rows, cols, modules); ok {
		return linear{w: w}
	}
	var ts []weights.Tensor
	have, names := 0, make([]string, len(modules))
	for i, name := range modules {
		if l.err != nil {
			return linear{}
		}
		names[i] = name + ".weight"
		t, err := l.read(names[i])
		if err == nil && (len(t.Shape) != 2 || t.Shape[1] != cols) {
			err = fmt.Errorf("tensor %s has shape %v, config.json implies %d columns", names[i], t.Shape, cols)
		}
		if err != nil {
			l.err = err
			return linear{}
		}
		ts = append(ts, t)
		have += t.Shape[0]
	}
	if have != rows {
		l.err = fmt.Errorf("tensors %v have %d rows, config.json implies %d", names, have, rows)
		return linear{}
	}
	if l.o.Train {
		return l.trained(rows, cols, names, ts)
	}
	f, parts, err := storage(l.be, ts, l.o)
	if err != nil {
		l.err = err
		return linear{}
	}
	if f.Type == kernels.F32 && !l.o.Convert {
		for _, t := range ts {
			l.d.widen(t.Type)
		}
	}
	w := l.be.Load(f, rows, cols, parts...)
	l.keep(w, modules)
	return linear{w: w}
}

// widen notes a type that is held as float32.
func (d *Decoder) widen(t weights.DType) {
	if at, there := slices.BinarySearch(d.Widened, t); t != weights.F32 && !there {
		d.Widened = slices.Insert(d.Widened, at, t)
	}
}

func (l *loader) trained(rows, cols int, names []string, ts []weights.Tensor) linear {
	m := linear{t: l.be.New(kernels.F32, rows, cols), grad: l.be.New(kernels.F32, rows, cols)}
	p := param{names: names, w: m.t, grad: m.grad}
	at := 0
	for _, t := range ts {
		l.be.Write(m.t.Slice(at, t.Shape[0]), floatBytes(t.Float32(nil)))
		p.rows = append(p.rows, t.Shape[0])
		at += t.Shape[0]
	}
	l.d.params = append(l.d.params, p)
	return m
}

// vector loads rows of one dimension end to end.
func (l *loader) vector(sizes []int, suffix string, modules ...string) vector {
	var all []float32
	names := make([]string, len(modules))
	for i, name := range modules {
		if l.err != nil {
			return vector{}
		}
		names[i] = name + suffix
		t, err := l.read(names[i])
		if err == nil && (len(t.Shape) != 1 || t.Shape[0] != sizes[i]) {
			err = fmt.Errorf("tensor %s has shape %v, config.json implies [%d]", names[i], t.Shape, sizes[i])
		}
		if err != nil {
			l.err = err
			return vector{}
		}
		all = append(all, t.Float32(nil)...)
	}
	v := vector{t: l.be.New(kernels.F32, 1, len(all))}
	l.be.Write(v.t, floatBytes(all))
	if l.o.Train {
		v.grad = l.be.New(kernels.F32, 1, len(all))
		l.d.params = append(l.d.params, param{names: names, rows: sizes, w: v.t, grad: v.grad, oneD: true})
	}
	return v
}
