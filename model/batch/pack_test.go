package batch

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPackLaysSequencesEndToEnd(t *testing.T) {
	seqs := []Sequence{
		{Tokens: []int32{10, 11, 12, 13}, Predict: []int32{2, 3}, Temperature: 0.5, Masks: [][]uint32{{5, 6}, nil}},
		{Tokens: []int32{20, 21, 22}, Predict: []int32{1}}, // token 22 and its row change nothing
	}
	var b Batch
	if n := Pack(&b, seqs, 100); n != 2 {
		t.Fatalf("took %d sequences, want 2", n)
	}
	want := Batch{
		Tokens:       []int32{10, 11, 12, 20},
		Positions:    []int32{0, 1, 2, 0},
		Starts:       []int32{0, 3, 4},
		Lengths:      []int32{3, 1},
		Want:         []int32{1, 2, 3},
		Targets:      []int32{12, 13, 21},
		Temperatures: []float32{0.5, 0.5, 1},
		Masks:        []uint32{5, 6, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1},
	}
	if d := cmp.Diff(want, b); d != "" {
		t.Error(d)
	}
}

// The completions of a prompt share its rows but the last, which predicts.
func TestPackSharesAPrompt(t *testing.T) {
	seqs := []Sequence{
		{Tokens: []int32{10, 11, 12, 13, 14}, Predict: []int32{3, 4}},
		{Tokens: []int32{10, 11, 12, 23, 24, 25}, Predict: []int32{3, 4, 5}, Shared: 2},
		{Tokens: []int32{10, 11, 12}, Shared: 2}, // nothing to predict
		{Tokens: []int32{30, 31}, Predict: []int32{1}},
	}
	var b Batch
	if n := Pack(&b, seqs, 7); n != 3 {
		t.Fatalf("took %d sequences, want the first group's 3", n)
	}
	want := Batch{
		Tokens:    []int32{10, 11, 12, 13, 12, 23, 24},
		Positions: []int32{0, 1, 2, 3, 2, 3, 4},
		Starts:    []int32{0, 4, 7},
		Lengths:   []int32{4, 5},
		Want:      []int32{2, 3, 4, 5, 6},
		Targets:   []int32{13, 14, 23, 24, 25},
	}
	if d := cmp.Diff(want, b); d != "" {
		t.Error(d)
	}
	if n := Pack(&b, seqs, 8); n != 4 || len(b.Tokens) != 8 {
		t.Errorf("took %d sequences and %d tokens, want 4 and 8", n, len(b.Tokens))
	}
}

func TestPackLeavesPlainRowsPlain(t *testing.T) {
	var b Batch
	Pack(&b, []Sequence{{Tokens: []int32{1, 2}, Predict: []int32{1}, Temperature: 1}}, 8)
	if len(b.Temperatures)+len(b.Masks)+len(b.Pages)+len(b.Slots)+len(b.Adapters) != 0 {
		t.Errorf("temperature 1 and no masks gave %+v", b)
	}
}

func TestPackRefusesWhatDoesNotFitTogether(t *testing.T) {
	for name, seqs := range map[string][]Sequence{
		"place 0":                       {{Tokens: []int32{1, 2}, Predict: []int32{0, 1}}},
		"places that descend":           {{Tokens: []int32{1, 2, 3}, Predict: []int32{1, 1}}},
		"place past the end":            {{Tokens: []int32{1, 2}, Predict: []int32{2}}},
		"one mask, two places":          {{Tokens: []int32{1, 2, 3}, Predict: []int32{1, 2}, Masks: [][]uint32{nil}}},
		"shared tokens that differ":     {{Tokens: []int32{1, 2, 3}, Predict: []int32{2}}, {Tokens: []int32{1, 9, 3}, Predict: []int32{2}, Shared: 2}},
		"shared tokens without a row":   {{Tokens: []int32{1, 2, 3}, Predict: []int32{1}}, {Tokens: []int32{1, 2, 3}, Predict: []int32{2}, Shared: 2}},
		"shared tokens with a target":   {{Tokens: []int32{1, 2, 3}, Predict: []int32{2}}, {Tokens: []int32{1, 2, 3}, Predict: []int32{2}, Shared: 2}},
		"shared tokens and no sequence": {{Tokens: []int32{1, 2, 3}, Predict: []int32{2}, Shared: 1}},
		"masks of two lengths":          {{Tokens: []int32{1, 2, 3}, Predict: []int32{1, 2}, Masks: [][]uint32{{1}, {1, 2}}}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			Pack(new(Batch), seqs, 8)
		})
	}
}

// Whatever the limit, the batches together hold every target once, in order, each predicted by the
// row of the token before it in its own sequence, and only a lone group is larger than the limit.
func TestPackKeepsEveryTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seqs := slices.Concat(rapid.SliceOf(rapid.Custom(anyGroup)).Draw(t, "groups")...)
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		var b Batch
		at := 0
		for at < len(seqs) {
			n := Pack(&b, seqs[at:], limit)
			if n < 1 {
				t.Fatalf("took %d sequences", n)
			}
			groups := 0
			for i, s := range seqs[at : at+n] {
				if s.Shared == 0 && s.Rows() > 0 {
					groups++
				}
				if i == 0 && s.Shared > 0 {
					t.Fatal("a batch begins within a group")
				}
			}
			if len(b.Tokens) > limit && groups > 1 {
				t.Fatalf("%d tokens of %d groups, the limit is %d", len(b.Tokens), groups, limit)
			}
			checkPacked(t, &b, seqs[at:at+n])
			at += n
		}
	})
}

func anySequence(t *rapid.T) Sequence {
	s := Sequence{Tokens: rapid.SliceOfN(rapid.Int32Range(0, 99), 1, 20).Draw(t, "tokens")}
	for p := 1; p < len(s.Tokens); p++ {
		if rapid.Bool().Draw(t, "predict") {
			s.Predict = append(s.Predict, int32(p))
		}
	}
	s.Temperature = rapid.SampledFrom([]float32{0, 1, 0.7}).Draw(t, "temperature")
	return s
}

// anyGroup is sequences that begin as the first one does, as far as that has rows and nothing is predicted.
func anyGroup(t *rapid.T) []Sequence {
	all := []Sequence{anySequence(t)}
	if most := all[0].length(); most > 0 {
		for range rapid.IntRange(0, 3).Draw(t, "followers") {
			s := anySequence(t)
			s.Shared = rapid.IntRange(1, most).Draw(t, "shared")
			s.Tokens = append(append([]int32{}, all[0].Tokens[:s.Shared]...), s.Tokens...)
			for i := range s.Predict {
				s.Predict[i] += int32(s.Shared)
			}
			all = append(all, s)
		}
	}
	return all
}

func checkPacked(t *rapid.T, b *Batch, seqs []Sequence) {
	row, place := 0, 0
	for _, s := range seqs {
		if len(s.Predict) == 0 {
			continue
		}
		start, end, shared := b.Starts[place], b.Starts[place+1], int32(s.Shared)
		if !slices.Equal(b.Tokens[start:end], s.Tokens[shared:shared+end-start]) || b.Lengths[place] != shared+end-start {
			t.Fatalf("sequence %d: rows %v of length %d are not those of %v after %d", place, b.Tokens[start:end], b.Lengths[place], s.Tokens, shared)
		}
		for _, p := range s.Predict {
			w := b.Want[row]
			if w-start+shared+1 != p || b.Positions[w] != p-1 || w < start || w >= end || b.Targets[row] != s.Tokens[p] {
				t.Fatalf("place %d of sequence %d: wanted row %d at position %d with target %d", p, place, w, b.Positions[w], b.Targets[row])
			}
			if len(b.Temperatures) > 0 && b.Temperatures[row] != temperature(s.Temperature) {
				t.Fatalf("temperature %v for %v", b.Temperatures[row], s.Temperature)
			}
			row++
		}
		place++
	}
	if row != len(b.Want) || place != b.Sequences() || int(b.Starts[place]) != len(b.Tokens) {
		t.Fatalf("%d of %d rows, %d of %d sequences accounted for", row, len(b.Want), place, b.Sequences())
	}
}
