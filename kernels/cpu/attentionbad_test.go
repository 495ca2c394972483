package cpu

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
)

// Sequences that do not lie within the tensors are failures that say which and where.
func TestAttentionRefusesBadSequences(t *testing.T) {
	d := New(2)
	defer d.Close()
	h := headsCase{2, 1, 8}
	q, k := f32(d, normals(rand.New(rand.NewPCG(1, 1)), 6*16), 16), f32(d, make([]float32, 12*8), 8)
	for _, c := range []struct {
		name            string
		starts, lengths []int32
		pages           []int32 // two a sequence, of four rows
		most            int
		want            string
	}{
		{"starts fall", []int32{0, 4, 2}, []int32{4, 4}, []int32{0, 1, 2, 0}, 4, "sequence 1 has query rows 4 … 1 of 6 and sees 4 keys"},
		{"starts are negative", []int32{-1, 4, 6}, []int32{5, 4}, []int32{0, 1, 2, 0}, 5, "sequence 0 has query rows -1 … 3"},
		{"more queries than rows", []int32{0, 4, 7}, []int32{4, 4}, []int32{0, 1, 2, 0}, 4, "sequence 1 has query rows 4 … 6 of 6"},
		{"fewer keys than queries", []int32{0, 4, 6}, []int32{3, 2}, []int32{0, 1, 2, 0}, 4, "sequence 0 has query rows 0 … 3 of 6 and sees 3 keys"},
		{"more than MaxQueries", []int32{0, 4, 6}, []int32{4, 2}, []int32{0, 1, 2, 0}, 3, "sequence 0 has 4 query rows, more than the MaxQueries of 3"},
		{"a page too high", []int32{0, 4, 6}, []int32{4, 5}, []int32{0, 1, 2, 3}, 4, "sequence 1 has key 4 in page 3, which the 12 rows of keys do not hold"},
		{"a negative page", []int32{0, 4, 6}, []int32{4, 2}, []int32{0, 1, -1, 0}, 4, "sequence 1 has key 0 in page -1"},
		{"keys to share, and nobody before", []int32{0, 4, 6}, []int32{5, 2}, nil, 4, "sequence 0 has query rows 0 … 3 of 6 and sees 5 keys"},
		{"more keys to share than there are", []int32{0, 3, 4, 6}, []int32{3, 2, 6}, nil, 4, "sequence 2 has query rows 4 … 5 of 6 and sees 6 keys"},
		{"more keys than pages", []int32{0, 4, 6}, []int32{9, 2}, []int32{0, 1, 2, 0}, 4, "sequence 0 sees 9 keys, more than its 2 pages of 4 rows hold"},
	} {
		a := h.attn()
		a.Starts, a.Lengths, a.Pages, a.PageSize, a.MaxQueries = i32(d, 1, c.starts...), i32(d, 1, c.lengths...), i32(d, 2, c.pages...), 4, c.most
		own := k
		if c.pages == nil {
			a.Pages, own = kernels.Tensor{}, k.Slice(0, 6)
		}
		d.Attention(f32(d, make([]float32, 6*16), 16), kernels.Tensor{}, q, own, own, a)
		if err := d.Sync(); err == nil || !strings.HasPrefix(err.Error(), "cpu: Attention: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// Rows of no sequence are left alone, and a sequence may have no query in a batch.
func TestAttentionLeavesOtherRowsAlone(t *testing.T) {
	d := New(2)
	defer d.Close()
	r := rand.New(rand.NewPCG(rand.Uint64(), 17))
	h := headsCase{2, 1, 8}
	s := h.sequence(r, 6)
	out, lse := f32(d, normals(r, 6*16), 16), f32(d, normals(r, 12), 2)
	before, beforeLSE := flat(out), flat(lse)
	a := h.attn()
	a.Starts, a.Lengths, a.MaxQueries = i32(d, 1, 1, 1, 4, 4), i32(d, 1, 0, 3, 0), 3
	d.Attention(out, lse, f32(d, s.q, 16), f32(d, s.k, 8), f32(d, s.v, 8), a)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	want, wantLSE := h.own(t, d, tokens{s.q[16:64], s.k[8:32], s.v[8:32]})
	copy(before[16:], want)
	copy(beforeLSE[2:], wantLSE)
	sameBits(t, "out", flat(out), before)
	sameBits(t, "lse", flat(lse), beforeLSE)
}
