package predict

import (
	"fmt"
	"maps"

	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/train"
	"github.com/r2-reasoner/r2/train/grpo"
	"github.com/r2-reasoner/r2/weights"
)

// A Scene is what a piece of work asks a device for.
type Scene struct {
	Calls map[Call]int
	Bytes int // of memory that it holds, after what was there before
}

// blank is a Source of zeros.
type blank struct {
	shapes map[string][]int
	zeros  []byte
}

func newBlank(c weights.Config) *blank {
	b := &blank{shapes: map[string][]int{}}
	for _, p := range c.Parameters() {
		b.shapes[p.Name] = p.Shape
	}
	return b
}

func (b *blank) Tensor(name string) (weights.Tensor, error) {
	t := weights.Tensor{Name: name, Type: weights.BF16, Shape: b.shapes[name]}
	n := 2 * t.Len()
	if n > len(b.zeros) {
		b.zeros = make([]byte, n)
	}
	t.Data = b.zeros[:n]
	return t, nil
}

// A Model is a configuration to record scenes of.
type Model struct {
	weights.Config
	On *Survey // the device that is recorded for; nil: any

	loaded [2]*loaded // with one layer, and with two
}

// A loaded decoder is on a recorder, and takes so many bytes.
type loaded struct {
	rec   *Recorder
	dec   *model.Decoder
	bytes int
}

// load makes the decoders, once.
func (m *Model) load() error {
	for i := range m.loaded {
		if m.loaded[i] != nil {
			continue
		}
		c := m.Config
		c.Layers = i + 1
		rec := NewRecorder(m.On)
		dec, err := model.Load(rec, c, newBlank(c), model.Options{})
		if err != nil {
			return err
		}
		m.loaded[i] = &loaded{rec, dec, rec.Bytes}
	}
	return nil
}

// deep records with one layer and with two, and extends what the second adds to all of them. f calls mark where a scene ends.
func (m *Model) deep(f func(rec *Recorder, dec *model.Decoder, mark func()) error) ([]Scene, error) {
	if err := m.load(); err != nil {
		return nil, err
	}
	var both [2][]Scene
	for i, l := range m.loaded {
		clear(l.rec.Calls)
		l.rec.Bytes = l.bytes
		mark := func() {
			both[i] = append(both[i], Scene{maps.Clone(l.rec.Calls), l.rec.Bytes})
			clear(l.rec.Calls)
		}
		if err := f(l.rec, l.dec, mark); err != nil {
			return nil, err
		}
	}
	more := m.Layers - 1
	var all []Scene
	for i, two := range both[1] {
		one := both[0][i]
		s := Scene{Calls: map[Call]int{}, Bytes: one.Bytes + more*(two.Bytes-one.Bytes)}
		for c, n := range two.Calls {
			s.Calls[c] = one.Calls[c] + more*(n-one.Calls[c])
		}
		all = append(all, s)
	}
	return all, nil
}

// adapter is one of a rank on all projections; nil where that is 0.
func adapter(dec *model.Decoder, rank int) (*model.Adapter, error) {
	if rank == 0 {
		return nil, nil
	}
	cfg := weights.AdapterConfig{R: rank, Alpha: 2 * float64(rank), Targets: weights.Targets{Names: model.Modules()}}
	a, err := model.RandomAdapter(dec.Config, cfg, 1)
	if err != nil {
		return nil, err
	}
	return dec.LoadAdapter(a)
}

// Step is a batch of n sequences with so many new tokens each, the last at a context of so many, of which each Samples of them share
// so many first tokens; a token is drawn of each.
func (m *Model) Step(n, tokens, context, shared, rank int) (Scene, error) {
	all, err := m.deep(func(rec *Recorder, dec *model.Decoder, mark func()) error {
		ad, err := adapter(dec, rank)
		if err != nil {
			return err
		}
		pages := (context + pageSize - 1) / pageSize
		run, err := runner.New(dec, model.Size{Tokens: n * tokens, Sequences: n, Wanted: n, Pages: pages, PageSize: pageSize, Rank: rank}, n*pages)
		if err != nil {
			return err
		}
		run.SetAdapter(1, ad)
		b, draws := Steps(n, tokens, context, shared)
		rec.Sequences = nil
		for range n {
			if ad != nil {
				b.Adapters = append(b.Adapters, 1)
			}
			rec.Sequences = append(rec.Sequences, Sequence{tokens, context, shared})
		}
		clear(rec.Calls)
		if _, err = run.Step(b, draws); err != nil {
			return err
		}
		mark()
		return nil
	})
	if err != nil {
		return Scene{}, err
	}
	return all[0], nil
}

// Steps is a batch of n sequences with so many new tokens at the end of a context, each in pages of its own but for the tokens that
// each Samples of them share, and a draw of each.
func Steps(n, tokens, context, shared int) (*batch.Batch, []sample.Draw) {
	pages := (context + pageSize - 1) / pageSize
	b, draws := &batch.Batch{Starts: []int32{0}}, make([]sample.Draw, n)
	for i := range n {
		var mine []int32
		for p := range pages {
			mine = append(mine, int32(pageOf(i, p, pages, shared/pageSize)))
		}
		for at := context - tokens; at < context; at++ {
			b.Tokens, b.Positions = append(b.Tokens, int32(at%256)), append(b.Positions, int32(at))
			b.Slots = append(b.Slots, int32(i*pages*pageSize+at))
		}
		b.Starts, b.Lengths, b.Pages = append(b.Starts, int32(len(b.Tokens))), append(b.Lengths, int32(context)), append(b.Pages, mine)
		b.Want, b.Temperatures = append(b.Want, int32(len(b.Tokens)-1)), append(b.Temperatures, 1)
		draws[i] = sample.Draw{Params: sample.Params{Temperature: 1}, Sample: uint32(i)}
	}
	return b, draws
}

// A Training is what one group of rollouts takes: the policy's and the reference's forward passes, the backward pass, and the update that
// follows all groups.
type Training struct{ Forward, Reference, Backward, Update Scene }

// Train is a group of samples of a prompt with so many tokens each, in one batch. Bytes are the learner's alone.
func (m *Model) Train(prompt, tokens, samples, rank int) (t Training, err error) {
	all, err := m.deep(func(rec *Recorder, dec *model.Decoder, mark func()) error {
		ad, err := adapter(dec, rank)
		if err != nil {
			return err
		}
		rec.Bytes = 0
		size := model.Size{Tokens: MicroTokens, Sequences: MicroTokens, Wanted: MicroTokens, Slice: 128}
		l, err := train.New(dec, ad, nil, size, train.Optimizer{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Clip: 1})
		if err != nil {
			return err
		}
		b := &batch.Batch{}
		if seqs := Group(prompt, tokens, samples); batch.Pack(b, seqs, MicroTokens) < len(seqs) {
			return fmt.Errorf("a group of %d does not fit a batch of %d tokens", samples, MicroTokens)
		}
		rec.Sequences = nil
		for s := range b.Sequences() {
			rec.Sequences = append(rec.Sequences, Sequence{Queries: int(b.Starts[s+1] - b.Starts[s]), Keys: int(b.Lengths[s])})
		}
		clear(rec.Calls)
		if _, err = l.Reference(b); err != nil {
			return err
		}
		mark()
		if _, _, err = l.Distributions(b); err != nil {
			return err
		}
		mark()
		if err = l.Backward(make([]float32, len(b.Want))); err != nil {
			return err
		}
		mark()
		if _, err = l.Update(1e-5); err != nil {
			return err
		}
		mark()
		return nil
	})
	if err != nil {
		return t, err
	}
	return Training{Reference: all[0], Forward: all[1], Backward: all[2], Update: all[3]}, nil
}

// MicroTokens is the room of a training batch.
const MicroTokens = 8192

// Group is the sequences of samples that share a prompt: in parts, as many in each as grpo.Rows has room for.
func Group(prompt, tokens, samples int) []batch.Sequence {
	all := make([]batch.Sequence, samples)
	part := max(1, (grpo.Rows(prompt, tokens, samples)-(prompt-1))/tokens)
	for i := range all {
		s := &all[i]
		s.Tokens = make([]int32, prompt+tokens)
		for p := range tokens {
			s.Predict = append(s.Predict, int32(prompt+p))
		}
		if i%part > 0 {
			s.Shared = prompt - 1
		}
	}
	return all
}

// Product is one Linear of rows and a weight.
func Product(rows, out, in int) Scene {
	return Scene{Calls: map[Call]int{{Op: "Linear", Dims: [7]int{rows, out, in}}: 1}}
}

// Attend is causal attention of one sequence of n, or its gradient.
func Attend(op string, n, heads, kv, dim int) Scene {
	return Scene{Calls: map[Call]int{{Op: op, Dims: [7]int{1, n, 0, heads, kv, dim, 0}}: 1}}
}
