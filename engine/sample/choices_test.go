package sample

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// allowed lists the ids of a mask.
func allowed(c *Choices, node int32, vocab int) (ids []int32) {
	mask := make([]uint32, (vocab+31)/32)
	for i := range mask {
		mask[i] = 0xdeadbeef // Allow must clear it
	}
	c.Allow(node, mask)
	for j := range int32(len(mask) * 32) {
		if mask[j/32]>>(j%32)&1 == 1 {
			ids = append(ids, j)
		}
	}
	return ids
}

// Walking every allowed id to every end gives exactly the choices.
func TestChoicesAreAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const vocab, stop = 70, 69
		token := rapid.SampledFrom([]int32{0, 1, 31, 32, 33, 64, 68})
		set := rapid.SliceOfN(rapid.SliceOfN(token, 1, 4), 1, 8).Draw(t, "choices")
		c, err := NewChoices(set, []int32{stop}, vocab)
		if err != nil {
			t.Fatal(err)
		}
		var got [][]int32
		var walk func(node int32, path []int32)
		walk = func(node int32, path []int32) {
			if len(path) > c.Longest() {
				t.Fatalf("%v is longer than %d", path, c.Longest())
			}
			ids := allowed(c, node, vocab)
			if len(ids) == 0 {
				t.Fatalf("after %v nothing is allowed", path)
			}
			for _, id := range ids {
				next, done, ok := c.Next(node, id)
				if !ok {
					t.Fatalf("after %v, %d is allowed and does not lead on", path, id)
				}
				on := append(slices.Clone(path), id)
				if !done {
					walk(next, on)
					continue
				}
				if masks, err := c.Masks(nil, on, vocab); err != nil || len(masks) != 3*len(on) {
					t.Fatalf("masks of %v: %d words, %v", on, len(masks), err)
				}
				if id == stop {
					on = on[:len(on)-1]
				}
				got = append(got, on)
			}
		}
		walk(0, nil)
		slices.SortFunc(got, slices.Compare)
		slices.SortFunc(set, slices.Compare)
		set = slices.CompactFunc(set, slices.Equal)
		if !slices.EqualFunc(got, set, slices.Equal) {
			t.Fatalf("got %v, want %v", got, set)
		}
	})
}

func TestChoicesRefused(t *testing.T) {
	for _, c := range []struct {
		choices [][]int32
		stop    []int32
		want    string
	}{
		{nil, nil, "none to choose"},
		{[][]int32{}, nil, "none to choose"},
		{[][]int32{{1}, {}}, nil, "choice 1 is empty"},
		{[][]int32{{1, 10}}, nil, "token 10, the vocabulary has 10"},
		{[][]int32{{-1}}, nil, "token -1"},
		{[][]int32{{1}}, []int32{10}, "stop id 10"},
		{[][]int32{{1, 2}, {1}}, nil, "begins with choice 1"},
		{[][]int32{{1, 2}, {1}}, []int32{2}, "the stop id 2 also continues"},
	} {
		_, err := NewChoices(c.choices, c.stop, 10)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v with stop %v: %v, want %q", c.choices, c.stop, err, c.want)
		}
	}
	c, err := NewChoices([][]int32{{1, 2}, {1}}, []int32{9}, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]int32{{2}, {1, 1}, {9}, {1, 9, 9}, {1, 2, 9}} {
		if _, err := c.Masks(nil, bad, 10); err == nil {
			t.Errorf("%v passes", bad)
		}
	}
}
