package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/model/batch"
)

// A Size is the most that a Pass makes room for.
type Size struct {
	Tokens    int // of all sequences of a batch
	Sequences int
	Wanted    int // rows whose distribution is needed
	Slice     int // rows of logits held at a time, see HeadRows; 0: min(Wanted, 64)
	Pages     int // of one sequence; 0 without a cache
	PageSize  int
	Rank      int // of an adapter
	Masks     bool
	Train     bool // Backward
	Keep      int  // layers whose activations stay for Backward, which computes the others' again; the bits are the same
}

// A Pass runs batches through a decoder: room on the device, made once, for one batch of at most its
// Size and for the activations of one layer. It allocates nothing afterwards.
type Pass struct {
	d    *Decoder
	size Size
	b    *batch.Batch
	ads  []*Adapter
	kv   *Cache

	ids, pos, want, targets, slots kernels.Tensor
	from, to                       kernels.Tensor // rows of the cache that are copied
	starts, lengths, pages         kernels.Tensor
	follow                         kernels.Tensor // rows of what Follow is given
	temperature, mask              kernels.Tensor
	entropy                        kernels.Tensor // of wanted rows
	room                           activations
	act                            activations      // the rows of room the batch fills
	keep, kept                     []activations    // of the first layers, and the rows of them the batch fills
	trace                          []kernels.Tensor // the layers' inputs
	keeps                          bool             // what Backward needs, since the last forward pass
	g                              *gradients       // nil without Train
	raw                            []byte
	expands                        []kernels.Expand // of the projection under way
	held                           int              // first wanted row whose logits are held; -1: none
}

// activations are those of one layer, a row a token; last and logits have a row for each wanted row. low has
// the columns of all pairs of a layer: what an adapter's A make of their inputs. keys and values are rounded; they are zero where
// attention takes those of qkv.
type activations struct {
	x, xn, raw, qkv, att, lse, h, mid, hn, gateUp, ff, low kernels.Tensor
	keys, values                                           kernels.Tensor
	last, logits, lp, lpLSE                                kernels.Tensor
}

// NewPass makes room for batches.
func (d *Decoder) NewPass(s Size) *Pass {
	s.Slice = d.HeadRows(s)
	p := &Pass{d: d, size: s, held: -1}
	n, c := s.Tokens, &d.Config
	ints := func(rows, cols int) kernels.Tensor { return d.be.New(kernels.I32, rows, cols) }
	p.ids, p.pos, p.slots = ints(n, 1), ints(n, 1), ints(n, 1)
	p.want, p.targets = ints(s.Wanted, 1), ints(s.Wanted, 1)
	p.starts, p.lengths = ints(s.Sequences+1, 1), ints(s.Sequences, 1)
	if s.Pages > 0 {
		p.pages = ints(s.Sequences, s.Pages)
		p.from, p.to = ints(s.Sequences*s.PageSize, 1), ints(s.Sequences*s.PageSize, 1)
		p.follow = ints(n, 1)
	}
	p.temperature = d.be.New(kernels.F32, s.Wanted, 1)
	if s.Masks {
		p.mask = ints(s.Wanted, maskWords(c.Vocab))
	}
	p.room = d.activations(n, s)
	if s.Train {
		for range d.layers {
			p.trace = append(p.trace, d.be.New(kernels.F32, n, c.Hidden))
		}
		p.g, p.entropy = d.gradients(n, s), d.be.New(kernels.F32, s.Wanted, 1)
		for range min(s.Keep, len(d.layers)) {
			p.keep = append(p.keep, d.toKeep(n, s))
		}
		p.kept = make([]activations, len(p.keep))
	}
	return p
}

// toKeep is room for what Backward cannot have of a layer without a product.
func (d *Decoder) toKeep(n int, s Size) activations {
	c := &d.Config
	f := func(cols int) kernels.Tensor { return d.be.New(kernels.F32, n, cols) }
	a := activations{qkv: f(d.qkv), att: f(d.q), lse: f(c.Heads), mid: f(c.Hidden), gateUp: f(2 * c.FFN)}
	a.raw = a.qkv
	if c.QKNorm {
		a.raw = f(d.qkv)
	}
	if s.Rank > 0 {
		a.low = f(sites * s.Rank)
	}
	return a
}

// layer is where the activations of layer i are.
func (p *Pass) layer(i int) *activations {
	if p.keeps && i < len(p.kept) {
		return &p.kept[i]
	}
	return &p.act
}

func maskWords(vocab int) int { return (vocab + 31) / 32 }

func (d *Decoder) activations(n int, s Size) activations {
	c := &d.Config
	f := func(rows, cols int) kernels.Tensor { return d.be.New(kernels.F32, rows, cols) }
	a := activations{
		x: f(n, c.Hidden), xn: f(n, c.Hidden), qkv: f(n, d.qkv), att: f(n, d.q), lse: f(n, c.Heads),
		h: f(n, c.Hidden), mid: f(n, c.Hidden), hn: f(n, c.Hidden), gateUp: f(n, 2*c.FFN), ff: f(n, c.FFN),
		last: f(d.lastRows(s), c.Hidden), lp: f(s.Wanted, 1), lpLSE: f(s.Wanted, 1),
	}
	if t := d.keyType(); t != kernels.F32 {
		a.keys, a.values = d.be.New(t, n, d.kv), d.be.New(t, n, d.kv)
	}
	if !d.HoldsNoLogits(s) {
		a.logits = f(s.Slice, c.Vocab)
	}
	a.raw = a.qkv
	if c.QKNorm {
		a.raw = f(n, d.qkv)
	}
	if s.Rank > 0 {
		a.low = f(n, sites*s.Rank)
	}
	return a
}

// rows are the views of the first n rows.
func (a activations) rows(n int) activations {
	for _, t := range []*kernels.Tensor{&a.x, &a.xn, &a.raw, &a.qkv, &a.att, &a.lse, &a.h, &a.mid, &a.hn, &a.gateUp, &a.ff, &a.low, &a.keys, &a.values} {
		if !t.Zero() {
			*t = t.Slice(0, n)
		}
	}
	return a
}

// Load takes a batch to the device. ads are the adapters that b.Adapters number; entry 0 is not used.
func (p *Pass) Load(b *batch.Batch, ads []*Adapter, kv *Cache) error {
	s := p.size
	if len(b.Tokens) > s.Tokens || b.Sequences() > s.Sequences || len(b.Want) > s.Wanted {
		return fmt.Errorf("model: batch of %d tokens, %d sequences, %d wanted rows exceeds the room for %d, %d, %d",
			len(b.Tokens), b.Sequences(), len(b.Want), s.Tokens, s.Sequences, s.Wanted)
	}
	if len(b.Masks) > 0 && !s.Masks {
		return fmt.Errorf("model: batch with masks, but there is no room for them")
	}
	if n := len(b.From); n != len(b.To) || n > s.Sequences*s.PageSize {
		return fmt.Errorf("model: batch copies %d rows to %d of the cache, there is room for %d", n, len(b.To), s.Sequences*s.PageSize)
	}
	for _, q := range b.Positions {
		if int(q) >= p.d.Context {
			return fmt.Errorf("model: position %d is beyond the context of %d", q, p.d.Context)
		}
	}
	p.b, p.ads, p.kv, p.held, p.keeps = b, ads, kv, -1, false
	p.act = p.room.rows(len(b.Tokens))
	for i := range p.keep {
		a := p.keep[i].rows(len(b.Tokens))
		a.x, a.xn, a.h, a.hn, a.ff = p.act.x, p.act.xn, p.act.h, p.act.hn, p.act.ff
		a.keys, a.values = p.act.keys, p.act.values
		p.kept[i] = a
	}
	p.write(p.ids, b.Tokens)
	p.write(p.pos, b.Positions)
	p.write(p.want, b.Want)
	p.write(p.starts, b.Starts)
	p.write(p.lengths, b.Lengths)
	if len(b.Targets) > 0 {
		p.write(p.targets, b.Targets)
	}
	if kv != nil {
		p.write(p.slots, b.Slots)
		p.write(p.from, b.From)
		p.write(p.to, b.To)
		for i, pages := range b.Pages {
			p.write(p.pages.Slice(i, 1).Columns(0, len(pages)), pages)
		}
	}
	p.loadDist(b)
	return nil
}

func (p *Pass) loadDist(b *batch.Batch) {
	if len(b.Temperatures) > 0 {
		p.raw = p.raw[:0]
		for _, t := range b.Temperatures {
			p.raw = binary.LittleEndian.AppendUint32(p.raw, math.Float32bits(t))
		}
		p.d.be.Write(p.temperature.Slice(0, len(b.Temperatures)), p.raw)
	}
	if len(b.Masks) > 0 {
		p.raw = p.raw[:0]
		for _, w := range b.Masks {
			p.raw = binary.LittleEndian.AppendUint32(p.raw, w)
		}
		p.d.be.Write(p.mask.Slice(0, len(b.Want)), p.raw)
	}
}

// Follow takes the loaded batch's tokens from ids, a column that is on the device: token i is its row rows[i].
func (p *Pass) Follow(ids kernels.Tensor, rows []int32) {
	n := len(rows)
	p.write(p.follow, rows)
	p.d.be.Gather(p.ids.Slice(0, n), ids, p.follow.Slice(0, n))
}

// write puts v into the first len(v) elements of t, a column or a row.
func (p *Pass) write(t kernels.Tensor, v []int32) {
	if len(v) == 0 {
		return
	}
	p.raw = p.raw[:0]
	for _, x := range v {
		p.raw = binary.LittleEndian.AppendUint32(p.raw, uint32(x))
	}
	if t.Rows > 1 {
		t = t.Slice(0, len(v))
	}
	p.d.be.Write(t, p.raw)
}

// attn describes the batch's attention.
func (p *Pass) attn() kernels.Attn {
	c := &p.d.Config
	n := p.b.Sequences()
	a := kernels.Attn{
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: float32(1 / math.Sqrt(float64(c.HeadDim))),
		Starts: p.starts.Slice(0, n+1), Lengths: p.lengths.Slice(0, n),
	}
	for i := range n {
		a.MaxQueries = max(a.MaxQueries, int(p.b.Starts[i+1]-p.b.Starts[i]))
	}
	if p.kv != nil {
		a.Pages, a.PageSize = p.pages.Slice(0, n), p.size.PageSize
	}
	return a
}

// dist is the distribution of wanted rows i … i+n-1.
func (p *Pass) dist(i, n int) (d kernels.Dist) {
	if len(p.b.Temperatures) > 0 {
		d.Temperature = p.temperature.Slice(i, n)
	}
	if len(p.b.Masks) > 0 {
		d.Mask = p.mask.Slice(i, n)
	}
	return d
}

// A Cache is the keys and values of every layer, in pages of PageSize rows.
type Cache struct {
	Pages, PageSize int
	k, v            []kernels.Tensor
}

// NewCache makes a cache of pages × pageSize positions.
func (d *Decoder) NewCache(pages, pageSize int) *Cache {
	c := &Cache{Pages: pages, PageSize: pageSize}
	for range d.layers {
		c.k = append(c.k, d.be.New(d.keyType(), pages*pageSize, d.kv))
		c.v = append(c.v, d.be.New(d.keyType(), pages*pageSize, d.kv))
	}
	return c
}

// CacheBytes is what one position takes.
func (d *Decoder) CacheBytes() int { return len(d.layers) * 2 * d.kv * d.keyType().Size() }
