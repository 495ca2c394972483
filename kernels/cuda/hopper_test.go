package cuda

import (
	"errors"
	"strings"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// Parts of sm_90a's kernels.
const (
	done        = `setp\.eq\.s32(\s+%p\d+, %r\d+, )0;` // after one of gated, the end of a wait for an mbarrier: the producer's, the consumers
	noWait      = "setp.eq.s32${1}2;"
	flip        = `xor\.b32(\s+)(%r\d+), (%r\d+), %r\d+;` // of the parity, as the stages begin again
	noFlip      = "mov.b32${1}${2}, ${3};"
	waitAll     = `wgmma\.wait_group\.sync\.aligned 0;`
	ofWeight90  = `or\.b64(\s+%rd\d+, %rd\d+, )-9223371761976803328;` // what describes a weight in a stage
	arrive      = `mbarrier\.arrive\.release\.cta\.shared::cta\.b64 _, \[%r\d+\];`
	arriveAt    = `mbarrier\.arrive\.release\.cluster\.shared::cluster\.b64 _, \[%r\d+\];`
	barrierOf   = `bar\.sync %r\d+, %r\d+;` // of a warpgroup
	fenceBlocks = `fence\.acq_rel\.gpu;`
	bytes83     = `mov\.u32(\s+%r\d+, )19456;` // of a stage of linear90_8_3
)

const (
	onItsWay = "by itself, and that has not been waited for"
	stuck    = "no warp can go on"
)

var hopperMutations = []mutation{
	{"chunks of a row are not exchanged", "pack_tokens", `xor\.b32(\s+%r\d+, %r\d+, )%r\d+;`, 0, "xor.b32${1}0;", playRagged8, otherAnswer},
	{"a row after the last is packed", "pack_tokens", `setp\.lt\.s32(\s+%p7)`, 0, "setp.le.s32${1}", playRagged8, bounds},
	{"no fence before the matrix unit reads", "linear90_v1", `fence\.proxy\.async\.shared::cta;`, 1, "", playRagged8, "fence.proxy.async is missing"},
	{"no barrier before products", "linear90_v1", barrier, 2, "", playRagged8, race},
	{"no barrier before tiles are overwritten", "linear90_v1", barrier, 3, "", playRagged8, race},
	{"no fence of registers", "linear90_8_3", `wgmma\.fence\.sync\.aligned;`, 0, "", playRagged8, "wgmma.fence is missing"},
	{"no wait for products", "linear90_8_3", waitAll, 0, "", playRagged8, onItsWay},
	{"products in no group", "linear90_8_3", `wgmma\.commit_group\.sync\.aligned;`, 0, "", playRagged8, onItsWay},
	{"a stage is given back too early", "linear90_128_3", `wgmma\.wait_group\.sync\.aligned 1;`, 0, "wgmma.wait_group.sync.aligned 2;", playRagged128, onItsWay},
	{"no wait for an empty stage", "linear90_8_3", `(acquire\.cluster[^}]*\}\s*// end inline asm\s*)setp\.eq\.s32(\s+%p\d+, %r\d+, )0;`, 0, "${1}setp.eq.s32${2}2;", playRagged8, onItsWay},
	{"no wait for a full stage", "linear90_8_3", done, 2, noWait, playRagged8, onItsWay},
	{"the producer's phase stands still", "linear90_8_3", flip, 0, noFlip, playRagged8, onItsWay},
	{"the consumers' phase stands still", "linear90_8_3", flip, 1, noFlip, playRagged8, onItsWay},
	{"the phase before the first is waited for", "linear90_8_3", `xor\.b32(\s+%r\d+, %r\d+, )1;`, 0, "xor.b32${1}0;", playRagged8, stuck},
	{"the weight's bytes alone are expected", "linear90_8_3", bytes83, 0, "mov.u32${1}16384;", playRagged8, onItsWay},
	{"more bytes are expected than come", "linear90_8_3", bytes83, 0, "mov.u32${1}19472;", playRagged8, stuck},
	{"an mbarrier for one warp less", "linear90_8_3", `add\.s32(\s+%r\d+, %r\d+, )-8;`, 0, "add.s32${1}-9;", playRagged8, stuck},
	{"stages are not given back", "linear90_8_3", arriveAt, 0, "", playRagged8, stuck},
	{"no barrier after mbarriers are made", "linear90_8_3", gateOf, 0, "", playRagged8, race},
	{"swizzled by 128 bytes", "linear90_8_3", ofWeight90, 0, "or.b64${1}4611686293305360384;", playRagged8, otherAnswer},
	{"not swizzled", "linear90_8_3", ofWeight90, 0, "or.b64${1}274877972480;", playRagged8, otherAnswer},
	{"the same half of the tokens twice", "linear90_8_3", `add\.s64(\s+%rd\d+, %rd\d+, )16416;`, 0, "add.s64${1}16384;", playRagged8, otherAnswer},
	{"a step further on in K", "linear90_8_3", `shl\.b32(\s+%r\d+, %r\d+, )1;`, 0, "shl.b32${1}2;", playRagged8, otherAnswer},
	{"an output too many", "linear90_8_3", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 8, "setp.gt.s32${1}", playRagged8, bounds},
	{"the producer's second run is beyond the next", "linear90_8_3", `(div\.u32[^;]*;\s*)add\.s32(\s+%r\d+), %r\d+, -1;`, 0, "${1}mov.u32${2}, 1;", playStays, stuck},
	{"no barrier before a part is counted", "linear90_8_3", barrierOf, 0, "", playParts, race},
	{"no fence before a part is counted", "linear90_8_3", fenceBlocks, 0, "", playParts, race},
	{"no fence after a part is counted", "linear90_8_3", fenceBlocks, 1, "", playParts, race},
	{"no barrier after a part is counted", "linear90_8_3", barrierOf, 1, "", playParts, unwritten},
	{"a barrier for both warpgroups", "linear90_8_3", `mov\.u32(\s+%r\d+, )128;`, 0, "mov.u32${1}256;", playParts, stuck},
	{"the count is not taken back", "linear90_8_3", `neg\.s32(\s+%r\d+, )%r\d+;`, 0, "mov.u32${1}0;", playParts, otherAnswer},
	{"a segment's sums are not left", "linear90_8_3", `st\.global\.v4\.f32[^;]*;`, 0, "", playParts, otherAnswer},
	{"the first part's sums are not left", "linear90_8_3", `st\.global\.v4\.f32[^;]*;`, 1, "", playParts, otherAnswer},
	{"a tile further on in the weight", "linear90_8_3", `(mad\.lo\.s32[^;]*;\s*)mul\.lo\.s32(\s+%r\d+), %r\d+, %r\d+;`, 0, "${1}mov.u32${2}, 16;", playParts, otherAnswer},
}

// Each bug planted in sm_90a's kernels is caught, by what the table says.
func TestHopperMutations(t *testing.T) { plantAll(t, 90, hopperMutations) }

func playRagged8(t *testing.T, d *Device) ([]byte, error) {
	return ragged(d, 70, 5, 1100, clusters90{plan90{8, 3, 1, 0}, alone})
}
func playRagged128(t *testing.T, d *Device) ([]byte, error) {
	return ragged(d, 70, 70, 500, clusters90{plan90{128, 1, 1, 0}, alone})
}

// playStays has two tiles, which one block takes one after the other.
func playStays(t *testing.T, d *Device) ([]byte, error) {
	return ragged(d, 70, 13, 1100, clusters90{plan90{8, 3, 1, 0}, alone})
}

// playParts has two tiles of three segments, of which blocks take two each: the second one the end of a tile and the
// beginning of the next.
func playParts(t *testing.T, d *Device) ([]byte, error) {
	return ragged(d, 70, 13, 1100, clusters90{plan90{8, 2, 3, 2 * 3 * 128 * 8 * 4}, alone})
}

// ragged multiplies twice with n outputs; of 70 the second warpgroup has six. K takes the stages round more than
// twice. The shipped version's answers, by a plan, follow the first's.
func ragged(d *Device, n, rows, in int, p clusters90) (all []byte, err error) {
	g, raw := source(), make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, x, bias, out := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), random(d, g, 1, n), d.New(k.F32, rows, n)
	for i := range 3 {
		d.Fill(out, 0)
		if d.naive = i == 0; d.naive {
			d.Linear(out, x, w, bias)
		} else {
			d.linear90By(p, out, x, w, bias, k.Ending{})
		}
		one, err := answer(d, out)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// The kernels are chosen by the capability, and the name says which: 9.0 alone has sm_90a.
func TestCapability(t *testing.T) {
	for capability, want := range map[int]string{80: ", kernels of sm_80)", 89: ", kernels of sm_80)", 90: "sm_90)", 100: ", kernels of sm_80)"} {
		d := simulatedAs(t, ptxsim.Options{Capability: capability})
		if !strings.HasSuffix(d.Name(), want) || (d.kernels["linear90_8_1"] != nil) != (capability == 90) {
			t.Errorf("%d: %s, of %d kernels", capability, d.Name(), len(d.kernels))
		}
	}
}

// A hopper is an empty device of capability 9.0. It refuses code that holds refused.
type hopper struct {
	*empty
	encoded int
	refused string
}

func (h *hopper) Attribute(a driver.Attribute) (int, error) {
	switch a {
	case driver.CapabilityMajor:
		return 9, nil
	case driver.CapabilityMinor:
		return 0, nil
	}
	return h.empty.Attribute(a)
}

func (h *hopper) Encode(t driver.Tile) (driver.TensorMap, error) {
	h.encoded++
	return driver.TensorMap{uint64(h.encoded)}, t.Check()
}

func (h *hopper) Load(image []byte) (driver.Module, error) {
	if h.refused != "" && strings.Contains(string(image), h.refused) {
		return 0, errors.New("refused")
	}
	return 1, nil
}

// Once a product's tensor maps are made, the step path allocates nothing and asks for no more of them.
func TestTensorMapsAreKept(t *testing.T) {
	h := &hopper{empty: newEmpty(1 << 28)}
	d, err := On(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := d.Load(k.Format{Type: k.BF16}, 70, 500, make([]byte, 2*70*500))
	x, out := d.New(k.F32, 40, 500), d.New(k.F32, 40, 70)
	play := func() {
		for _, n := range []int{1, 9, 40} {
			d.Linear(out.Slice(0, n), x.Slice(0, n), w, k.Tensor{})
		}
	}
	play()
	made := h.encoded // one of the weight; the scratch memory does not grow further
	if n := testing.AllocsPerRun(10, play); n != 0 || h.encoded != made {
		t.Errorf("%v allocations, %d tensor maps and then %d", n, made, h.encoded)
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

// A driver that rejects the kernels is named with them.
func TestRefusedKernels(t *testing.T) {
	_, err := On(&hopper{empty: newEmpty(1 << 20), refused: "sm_90a"}, Options{})
	if err == nil || !strings.Contains(err.Error(), "load attention90: refused") {
		t.Errorf("the error reads %v", err)
	}
}
