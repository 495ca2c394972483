package cuda

import "testing"

// Bugs of attentiongrad90. A kernel's text has what brings the other side first, then what brings its own rows, multiplies, and adds
// the second warpgroup's sums to the first one's.
var attentionGrad90Mutations = func() (all []mutation) {
	q, kv, both := "attention_grad90_q_64_3", "attention_grad90_kv_64_3", "attention_grad90_kv_64_1"
	for _, kernel := range []string{q, kv} {
		all = append(all,
			mutation{"no fence after the other side's rows", kernel, fenceAsync, 0, "", playGrad90, noFence90},
			mutation{"no fence after its own rows", kernel, fenceAsync, 1, "", playGrad90, noFence90},
			mutation{"no barrier after its own rows", kernel, barrierOf, 0, "", playGrad90, race},
			mutation{"no wait for an empty stage", kernel, waitFor, 0, noWaitFor, playGrad90, stuck},
			mutation{"no wait for a full stage", kernel, waitFor, 1, noWaitFor, playGrad90, race},
			mutation{"stages are not given back", kernel, arrive, 1, "", playGrad90, stuck},
			mutation{"no wait for dp", kernel, waitAll, 0, "", playGrad90, otherAnswer},
			mutation{"no wait for scores", kernel, `wgmma\.wait_group\.sync\.aligned 1;`, 0, "", playGrad90, otherAnswer},
			mutation{"a block is taken as seen by all", kernel, allOf, 2, "mov.pred${1}, -1;", playGrad90, otherAnswer},
			mutation{"no barrier before the sums meet", kernel, barrierOf, 1, "", playGrad90, race},
			mutation{"no barrier as the sums meet", kernel, barrierOf, 2, "", playGrad90, race})
	}
	return append(all,
		mutation{"no wait for dq", q, waitAll, 1, "", playGrad90, onItsWay},
		mutation{"keys are not turned", q, `1, 1, 1, 1;`, 0, "1, 1, 1, 0;", playGrad90, otherAnswer},
		mutation{"a query does not see its own key", kv, `(?s)(wgmma\.wait_group\.sync\.aligned 1;.*?)setp\.gt\.s32`, 0, "${1}setp.ge.s32", playGrad90, otherAnswer},
		mutation{"no wait for dk", kv, waitAll, 2, "", playGrad90, onItsWay},
		mutation{"stages are not given back", both, arrive, 1, "", playGrad90Rounded, stuck},
		mutation{"no wait for a full stage", both, waitFor, 1, noWaitFor, playGrad90Rounded, race},
		mutation{"a row too many", "attention_grad90_join", `setp\.ge\.s32`, 0, "setp.gt.s32", playGrad90, bounds},
		mutation{"a column too many", "attention_grad90_join", `setp\.ge\.s32`, 1, "setp.gt.s32", playGrad90, race},
		mutation{"a head less", "attention_grad90_join", `add\.s32(\s+%r\d+, %r\d+, )-1;`, 1, "add.s32${1}-2;", playGrad90, otherAnswer},
		mutation{"the first head twice", "attention_grad90_join", `add\.s64(\s+%rd\d+), (%rd\d+), %rd\d+;(\s+add\.s32)`, 1, "mov.u64${1}, ${2};${3}", playGrad90, otherAnswer},
		mutation{"dv is of the last head", "attention_grad90_join", `add\.rn\.f32(\s+%f\d+), %f\d+, (%f\d+);`, 9, "mov.f32${1}, ${2};", playGrad90, otherAnswer},
		mutation{"what was there is forgotten", "attention_grad90_join", `ld\.global\.f32(\s+%f\d+), [^;]*;`, 10, "mov.f32${1}, 0f00000000;", playGrad90, otherAnswer})
}()

func TestAttentionGrad90Mutations(t *testing.T) { plantAll(t, 90, attentionGrad90Mutations) }

// playGrad90 takes the stages round more than once, by both warpgroups.
func playGrad90(_ *testing.T, d *Device) ([]byte, error) {
	s := grading{2, 1, 17, []int{145, 10}, []int{0, 20}}
	return s.play(d, s.inputs(0))
}

func playGrad90Rounded(_ *testing.T, d *Device) ([]byte, error) {
	d.pieces = 1
	s := grading{2, 1, 17, []int{145}, []int{0}}
	return s.play(d, s.inputs(0))
}
