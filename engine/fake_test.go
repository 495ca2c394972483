package engine

import (
	"fmt"
	"slices"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A slot is what the fake's cache holds of one token: the hash stands for its key and value, which
// depend on the whole prefix.
type slot struct {
	chain   uint64
	token   int32
	written bool
}

// A fake is a Stepper that keeps a cache of slots, and sees it when a sequence reads through its pages
// something else than what belongs to it.
type fake struct {
	world
	Options
	size   int // of a page
	slots  []slot
	tokens []Token
	steps  int
	onStep func(b *batch.Batch) error // may fail the step

	contents map[int32]uint64 // of the slots; an adapter that was there from the start has its number
}

func newFake(o Options, pages, size int) *fake {
	return &fake{world: world{vocab: o.Vocab}, Options: o.complete(), size: size, slots: make([]slot, pages*size), contents: map[int32]uint64{}}
}

// content is that of a slot, or a failure.
func (f *fake) content(slot int32) (uint64, error) {
	if c, ok := f.contents[slot]; ok {
		return c, nil
	}
	if int(slot) > f.Adapters {
		return 0, fmt.Errorf("there is no adapter in slot %d", slot)
	}
	return uint64(slot), nil
}

func (f *fake) Step(b *batch.Batch, draws []sample.Draw) ([]Token, error) {
	f.steps++
	if f.onStep != nil {
		if err := f.onStep(b); err != nil {
			return nil, err
		}
	}
	if err := f.wellFormed(b, draws); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFatal)
	}
	chains := make([]uint64, len(b.Tokens))
	if err := f.writeAll(b, chains); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFatal)
	}
	if err := f.copy(b); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFatal)
	}
	for s := range b.Sequences() { // nobody may have written over what another needs
		if _, err := f.read(b, s, b.Lengths[s]); err != nil {
			return nil, fmt.Errorf("sequence %d, after the step: %w: %w", s, err, ErrFatal)
		}
	}
	f.tokens = f.tokens[:0]
	words := (f.vocab + 31) / 32
	for i, row := range b.Want {
		var mask []uint32
		if len(b.Masks) > 0 {
			mask = b.Masks[i*words:][:words]
		}
		f.tokens = append(f.tokens, f.answer(b, draws[i], i, chains[row], mask))
	}
	return f.tokens, nil
}

func (f *fake) answer(b *batch.Batch, d sample.Draw, i int, chain uint64, mask []uint32) Token {
	var s sample.Scratch
	var t Token
	if d.Score {
		t = Token{ID: b.Targets[i], LogProb: f.score(chain, b.Targets[i])}
	} else {
		t.ID, t.LogProb = sample.Choose(f.logits(chain), d, mask, d.Uniform(), &s)
		t.Top = s.Top(nil, d.Top)
	}
	if d.Raw || d.RawTop > 0 {
		t.Raw, t.Rank, t.RawTop = f.score(chain, t.ID), f.rank(chain, t.ID), f.rawTop(chain, d.RawTop)
	}
	return t
}

// writeAll stores the new tokens of all sequences, those last that read what others write.
func (f *fake) writeAll(b *batch.Batch, chains []uint64) error {
	todo := make([]int, b.Sequences())
	for s := range todo {
		todo[s] = s
	}
	for len(todo) > 0 {
		var later []int
		var why error
		for _, s := range todo {
			if err := f.write(b, s, chains); err != nil {
				later, why = append(later, s), fmt.Errorf("sequence %d: %w", s, err)
			}
		}
		if len(later) == len(todo) {
			return why
		}
		todo = later
	}
	return nil
}

// write stores sequence s's new tokens.
func (f *fake) write(b *batch.Batch, s int, chains []uint64) error {
	first := b.Starts[s]
	chain, err := f.read(b, s, b.Positions[first])
	if err != nil {
		return err
	}
	for i := first; i < b.Starts[s+1]; i++ {
		chain = mix(chain, uint64(b.Tokens[i]))
		chains[i] = chain
		f.slots[b.Slots[i]] = slot{chain, b.Tokens[i], true}
	}
	return nil
}

// copy copies rows that hold something, to rows that this step neither writes nor copies.
func (f *fake) copy(b *batch.Batch) error {
	if len(b.From) != len(b.To) || len(b.From) > f.MaxSequences*f.size {
		return fmt.Errorf("%d rows to copy to %d", len(b.From), len(b.To))
	}
	taken := map[int32]bool{}
	for _, row := range append(slices.Clone(b.Slots), b.From...) {
		taken[row] = true
	}
	for i, from := range b.From {
		if !f.slots[from].written || taken[b.To[i]] {
			return fmt.Errorf("row %d (%+v) is copied to %d", from, f.slots[from], b.To[i])
		}
		taken[b.To[i]] = true
		f.slots[b.To[i]] = f.slots[from]
	}
	return nil
}

// read walks the first n positions of sequence s through its pages.
func (f *fake) read(b *batch.Batch, s int, n int32) (chain uint64, err error) {
	content, err := f.content(b.Adapters[s])
	if err != nil {
		return 0, err
	}
	chain = f.root(content)
	for at := range n {
		row := b.Pages[s][int(at)/f.size]*int32(f.size) + at%int32(f.size)
		have := f.slots[row]
		chain = mix(chain, uint64(have.token))
		if !have.written || have.chain != chain {
			return 0, fmt.Errorf("position %d in row %d holds another prefix (token %d, written %v)", at, row, have.token, have.written)
		}
	}
	return chain, nil
}

// wellFormed checks the shape of a batch.
func (f *fake) wellFormed(b *batch.Batch, draws []sample.Draw) error {
	n := b.Sequences()
	switch {
	case n == 0 || len(b.Tokens) == 0:
		return fmt.Errorf("an empty batch")
	case n > f.MaxSequences || len(b.Tokens) > f.TokensPerStep:
		return fmt.Errorf("%d sequences, %d tokens", n, len(b.Tokens))
	case len(b.Starts) != n+1 || len(b.Pages) != n || len(b.Adapters) != n:
		return fmt.Errorf("%d starts, %d page lists, %d adapters for %d sequences", len(b.Starts), len(b.Pages), len(b.Adapters), n)
	case len(b.Positions) != len(b.Tokens) || len(b.Slots) != len(b.Tokens) || int(b.Starts[n]) != len(b.Tokens) || b.Starts[0] != 0:
		return fmt.Errorf("%d positions, %d slots for %d tokens that end at %d", len(b.Positions), len(b.Slots), len(b.Tokens), b.Starts[n])
	case len(draws) != len(b.Want) || len(b.Temperatures) != len(b.Want) || len(b.Targets) != 0 && len(b.Targets) != len(b.Want):
		return fmt.Errorf("%d draws, %d temperatures, %d targets for %d rows", len(draws), len(b.Temperatures), len(b.Targets), len(b.Want))
	case len(b.Masks) != 0 && len(b.Masks) != len(b.Want)*((f.vocab+31)/32):
		return fmt.Errorf("%d mask words for %d rows", len(b.Masks), len(b.Want))
	}
	used, adapters := map[int32]bool{}, map[int32]bool{}
	for s := range n {
		if s > 0 && b.Adapters[s] != b.Adapters[s-1] && adapters[b.Adapters[s]] {
			return fmt.Errorf("the sequences of adapter %d stand apart: %v", b.Adapters[s], b.Adapters)
		}
		adapters[b.Adapters[s]] = true
		if err := f.wellPlaced(b, s, used); err != nil {
			return fmt.Errorf("sequence %d: %w", s, err)
		}
	}
	if words := (f.vocab + 31) / 32; f.vocab%32 != 0 {
		for i := words - 1; i < len(b.Masks); i += words {
			if b.Masks[i]>>(f.vocab%32) != 0 {
				return fmt.Errorf("mask word %d allows ids beyond the vocabulary", i)
			}
		}
	}
	if len(b.Want) > f.TokensPerStep {
		return fmt.Errorf("%d wanted rows", len(b.Want))
	}
	last := int32(-1)
	for i, row := range b.Want {
		if row < last || row == last && (draws[i].Score || draws[i-1].Score) || int(row) >= len(b.Tokens) {
			return fmt.Errorf("wanted rows %v", b.Want)
		}
		last = row
		if d := draws[i]; !d.Score && b.Temperatures[i] != d.Temperature || d.Score && (b.Temperatures[i] != 1 || b.Targets[i] < 0) {
			return fmt.Errorf("row %d: temperature %v, draw %+v", row, b.Temperatures[i], d)
		}
	}
	return nil
}

// wellPlaced checks that sequence s's tokens go where its pages say.
func (f *fake) wellPlaced(b *batch.Batch, s int, used map[int32]bool) error {
	lo, hi := b.Starts[s], b.Starts[s+1]
	if hi <= lo || b.Lengths[s] != b.Positions[hi-1]+1 || len(b.Pages[s]) != (int(b.Lengths[s])+f.size-1)/f.size {
		return fmt.Errorf("rows %d to %d, length %d, %d pages", lo, hi, b.Lengths[s], len(b.Pages[s]))
	}
	for i := lo; i < hi; i++ {
		at := b.Positions[i]
		if i > lo && at != b.Positions[i-1]+1 {
			return fmt.Errorf("positions %v", b.Positions[lo:hi])
		}
		if want := b.Pages[s][int(at)/f.size]*int32(f.size) + at%int32(f.size); b.Slots[i] != want || used[want] {
			return fmt.Errorf("position %d goes to row %d, want %d, used %v", at, b.Slots[i], want, used[want])
		}
		used[b.Slots[i]] = true
	}
	return nil
}
