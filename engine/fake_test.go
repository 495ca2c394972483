package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/model/batch"
)

// A world is a model whose logits are a function of a sequence's own adapter and tokens, and of the
// generation of its weights: any mixing of sequences, positions, pages or generations changes them.
type world struct {
	vocab      int
	generation uint64
}

func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9E3779B97F4A7C15
	return h ^ h>>29
}

func (w world) root(content uint64) uint64 { return mix(mix(1, w.generation), content) }

// logits follow the prefix whose hash is chain.
func (w world) logits(chain uint64) []float32 {
	out := make([]float32, w.vocab)
	for i := range out {
		chain = mix(chain, uint64(i)+77)
		out[i] = float32(chain>>40) / (1 << 24) * 6
	}
	return out
}

func (w world) score(chain uint64, id int32) float32 { return scoreOf(w.logits(chain), id, nil) }

// scoreOf is the log-probability of id among the ids that ok accepts, at temperature 1.
func scoreOf(l []float32, id int32, ok func(int32) bool) float32 {
	sum := 0.0
	for i, v := range l {
		if ok == nil || ok(int32(i)) {
			sum += math.Exp(float64(v))
		}
	}
	return float32(float64(l[id]) - math.Log(sum))
}

// sorted are all ids, the most likely first.
func (w world) sorted(chain uint64) []int32 {
	l := w.logits(chain)
	ids := make([]int32, len(l))
	for i := range ids {
		ids[i] = int32(i)
	}
	slices.SortStableFunc(ids, func(a, b int32) int { return cmp.Compare(l[b], l[a]) })
	return ids
}

// rawTop is the head of them with their log-probabilities.
func (w world) rawTop(chain uint64, k int) (top []sample.Scored) {
	if k == 0 {
		return nil
	}
	for _, id := range w.sorted(chain)[:k] {
		top = append(top, sample.Scored{ID: id, LogProb: w.score(chain, id)})
	}
	return top
}

func (w world) rank(chain uint64, id int32) int32 {
	return int32(slices.Index(w.sorted(chain), id)) + 1
}

// alone is what a request must give: each sample's events, computed alone and in order.
func (w world) alone(r Request) (out [][]Event) { return w.aloneAs(r, uint64(r.Adapter)) }

// aloneAs is what it must give under an adapter of a content.
func (w world) aloneAs(r Request, content uint64) (out [][]Event) {
	chain := w.root(content)
	first := Event{Prompt: []float32{}, PromptRanks: []int32{}, PromptTop: [][]sample.Scored{}}
	for i, id := range r.Prompt {
		if i > 0 {
			if r.PromptLogProbs {
				first.Prompt = append(first.Prompt, w.score(chain, id))
			}
			if r.PromptRanks || r.PromptTop > 0 {
				first.PromptRanks = append(first.PromptRanks, w.rank(chain, id))
				first.PromptTop = append(first.PromptTop, w.rawTop(chain, r.PromptTop))
			}
		}
		chain = mix(chain, uint64(id))
	}
	for n := range r.Samples {
		events := w.sample(r, n, chain)
		if r.PromptLogProbs && n == 0 {
			events[0].Prompt = first.Prompt
			if r.PromptRanks || r.PromptTop > 0 {
				events[0].PromptRanks = first.PromptRanks
			}
			if r.PromptTop > 0 {
				events[0].PromptTop = first.PromptTop
			}
		}
		out = append(out, events)
	}
	return out
}

// sample plays completion n after the prompt's chain. It knows choices as a list, not as a trie.
func (w world) sample(r Request, n int, chain uint64) (events []Event) {
	if r.Limit == 0 {
		return []Event{{Token: Token{ID: -1}, Done: Length}}
	}
	left := slices.Clone(r.Choices)
	var drawn []int32
	for step := range r.Limit {
		mask := restrict(allow(left, step, r.Stop, w.vocab), r, drawn, w.vocab)
		if mask != nil && !slices.ContainsFunc(mask, func(w uint32) bool { return w != 0 }) {
			return append(events, Event{Sample: n, Token: Token{ID: -2}}) // the request ends with an error
		}
		u := sample.Uniform(r.Sampling.Seed, uint32(n), uint32(step))
		var s sample.Scratch
		id, lp := sample.Choose(w.logits(chain), sample.Draw{Params: r.Sampling, Prompt: r.Prompt, Drawn: drawn}, mask, u, &s)
		e := Event{Sample: n, Token: Token{ID: id, LogProb: lp, Top: s.Top(nil, r.Top), RawTop: w.rawTop(chain, r.RawTop)}}
		if r.Raw || r.RawTop > 0 {
			e.Token.Raw, e.Token.Rank = w.score(chain, id), w.rank(chain, id)
		}
		drawn = append(drawn, id)
		chain = mix(chain, uint64(id))
		if r.Choices == nil {
			if slices.Contains(r.Stop, id) {
				e.Done = Stop
			}
		} else {
			whole := slices.ContainsFunc(left, func(c []int32) bool { return len(c) == step })
			left = slices.DeleteFunc(left, func(c []int32) bool { return len(c) <= step || c[step] != id })
			if whole && len(left) == 0 || !slices.ContainsFunc(left, func(c []int32) bool { return len(c) > step+1 }) {
				e.Done = Stop
			}
		}
		if e.Done == Running && step == r.Limit-1 {
			e.Done = Length
		}
		events = append(events, e)
		if e.Done != Running {
			break
		}
	}
	return events
}

// restrict takes from mask, nil for all, what else r forbids after drawn.
func restrict(mask []uint32, r Request, drawn []int32, vocab int) []uint32 {
	forbidden := func(id int32) bool {
		if r.Allowed != nil && !slices.Contains(r.Allowed, id) || len(drawn) < r.MinTokens && slices.Contains(r.Stop, id) {
			return true
		}
		text := fmt.Sprint(append(slices.Clone(drawn), id)) // as "[3 1 4]"
		for _, w := range r.BadWords {
			bad := strings.TrimPrefix(fmt.Sprint(w), "[")
			if strings.HasSuffix(text, " "+bad) || text == "["+bad {
				return true
			}
		}
		return false
	}
	for id := range int32(vocab) {
		if !forbidden(id) {
			continue
		}
		if mask == nil {
			mask = make([]uint32, (vocab+31)/32)
			for all := range vocab {
				mask[all/32] |= 1 << (all % 32)
			}
		}
		mask[id/32] &^= 1 << (id % 32)
	}
	return mask
}

// allow is the mask of what may come at step, given the choices that are still possible.
func allow(left [][]int32, step int, stop []int32, vocab int) []uint32 {
	if left == nil {
		return nil
	}
	mask := make([]uint32, (vocab+31)/32)
	set := func(id int32) { mask[id/32] |= 1 << (id % 32) }
	whole, more := false, false
	for _, c := range left {
		if len(c) > step {
			set(c[step])
			more = true
		} else {
			whole = true
		}
	}
	if whole && more {
		for _, id := range stop {
			set(id)
		}
	}
	return mask
}

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
