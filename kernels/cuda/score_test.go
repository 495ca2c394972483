package cuda

import (
	"slices"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A vocabulary of more ids than are held at a time has the bits of its parts by the first versions, on both capabilities.
func TestScoreInPieces(t *testing.T) {
	for _, capability := range []int{80, 90} {
		first, shipped := simulatedAs(t, ptxsim.Options{Capability: capability}), simulatedAs(t, ptxsim.Options{Capability: capability})
		first.naive = true
		want, err := score(first, 2, scoreIDs+1100, 33)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := score(shipped, 2, scoreIDs+1100, 33); err != nil || !slices.Equal(got, want) {
			t.Errorf("sm_%d: the shipped version and the first differ (%v)", capability, err)
		}
	}
}
