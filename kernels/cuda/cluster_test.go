package cuda

import (
	"slices"
	"testing"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

const (
	gateOf     = `barrier\.cluster\.arrive\.release;\s*barrier\.cluster\.wait\.acquire;`
	toColumn   = `(4d\S*multicast\S* \[%r\d+\], \[[^\]]*\], \[%r\d+\]), %rs\d+;`
	toRow      = `(3d\S*multicast\S* \[%r\d+\], \[[^\]]*\], \[%r\d+\]), %rs\d+;`
	arrivalsOf = `add\.s32(\s+%r\d+, %r\d+, )-8;` // at the mbarrier of an empty stage
	mapOther   = `mapa\.shared::cluster\.u32 (%r\d+), (%r\d+), %r\d+;`
)

// Planted in how blocks of a cluster share tiles.
var clusterMutations = []mutation{
	{"no barrier of the cluster before it is used", "linear90_16_3", gateOf, 0, "bar.sync 0;", playShared90, "there is no mbarrier"},
	{"no barrier of the cluster before a block ends", "linear90_16_3", gateOf, 1, "", playShared90, "which has ended"},
	{"the weight for the first block alone", "linear90_16_3", toColumn, 0, "${1}, 1;", playShared90, race},
	{"tokens for all blocks", "linear90_16_3", toRow, 0, "${1}, 15;", playShared90, onItsWay},
	{"stages are given back to the first block alone", "linear90_16_3", mapOther, 0, "mapa.shared::cluster.u32 ${1}, ${2}, 0;", playShared90, race},
	{"a stage is empty as soon as one block says so", "linear90_16_3", arrivalsOf, 0, "add.s32${1}-24;", playShared90, onItsWay},
	{"an arrival of all blocks too many", "linear90_16_3", arrivalsOf, 0, "add.s32${1}-7;", playShared90, stuck},
	{"a wait for the own block's", "linear90_16_3", `acquire\.cluster\.shared`, 0, "acquire.cta.shared", playShared90, "with .cluster alone"},
	{"its own bytes alone are expected", "linear90_16_3", `mov\.u32(\s+%r\d+, )22528;`, 0, "mov.u32${1}11264;", playShared90, unwritten},
	{"each block brings the first part of tokens", "linear90_16_3", `(mad\.lo\.s32\s+%r\d+, %r\d+, %r\d+), %r\d+;(\s*mul\.lo\.s32\s+%r\d+, %r\d+, %r\d+;\s*shl)`, 0, "${1}, 0;${2}", playShared90, otherAnswer},
	{"tiles of all blocks meet in one place", "linear90_16_3", `mad\.lo\.s32(\s+%r\d+), %r\d+, %r\d+, %r\d+;(\s*shl\.b32\s+%r\d+, %r\d+, 4;\s*mul)`, 0, "mov.u32${1}, 0;${2}", playShared90, race},
}

// Each bug planted in the sharing of tiles is caught, by what the table says.
func TestClusterMutations(t *testing.T) { plantAll(t, 90, clusterMutations) }

// playShared90 has two by two tiles of three segments, which clusters take in runs of two.
func playShared90(t *testing.T, d *Device) ([]byte, error) {
	return ragged(d, 150, 20, 1100, clusters90{plan90{16, 2, 2, 4 * 3 * 128 * 16 * 4}, sharing{2, 2}})
}

// A product that ends with what follows it has the same bits from clusters, gates and ups in tiles that two blocks bring.
func TestClusterEndings(t *testing.T) {
	const rows, n, in = 37, 320, 130
	for i, order := range ptxsim.Orders {
		d, g := simulatedBy(t, order), source()
		raw := make([]byte, 0, 2*n*in)
		for range n * in {
			raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
		}
		w, x, bias, out := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), random(d, g, 1, n), d.New(k.F32, rows, n/2)
		e := k.Ending{Gated: true, Plus: random(d, g, rows, n/2), Expands: []k.Expand{{Row: 3, Col: 100, Low: random(d, g, 20, 3), B: random(d, g, 150, 3)}}}
		d.linear90By(clusters90{plan90{16, 1, 5, 0}, alone}, out, x, w, bias, e)
		want := bits(t, d, out)
		d.Fill(out, 7)
		of := shares[1:][i]
		d.linear90By(clusters90{plan90{32, 1, 2, 0}, of}, out, x, w, bias, e)
		if !slices.Equal(bits(t, d, out), want) {
			t.Errorf("%v, %+v: other bits than a block's alone", order, of)
		}
	}
}

// Clusters are chosen by the shape alone, launched as such, recorded too, and give the bits of blocks alone; a device without room for
// any has none.
func TestClustersAreLaunched(t *testing.T) {
	const rows, n, in = 40, 300, 64
	var launched []int // blocks of the clusters of products
	d, err := On(ptxsim.New(ptxsim.Options{Multiprocessors: 5, Count: func(c ptxsim.Counts) {
		if l := c.Launch.Cluster; c.Products.Group > 0 {
			launched = append(launched, l.X*l.Y)
		}
	}}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := [mostShare + 1]int{1: 5, 2: 2, 4: 1}; d.clusters != want {
		t.Fatalf("there is room for %v clusters, want %v", d.clusters, want)
	}
	g := source()
	raw := make([]byte, 0, 2*n*in)
	for range n * in {
		raw = append(raw, floatBytes([]float32{float32(g.NormFloat64())})[2:]...)
	}
	w, x, out := d.Load(k.Format{Type: k.BF16}, n, in, raw), random(d, g, rows, in), d.New(k.F32, rows, n)
	play := func(room ...int) []byte {
		d.clusters = [mostShare + 1]int{1: room[0], 2: room[1], 4: room[2]}
		d.Fill(out, 7)
		d.Linear(out, x, w, k.Tensor{})
		return bits(t, d, out)
	}
	want := play(5, 0, 0)
	for _, room := range [][]int{{0, 2, 0}, {0, 0, 1}} {
		if !slices.Equal(play(room...), want) {
			t.Errorf("clusters of which there are %v: other bits than blocks alone", room)
		}
	}
	d.Fill(out, 7)
	graph, err := d.Capture(func() { d.Linear(out, x, w, k.Tensor{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer graph.Free()
	graph.Launch()
	if !slices.Equal(bits(t, d, out), want) {
		t.Error("a recording of clusters has other bits")
	}
	if want := []int{0, 2, 4, 4}; !slices.Equal(launched, want) {
		t.Errorf("products had clusters of %v blocks, want %v", launched, want)
	}
}

// At a device's real size many tokens' tiles are shared, and few tokens' are not; the weight's tile alone decides for a few.
func TestSharesChosen(t *testing.T) {
	for _, pieces := range []int{1, 3} {
		d := &Device{processors: 132, clusters: [mostShare + 1]int{1: 132, 2: 66, 4: 32}, pieces: pieces}
		for _, s := range shapes7B {
			if p := d.plan90(8, s[0], ceil(s[1], tileCols), tokens90[:]); p.of != alone {
				t.Errorf("%v, 8 tokens, %d pieces: %+v", s, pieces, p)
			}
			if p := d.plan90(2048, s[0], ceil(s[1], tileCols), tokens90[:]); p.of == alone {
				t.Errorf("%v, 2048 tokens, %d pieces: %+v", s, pieces, p)
			}
		}
		d.clusters = [mostShare + 1]int{1: 132}
		if p := d.plan90(2048, 4096, 128, tokens90[:]); p.of != alone {
			t.Errorf("without room for clusters: %+v", p)
		}
	}
}
