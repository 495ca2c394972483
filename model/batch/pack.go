package batch

import "fmt"

// A Sequence is one text to train on: its tokens, and which of them are predicted from those before.
type Sequence struct {
	Tokens      []int32
	Predict     []int32    // places of the tokens to predict, ascending, each at least 1
	Temperature float32    // of the distributions they were drawn from; 0: 1
	Masks       [][]uint32 // a bit set of the allowed ids for each place of Predict, nil: all; nil: all everywhere
}

// rows is how many of the sequence's tokens must be run: those after the last one that predicts
// something change nothing.
func (s *Sequence) rows() int {
	if len(s.Predict) == 0 {
		return 0
	}
	return int(s.Predict[len(s.Predict)-1])
}

// Pack empties b and fills it with sequences from the front of seqs: as many as fit into limit tokens
// and at least one, each whole. It returns how many it took. Rows are wanted in the order of the
// sequences and their places, so those of one batch after another run over all of seqs in order.
// A sequence that predicts nothing is taken and leaves no rows: b may come out empty.
func Pack(b *Batch, seqs []Sequence, limit int) int {
	b.Reset()
	n, rows := 0, 0
	for n < len(seqs) && (rows == 0 || rows+seqs[n].rows() <= limit) {
		rows += seqs[n].rows()
		n++
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
	for i := range seqs[:n] {
		if seqs[i].rows() > 0 {
			b.add(&seqs[i], words, warm)
		}
	}
	return n
}

// add appends s. With warm every row gets its temperature, with words > 0 its mask of so many words.
func (b *Batch) add(s *Sequence, words int, warm bool) {
	start, rows := int32(len(b.Tokens)), s.rows()
	b.Tokens = append(b.Tokens, s.Tokens[:rows]...)
	for p := range rows {
		b.Positions = append(b.Positions, int32(p))
	}
	b.Starts = append(b.Starts, int32(len(b.Tokens)))
	b.Lengths = append(b.Lengths, int32(rows))
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
