package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
)

const ofConsumers = `bar\.sync %r\d+, %r\d+;`

var headMutations = []mutation{
	{"no barrier after the sixteens' largest scores", "head90_8_3", ofConsumers, 0, "", playHead, race},
	{"no barrier after the largest score", "head90_8_3", ofConsumers, 1, "", playHead, unwritten},
	{"no barrier after the sixteens' sums", "head90_8_3", ofConsumers, 2, "", playHead, unwritten},
	{"a barrier of one warpgroup", "head90_8_3", `mov\.u32(\s+%r\d+, )256;`, 0, "mov.u32${1}128;", playHead, unwritten},
	{"no barrier before tokens are known", "head90_8_3", barrier, 0, "", playHead, race},
	{"a tile's last stage is not given back", "head90_8_3", arrive, 1, "", playHead, stuck},
	{"the consumers' phase stands still", "head90_8_3", flip, 1, noFlip, playHead, stuck},
	{"the mask's bit is of another id", "head90_8_3", `and\.b32(\s+%r\d+, %r\d+, )256;`, 0, "and.b32${1}128;", playHead, otherAnswer},
	{"lanes are put together in another order", "head90_8_3", `mov\.u32(\s+%r\d+, )16;`, 1, "mov.u32${1}8;", playHead, otherAnswer},
	{"no wait for a full stage", "head90_grad_8_3", done, 1, noWait, playHead, onItsWay},
	{"the scored id is another", "head90_grad_8_3", `setp\.eq\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 0, "setp.lt.s32${1}", playHead, otherAnswer},
	{"an id after the last", "head90_grad_8_3", `setp\.ge\.s32(\s+%p26)`, 0, "setp.gt.s32${1}", playHead, race},
}

// Each bug planted in sm_90a's heads is caught, by what the table says.
func TestHeadMutations(t *testing.T) { plantAll(t, 90, headMutations) }

func playHead(t *testing.T, d *Device) ([]byte, error) { return score(d, 3, 1200, 100) }

// Log-probabilities without logits on capability 9.0 have the bits of the first versions, in every order of warps, for few
// tokens and many, one bf16 number or three an activation, and K of several segments.
func TestHeadVersions(t *testing.T) {
	for _, c := range []struct {
		pieces, rows, vocab, in int
		order                   ptxsim.Order
	}{
		{3, 3, 1200, 40, ptxsim.OneAhead}, {3, 3, 300, 600, ptxsim.RoundRobin}, {1, 8, 129, 1100, ptxsim.LastFirst},
		{1, 9, 200, 40, ptxsim.RoundRobin}, {3, 140, 140, 70, ptxsim.OneAhead},
	} {
		first, shipped := simulatedAs(t, ptxsim.Options{Capability: 90}), simulatedAs(t, ptxsim.Options{Capability: 90, Order: c.order})
		first.naive, first.pieces, shipped.pieces = true, c.pieces, c.pieces
		want, err := score(first, c.rows, c.vocab, c.in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := score(shipped, c.rows, c.vocab, c.in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: the shipped version and the first differ (%v)", c, err)
		}
	}
}

// Scoring on capability 9.0 allocates nothing once its tensor maps are made.
func TestHeadAllocatesNothing(t *testing.T) {
	h := &hopper{empty: newEmpty(1 << 28)}
	d, err := On(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := d.Load(k.Format{Type: k.BF16}, 5000, 100, make([]byte, 2*5000*100))
	x, lp, ids := d.New(k.F32, 40, 100), d.New(k.F32, 40, 1), d.New(k.I32, 40, 1)
	play := func() {
		d.Score(lp, lp, lp, x, w, ids, k.Dist{})
		d.ScoreGrad(x, x, w, lp, ids, lp, k.Dist{})
	}
	play()
	made := h.encoded
	if n := testing.AllocsPerRun(10, play); n != 0 || h.encoded != made {
		t.Errorf("%v allocations, %d tensor maps and then %d", n, made, h.encoded)
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// Score on capability 9.0, as the suite of all devices has it.
func TestScoreOnHopper(t *testing.T) {
	kerneltest.RunScore(t, func(t *testing.T) k.Backend { return simulatedAs(t, ptxsim.Options{Capability: 90}) })
}

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
