package sample

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Best and Rank are the order of a stable sort by logit, the largest first.
func TestBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		n := 1 + rng.IntN(70)
		logits := make([]float32, n)
		mask := make([]uint32, (n+31)/32)
		var sorted []int32
		for i := range logits {
			logits[i] = float32(rng.IntN(9))
			if rng.IntN(8) == 0 {
				logits[i] = float32(math.Inf(-1))
			}
			sorted = append(sorted, int32(i))
			if rng.IntN(3) > 0 {
				mask[i/32] |= 1 << (i % 32)
			}
		}
		slices.SortStableFunc(sorted, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
		for rank, id := range sorted {
			if got := Rank(logits, id); int(got) != rank+1 {
				t.Fatalf("%v: id %d has rank %d, want %d", logits, id, got, rank+1)
			}
		}
		for _, m := range [][]uint32{nil, mask} {
			var want []int32
			for _, id := range sorted {
				if (m == nil || m[id/32]>>(id%32)&1 == 1) && !math.IsInf(float64(logits[id]), 0) {
					want = append(want, id)
				}
			}
			k := rng.IntN(12)
			want = want[:min(k, len(want))]
			if got := Best([]int32{-5}, logits, m, k); got[0] != -5 || !slices.Equal(got[1:], want) {
				t.Fatalf("%v, mask %b: the best %d are %v, want %v", logits, m, k, got[1:], want)
			}
		}
	}
}
