package batch

import (
	"fmt"
	"slices"
)

// A Sequence is one text to train on: its tokens, and which of them are predicted from those before.
type Sequence struct {
	Tokens      []int32
	Shared      int        // how many of its first tokens are rows of its group's first sequence; 0: it begins a group
	Predict     []int32    // places of the tokens to predict, ascending, each at least 1
	Temperature float32    // of the distributions they were drawn from; 0: 1
	Masks       [][]uint32 // a bit set of the allowed ids for each place of Predict, nil: all; nil: all everywhere
}

// length is how many of the sequence's tokens must be run: those after the last one that predicts
// something change nothing.
func (s *Sequence) length() int {
	if len(s.Predict) == 0 {
		return 0
	}
	return int(s.Predict[len(s.Predict)-1])
}

// Rows is how many rows the sequence has of its own in a batch.
func (s *Sequence) Rows() int { return max(0, s.length()-s.Shared) }

// Pack empties b and fills it with groups from the front of seqs: as many as fit into limit tokens and at
// least one, each whole. (So a gradient, summed over rows in order, is the same bits for any limit.) It returns
// how many sequences it took. Rows are wanted in the order of the sequences and their places, so those of one
// batch after another run over all of seqs in order. A sequence that predicts nothing is taken and leaves no
// rows: b may come out empty.
func Pack(b *Batch, seqs []Sequence, limit int) int {
	b.Reset()
	n, rows := 0, 0
	for n < len(seqs) {
		end, more := n, 0
		for end == n || end < len(seqs) && seqs[end].Shared > 0 {
			more += seqs[end].Rows()
			end++
		}
		if rows > 0 && rows+more > limit {
			break
		}
		n, rows = end, rows+more
	}
	words, warm := 0, false
	for i := range seqs[:n] {
		s := &seqs[i]
		if s.Masks != nil && len(s.Masks) != len(s.Predict) {
			panic(fmt.Sprintf("batch: sequence %d has %d masks for %d places", i, len(s.Masks), len(s.Predict)))
		}
		for _, m := range s.Masks {
			words = max(words, len(m))
		}
		warm = warm || s.Temperature != 0 && s.Temperature != 1
	}
	b.Starts = append(b.Starts, 0)
	first := &Sequence{}
	for i := range seqs[:n] {
		if seqs[i].Shared == 0 {
			first = &seqs[i]
		} else if !seqs[i].shares(first) {
			panic(fmt.Sprintf("batch: sequence %d does not have its first %d tokens from the %d rows of its group's first", i, seqs[i].Shared, first.length()))
		}
		if seqs[i].length() > 0 {
			b.add(&seqs[i], words, warm)
		}
	}
	return n
}

// shares reports whether s can do without rows of its own for its Shared tokens: first, which begins its group,
// has them as rows, and s predicts nothing from within them.
func (s *Sequence) shares(first *Sequence) bool {
	return s.Shared <= first.length() && s.Shared <= len(s.Tokens) && slices.Equal(s.Tokens[:s.Shared], first.Tokens[:s.Shared]) &&
		(len(s.Predict) == 0 || int(s.Predict[0]) > s.Shared)
}

// add appends s. With warm every row gets its temperature, with words > 0 its mask of so many words.
func (b *Batch) add(s *Sequence, words int, warm bool) {
	start, length := int32(len(b.Tokens)-s.Shared), s.length()
	b.Tokens = append(b.Tokens, s.Tokens[s.Shared:length]...)
	for p := s.Shared; p < length; p++ {
		b.Positions = append(b.Positions, int32(p))
	}
	b.Starts = append(b.Starts, int32(len(b.Tokens)))
	b.Lengths = append(b.Lengths, int32(length))
	before := int32(0)
	for i, p := range s.Predict {
		if p <= before {
			panic(fmt.Sprintf("batch: place %d follows %d: places ascend from 1", p, before))
		}
		before = p
		b.Want = append(b.Want, start+p-1)
		b.Targets = append(b.Targets, s.Tokens[p])
		if warm {
			b.Temperatures = append(b.Temperatures, temperature(s.Temperature))
		}
		if words > 0 {
			var m []uint32
			if s.Masks != nil {
				m = s.Masks[i]
			}
			b.mask(m, words)
		}
	}
}

// mask appends the mask of one wanted row; nil allows every id.
func (b *Batch) mask(m []uint32, words int) {
	switch len(m) {
	case 0:
		for range words {
			b.Masks = append(b.Masks, ^uint32(0))
		}
	case words:
		b.Masks = append(b.Masks, m...)
	default:
		panic(fmt.Sprintf("batch: a mask of %d words beside one of %d", len(m), words))
	}
}

// temperature is t, where 0 stands for 1.
func temperature(t float32) float32 {
	if t == 0 {
		return 1
	}
	return t
}
