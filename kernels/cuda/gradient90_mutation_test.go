package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// What describes a weight that is read across, in gradient90.
const turned90 = `or\.b64(\s+%rd\d+, %rd\d+, )-9223370937341050880;`

var gradient90Mutations = []mutation{
	{"no fence before the matrix unit reads", "gradient90_v1", fenceAsync, 1, "", playGradient90, noFence90},
	{"no barrier before products", "gradient90_v1", barrier, 2, "", playGradient90, race},
	{"no barrier before tiles are overwritten", "gradient90_v1", barrier, 3, "", playGradient90, race},
	{"no wait for an empty stage", "gradient90_8_3", done, 0, noWait, playGradient90, onItsWay},
	{"no wait for a chunk's first step", "gradient90_8_3", done, 1, noWait, playGradient90, onItsWay},
	{"no wait for a chunk's second step", "gradient90_8_3", done, 2, noWait, playGradient90, onItsWay},
	{"no wait for the first half of the columns", "gradient90_8_3", waitAll, 0, "", playGradient90, otherAnswer},
	{"no wait for the second half", "gradient90_8_3", waitAll, 1, "", playGradient90, onItsWay},
	{"no fence of registers for the second half", "gradient90_8_3", `wgmma\.fence\.sync\.aligned;`, 1, "", playGradient90, "wgmma.fence is missing"},
	{"the second half goes on from the first", "gradient90_8_3", ` 0, 1, 1, 1, 0;`, 1, " 1, 1, 1, 1, 0;", playGradient90, otherAnswer},
	{"a chunk's second step begins from zero", "gradient90_8_3", ` 1, 1, 1, 1, 0;`, 5, " 0, 1, 1, 1, 0;", playGradient90, otherAnswer},
	{"a weight that is not turned", "gradient90_8_3", ` 1, 1, 1, 1, 0;`, 0, " 1, 1, 1, 0, 0;", playGradient90, race},
	{"columns and rows of tiles exchanged", "gradient90_8_3", turned90, 1, "or.b64${1}-9223371899399045120;", playGradient90, otherAnswer},
	{"swizzled by 128 bytes", "gradient90_8_3", turned90, 0, "or.b64${1}4611687117941112832;", playGradient90, otherAnswer},
	{"the producer's phase stands still", "gradient90_8_3", flip, 0, noFlip, playGradient90, onItsWay},
	{"a chunk's second step is not given back", "gradient90_8_3", arriveAt, 1, "", playGradient90, stuck},
	{"a token too many", "gradient90_8_3", `setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)`, 4, "setp.gt.s32${1}", playGradient90, bounds},
	{"the weight's bytes alone are expected", "gradient90_8_3", `mov\.u32(\s+%r\d+, )17920;`, 0, "mov.u32${1}16384;", playGradient90, onItsWay},
}

// Each bug planted in gradient90 is caught, by what the table says.
func TestGradient90Mutations(t *testing.T) { plantAll(t, 90, gradient90Mutations) }

// playGradient90 has four tiles, the second of columns with a warpgroup that has none, one block, an odd number of steps that
// take the stages round more than twice a tile. The first version's answer comes first.
func playGradient90(_ *testing.T, d *Device) ([]byte, error) {
	const rows, cols, terms = 11, 270, 600
	g, raw := source(), make([]byte, 0, 2*terms*cols)
	for range terms * cols {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, dout := d.Load(k.Format{Type: k.BF16}, terms, cols, raw), random(d, g, rows, terms)
	first, shipped := random(d, g, rows, cols), d.New(k.F32, rows, cols+2)
	into := shipped.Columns(1, cols)
	d.Copy(into, first)
	d.naive = true
	d.LinearGrad(first, dout, w)
	d.naive = false
	for i := 0; i < rows; i += 8 {
		n := min(8, rows-i)
		d.gradient90By(gradPlan{8, 1, alone}, into.Slice(i, n), dout.Slice(i, n), w)
	}
	return answer(d, first, shipped)
}

// Bugs of how blocks of a cluster share tiles.
var gradClusterMutations = []mutation{
	{"no barrier of the cluster before it is used", "gradient90_64_1", gateOf, 0, "bar.sync 0;", playGradClusters, "there is no mbarrier"},
	{"no barrier of the cluster before a block ends", "gradient90_64_1", gateOf, 1, "", playGradClusters, "which has ended"},
	{"the weight for the first block alone", "gradient90_64_1", toMask, 0, "${1}, 1;", playGradClusters, race},
	{"tokens for all blocks", "gradient90_64_1", toMask, 1, "${1}, 15;", playGradClusters, onItsWay},
	{"stages are given back to the first block alone", "gradient90_64_1", mapOther, 0, "mapa.shared::cluster.u32 ${1}, ${2}, 0;", playGradClusters, race},
	{"a stage is empty as soon as one block says so", "gradient90_64_1", arrivalsOf, 0, "add.s32${1}-16;", playGradClusters, onItsWay},
}

const toMask = `(3d\S*multicast\S* \[%r\d+\], \[[^\]]*\], \[%r\d+\]), %rs\d+;`

func TestGradient90ClusterMutations(t *testing.T) { plantAll(t, 90, gradClusterMutations) }

// playGradClusters has three by two tiles, of which a cluster of four takes four and then what is left.
func playGradClusters(_ *testing.T, d *Device) ([]byte, error) {
	d.pieces = 1
	return shared90(d, gradPlan{64, 1, sharing{2, 2}}, 70, 530, 300)
}

// shared90 is a gradient by a plan, or by the first version where it has no tokens.
func shared90(d *Device, p gradPlan, rows, cols, terms int) ([]byte, error) {
	g, raw := source(), make([]byte, 0, 2*terms*cols)
	for range terms * cols {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, dout, dx := d.Load(k.Format{Type: k.BF16}, terms, cols, raw), random(d, g, rows, terms), random(d, g, rows, cols)
	if d.naive = p.tokens == 0; d.naive {
		d.LinearGrad(dx, dout, w)
	} else {
		d.gradient90By(p, dx, dout, w)
	}
	return answer(d, dx)
}

// Clusters of every shape give the bits of the first version, in every order of warps.
func TestGradient90Plans(t *testing.T) {
	for _, order := range ptxsim.Orders {
		d := simulatedBy(t, order)
		d.pieces = 1
		want, err := shared90(d, gradPlan{}, 70, 530, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range gradShares {
			if got, err := shared90(d, gradPlan{64, 2, of}, 70, 530, 100); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, %+v: other bits than the first version's (%v)", order, of, err)
			}
		}
	}
}
