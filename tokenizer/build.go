package tokenizer

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/nlpodyssey/gotokenizers/models/bpemodel"
	"github.com/nlpodyssey/gotokenizers/vocabulary"
)

// holes is how many ids below the largest may stand for no token. Files pad
// their ids to a round number, not by more; one that names a token and the id
// two billion must not make a table of that size.
const holes = 1 << 16

// A spec is what all the formats say of a tokenizer.
type spec struct {
	vocab    map[string]int32 // model tokens, in byte-level runes
	merges   [][2]string      // in order of rank
	added    []addedToken
	stages   []stage
	nfc      bool
	whole    bool   // ignore_merges
	unk      string // "" for none
	fuse     bool
	prefix   []int32
	suffix   []int32
	bos, eos string // "" for none
	names    map[string]any
	chats    templates
}

func (s *spec) build() (*Tokenizer, error) {
	t := &Tokenizer{
		nfc: s.nfc, stages: s.stages, prefix: s.prefix, suffix: s.suffix,
		names: s.names, chats: s.chats, bos: -1, eos: -1,
		added: make(map[string]int32, len(s.added)),
	}
	if err := t.table(s); err != nil {
		return nil, err
	}
	if err := t.bpe(s); err != nil {
		return nil, err
	}
	if err := t.matchers(s.added); err != nil {
		return nil, err
	}
	for _, id := range slices.Concat(t.prefix, t.suffix) {
		if !t.has(id) {
			return nil, fmt.Errorf("the post-processor adds id %d, which is no token", id)
		}
	}
	for _, end := range []struct {
		id   *int32
		name string
	}{{&t.bos, s.bos}, {&t.eos, s.eos}} {
		if id, ok := t.ID(end.name); ok && end.name != "" {
			*end.id = id
		}
	}
	return t, nil
}

// table fills t.tokens and t.vocab: gotokenizers numbers terms in the order they
// come, so an id without a model token gets a term no token can be.
func (t *Tokenizer) table(s *spec) error {
	size, count := int32(0), int32(len(s.vocab)+len(s.added))
	for text, id := range s.vocab {
		if err := inRange(text, id, count); err != nil {
			return err
		}
		size = max(size, id+1)
	}
	words := size
	for _, a := range s.added {
		if err := inRange(a.Content, a.ID, count); err != nil {
			return err
		}
		size = max(size, a.ID+1)
	}
	t.tokens = make([]token, size)
	for text, id := range s.vocab {
		if k := &t.tokens[id]; k.kind != unused {
			return fmt.Errorf("tokens %q and %q share id %d", k.text, text, id)
		}
		t.tokens[id] = token{text: text, bytes: unspell(text), kind: model}
	}
	t.vocab = vocabulary.NewVocabulary()
	for id, k := range t.tokens[:words] {
		if k.kind == unused {
			k.text = fmt.Sprintf("\x00 no token %d", id)
		}
		t.vocab.AddTerm(k.text)
	}
	if t.vocab.Size() != int(words) {
		return fmt.Errorf("a token starts with a zero byte")
	}
	return nil
}

func inRange(text string, id, count int32) error {
	if id < 0 || id-holes > count {
		return fmt.Errorf("token %q has id %d, in a vocabulary of %d tokens", text, id, count)
	}
	return nil
}

// matchers enters the added tokens and sorts them by the text they are looked for in.
func (t *Tokenizer) matchers(added []addedToken) error {
	var before, after []addedToken
	for _, a := range added {
		if a.Content == "" {
			continue // the reference passes over these too
		}
		if id, ok := t.added[a.Content]; ok {
			return fmt.Errorf("added token %q has ids %d and %d", a.Content, id, a.ID)
		}
		if id, ok := t.vocab.GetID(a.Content); ok && int32(id) != a.ID {
			return fmt.Errorf("added token %q has id %d, in the vocabulary it has %d", a.Content, a.ID, id)
		}
		k := &t.tokens[a.ID]
		if k.kind != unused && k.text != a.Content {
			return fmt.Errorf("tokens %q and %q share id %d", k.text, a.Content, a.ID)
		}
		t.added[a.Content] = a.ID
		if a.Normalized && t.nfc {
			a.Content = compose(a.Content) // also what it decodes to, in the reference
		}
		*k = token{text: a.Content, bytes: unspell(a.Content), kind: plain}
		if a.Special {
			k.kind = special
		}
		if a.Normalized {
			after = append(after, a)
		} else {
			before = append(before, a)
		}
	}
	t.before, t.after = newMatcher(before), newMatcher(after)
	return nil
}

// bpe builds the merge table.
func (t *Tokenizer) bpe(s *spec) error {
	m := &merger{merges: bpemodel.NewMergeMap(), vocab: t.vocab, whole: s.whole, unk: -1, fuse: s.fuse, cache: newCache()}
	for b := range m.bytes {
		m.bytes[b] = -1
		if id, ok := t.modelID(string(byteRune[b])); ok {
			m.bytes[b] = int32(id)
		}
	}
	if s.unk != "" {
		id, ok := t.modelID(s.unk)
		if !ok {
			return fmt.Errorf("the unknown token %q is not in the vocabulary", s.unk)
		}
		m.unk = int32(id)
	}
	if len(s.merges) > math.MaxInt32 {
		return fmt.Errorf("%d merges", len(s.merges))
	}
	for rank, p := range s.merges {
		left, lok := t.modelID(p[0])
		right, rok := t.modelID(p[1])
		both, ok := t.modelID(p[0] + p[1])
		if !lok || !rok || !ok {
			return fmt.Errorf("merge %d: %q and %q to %q: not all of them are in the vocabulary", rank, p[0], p[1], p[0]+p[1])
		}
		m.merges.Set(left, right, bpemodel.MergeValue{Rank: rank, ID: both})
	}
	t.merge = m
	return nil
}

// modelID returns the id of a token of the BPE vocabulary.
func (t *Tokenizer) modelID(text string) (int, bool) {
	if strings.HasPrefix(text, "\x00") {
		return 0, false
	}
	return t.vocab.GetID(text)
}
