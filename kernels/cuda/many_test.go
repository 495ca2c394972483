package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// shapes of parameters: less than a piece, pieces and a rest, whole pieces, none.
var manyShapes = [][2]int{{1, 5}, {33, 70}, {0, 9}, {270, 31}, {1, 1}, {8, 1024}, {3, 0}}

// many takes two steps of tensors of all shapes, and their sums of squares, at once or one by one.
func many(d *Device, atOnce bool) ([]byte, error) {
	g, sums := source(), d.New(k.F32, 1, len(manyShapes))
	var all []k.Param
	var xs, outs []k.Tensor
	for i, s := range manyShapes {
		f := func() k.Tensor { return random(d, g, s[0], s[1]) }
		p := k.Param{W: f(), M: f(), V: d.New(k.F32, s[0], s[1]), G: f(), Decay: float32(i) / 20}
		all, xs, outs = append(all, p), append(xs, p.W), append(outs, p.W, p.M, p.V)
	}
	for step := 1; step <= 2; step++ {
		o := k.Adam{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Scale: 0.5, Step: step}
		if atOnce {
			d.AdamWAll(all, o)
			continue
		}
		for _, p := range all {
			o.Decay = p.Decay
			d.AdamW(p.W, p.M, p.V, p.G, o)
		}
	}
	if atOnce {
		d.SumSquaresAll(sums, xs)
	} else {
		for i, x := range xs {
			d.SumSquares(sums.Columns(i, 1), x)
		}
	}
	return answer(d, append(outs, sums)...)
}

// Many tensors at once have the bits of one after another, in every order of warps.
func TestManyAtOnce(t *testing.T) {
	want, err := many(simulated(t), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range ptxsim.Orders {
		if got, err := many(simulatedBy(t, order), true); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: at once and one by one differ (%v)", order, err)
		}
	}
	d := simulated(t)
	d.AdamWAll(nil, k.Adam{Step: 1})
	d.SumSquaresAll(d.New(k.F32, 1, 0), nil)
	if err := d.Sync(); err != nil {
		t.Errorf("none: %v", err)
	}
}

var manyMutations = []mutation{
	{"the entry before", "adamw_many", `setp\.le\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 0, "setp.lt.s32${1}", playAtOnce, otherAnswer},
	{"an element after the last", "adamw_many", `setp\.ge\.u64(\s+%p\d+, %rd\d+, %rd\d+;)`, 0, "setp.gt.u64${1}", playAtOnce, bounds},
	{"pieces a half as long", "adamw_many", `mul\.wide\.u32(\s+%rd\d+, %r\d+, )1024;`, 0, "mul.wide.u32${1}512;", playAtOnce, race},
	{"the entry before", "squares_many", `setp\.le\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 0, "setp.lt.s32${1}", playAtOnce, otherAnswer},
	{"no barrier before the sum of warps", "squares_many", barrier, 0, "", playAtOnce, unwritten},
	{"no barrier before the pieces are added", "squares_many_join", barrier, 0, "", playAtOnce, race},
	{"the first of the next entry's pieces too", "squares_many_join", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 0, "setp.gt.s32${1}", playAtOnce, otherAnswer},
}

// Each bug planted in many.cu is caught.
func TestManyMutations(t *testing.T) { plantAll(t, 80, manyMutations) }

func playAtOnce(_ *testing.T, d *Device) ([]byte, error) { return many(d, true) }
