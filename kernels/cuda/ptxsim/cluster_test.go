package ptxsim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// shareTiles is a kernel of clusters of two blocks with 64 threads: four times, in turn, each brings half of a tile to both. A
// block's second warp writes what has come as words from its own half of %rd2 on, and tells both blocks that it has read it.
const shareTiles = `mov.u32 %r30, %cluster_ctarank;
mov.u32 %r31, %cluster_nctarank;
@%p1 mbarrier.init.shared::cta.b64 [bar], 1;
@%p1 mbarrier.init.shared::cta.b64 [empty], 2;
@%p1 fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.release;
barrier.cluster.wait.acquire;
mov.u32 %r20, 0;
shl.b32 %r32, %r30, 3;
mov.u32 %r33, tile;
shl.b32 %r34, %r30, 9;
add.s32 %r33, %r33, %r34;
mov.u16 %h2, 3;
shr.u32 %r21, %r2, 5;
setp.ne.u32 %p3, %r21, 0;
@%p3 bra read;
@!%p1 bra done;
bring:
and.b32 %r22, %r20, 1;
xor.b32 %r23, %r22, 1;
full:
mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [empty], %r23;
@!%p2 bra full;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 1024;
add.s32 %r35, %r32, %r20;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%r33], [%rd1, {0, %r35}], [bar], %h2;
add.s32 %r20, %r20, 1;
setp.lt.u32 %p4, %r20, 4;
@%p4 bra bring;
bra done;
read:
and.b32 %r22, %r20, 1;
again:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], %r22;
@!%p2 bra again;
mov.u32 %r24, %ctaid.x;
shl.b32 %r24, %r24, 10;
and.b32 %r25, %r2, 31;
shl.b32 %r25, %r25, 5;
add.s32 %r24, %r24, %r25;
cvt.u64.u32 %rd6, %r24;
add.s64 %rd6, %rd6, %rd2;
mov.u32 %r26, tile;
add.s32 %r26, %r26, %r25;
ld.shared.v4.b32 {%r10,%r11,%r12,%r13}, [%r26];
st.global.v4.b32 [%rd6], {%r10,%r11,%r12,%r13};
ld.shared.v4.b32 {%r10,%r11,%r12,%r13}, [%r26+16];
st.global.v4.b32 [%rd6+16], {%r10,%r11,%r12,%r13};
bar.warp.sync 0xffffffff;
setp.lt.u32 %p5, %r25, 64;
mov.u32 %r36, empty;
shr.u32 %r37, %r25, 5;
@%p5 mapa.shared::cluster.u32 %r38, %r36, %r37;
@%p5 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r38];
add.s32 %r20, %r20, 1;
setp.lt.u32 %p4, %r20, 4;
@%p4 bra read;
done:
barrier.cluster.arrive.release;
barrier.cluster.wait.acquire;`

const (
	atStart = "barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\nmov.u32 %r20"
	atEnd   = "done:\nbarrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;"
)

// clusterBugs are planted as tileBugs are.
var clusterBugs = map[string]struct{ old, new, want string }{
	"a shared tile":           {"", "", ""},
	"aligned":                 {"barrier.cluster.arrive.release;", "barrier.cluster.arrive.release.aligned;", ""},
	"no barrier at the start": {atStart, "bar.sync 0;\nmov.u32 %r20", "there is no mbarrier|a race"},
	"an arrival at the start that orders nothing": {atStart, strings.Replace(atStart, "release", "relaxed", 1), "a race"},
	"no barrier at the end":                       {atEnd, "done:", "which has ended|nobody has waited"},
	"a wait that nothing came before":             {atEnd, "done:\nbarrier.cluster.wait.acquire;", "has not come to it"},
	"two arrivals":                                {atEnd, strings.Replace(atEnd, "done:", "done:\nbarrier.cluster.arrive.release;", 1), "again"},
	"one's reader alone frees the place":          {"mbarrier.init.shared::cta.b64 [empty], 2;", "mbarrier.init.shared::cta.b64 [empty], 1;", "a race|that has not been waited for|arrives 1 times"},
	"the place is not waited for":                 {"@!%p2 bra full;\n", "", "a race|announces|arrives 1 times"},
	"readers tell their own block alone":          {"setp.lt.u32 %p5, %r25, 64;", "setp.lt.u32 %p5, %r25, 32;", "no warp can go on"},
	"readers tell the first block twice":          {"mapa.shared::cluster.u32 %r38, %r36, %r37;", "mapa.shared::cluster.u32 %r38, %r36, 0;", "no warp can go on|has ended|arrives|a race"},
	"not all lanes have read":                     {"bar.warp.sync 0xffffffff;\n", "", "a race"},
	"an arrival of the block alone":               {"arrive.release.cluster.shared::cluster", "arrive.release.cta.shared::cluster", "with .cta it lets"},
	"a wait of the block alone":                   {"parity.acquire.cluster.", "parity.acquire.cta.", "with .cluster alone"},
	"a tile for the own block alone":              {"mov.u16 %h2, 3;", "cvt.u16.u32 %h2, %r31;", "no warp can go on|a race|nothing has been written"},
	"a tile for a third block":                    {"mov.u16 %h2, 3;", "mov.u16 %h2, 7;", "blocks 0b111 of a cluster of 2"},
	"a tile for nobody":                           {"mov.u16 %h2, 3;", "mov.u16 %h2, 0;", "blocks 0b0 of a cluster of 2"},
	"both bring the same half's place":            {"shl.b32 %r34, %r30, 9;", "mov.u32 %r34, 0;", "a race|that has not been waited for|nothing has been written"},
	"the bytes of its own half alone":             {"[bar], 1024;", "[bar], 512;", "too few bytes were announced|a race|nothing has been written"},
	"a block that there is not":                   {"mapa.shared::cluster.u32 %r38, %r36, %r37;", "mapa.shared::cluster.u32 %r38, %r36, 2;", "block 2 of a cluster of 2"},
	"an address of a third block":                 {"mapa.shared::cluster.u32 %r38, %r36, %r37;", "add.s32 %r38, %r36, 0x3000000;", "there is no block 2"},
	"another's memory as one's own":               {"arrive.release.cluster.shared::cluster", "arrive.release.cluster.shared::cta", "of shared memory of"},
}

// launchCluster runs shareTiles, or what was made of it, by clusters of two blocks.
func (r *rig) launchCluster(blocks int, to uint64) error {
	at := r.tensor()
	m, err := r.Encode(driver.Tile{Type: driver.TileBF16, Address: at, Dims: []uint64{tensorCols, tensorRows}, Strides: []uint64{2 * tensorCols}, Box: []uint32{32, 8}})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Launch(r.k, driver.Launch{Grid: driver.Dim{X: blocks, Y: 1, Z: 1}, Block: driver.Dim{X: 64, Y: 1, Z: 1}, Cluster: driver.Dim{X: 2, Y: 1, Z: 1}},
		new(driver.Args).AddMap(&m).AddMap(&m).Add(to))
}

// What is wrong with how blocks of a cluster bring each other tiles is found, whatever the order of warps; what is right has the tile's
// numbers in each block.
func TestClusters(t *testing.T) {
	for name, c := range clusterBugs {
		body := shareTiles
		if c.old != "" {
			if body = strings.ReplaceAll(shareTiles, c.old, c.new); body == shareTiles {
				t.Fatalf("%s: nothing is changed", name)
			}
		}
		for _, order := range Orders {
			d := New(Options{Order: order})
			m, err := d.Load([]byte(tileModule(body)))
			var f driver.Function
			if err == nil {
				f, err = d.Function(m, "k")
			}
			r := &rig{t, d, f}
			const blocks = 4
			to := r.memory(make([]byte, blocks*1024))
			if err == nil {
				err = r.launchCluster(blocks, to)
			}
			parts := strings.Split(c.want, "|")
			if (err == nil) != (c.want == "") || err != nil && !slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(err.Error(), p) }) {
				t.Errorf("%s, %v: %v, want %q", name, order, err, c.want)
			}
			if err != nil {
				continue
			}
			raw := r.read(to, blocks*1024)
			for i := range blocks * 512 { // rows 3 … 18 of the tensor, the last that were brought
				want := (3+i%512/32)*tensorCols + i%32
				if got := int(binary.LittleEndian.Uint16(raw[2*i:])); got != want {
					t.Fatalf("%s, %v: element %d of block %d is %d, not %d", name, order, i%512, i/512, got, want)
				}
			}
		}
	}
}

// Multicast counts once as traffic, and what it brings to further blocks beside it.
func TestMulticastCounts(t *testing.T) {
	var got Counts
	r := newRig(t, Options{Count: func(c Counts) { got = c }}, tileModule(shareTiles))
	if err := r.launchCluster(6, r.memory(make([]byte, 6*1024))); err != nil {
		t.Fatal(err)
	}
	const copies = 6 * 4 // each of 8 rows of 64 bytes, of which rows of 80 bytes have two or three sectors
	sectors := 0
	for i := range 4 {
		for row := range 16 {
			from := 80 * (i + row)
			sectors += (from+64+31)/32 - from/32
		}
	}
	if got.Blocks != 6 || got.Tiles != (Tiles{Copies: copies, Bytes: copies * 512, Sent: copies * 512}) || got.Read.Bytes != 3*32*sectors || got.Read.Useful != copies*512 {
		t.Errorf("%d blocks, %+v, read %+v, want %d bytes", got.Blocks, got.Tiles, got.Read, 3*32*sectors)
	}
}

// Blocks of a cluster know who they are, in clusters of several dimensions.
func TestClusterRegisters(t *testing.T) {
	names := []string{"%cluster_ctarank", "%cluster_nctarank", "%clusterid.x", "%clusterid.y", "%nclusterid.x", "%nclusterid.y",
		"%cluster_ctaid.x", "%cluster_ctaid.y", "%cluster_nctaid.x", "%cluster_nctaid.y"}
	body := "mov.u32 %r3, %ctaid.y;\nmov.u32 %r4, %ctaid.x;\nmad.lo.s32 %r3, %r3, 4, %r4;\nmul.wide.u32 %rd6, %r3, 40;\nadd.s64 %rd6, %rd6, %rd1;\n"
	for i, n := range names {
		body += fmt.Sprintf("mov.u32 %%r5, %s;\nst.global.u32 [%%rd6+%d], %%r5;\n", n, 4*i)
	}
	declared := strings.Replace(strings.Replace(module(body), "sm_80", "sm_90a", 1), ".param .u32 n)\n", ".param .u32 n)\n.explicitcluster\n.reqnctapercluster 2, 3, 1\n", 1)
	for _, text := range []string{strings.Replace(module(body), "sm_80", "sm_90a", 1), declared} {
		r := newRig(t, Options{}, text)
		to := r.memory(make([]byte, 4*6*40))
		l := driver.Launch{Grid: driver.Dim{X: 4, Y: 6, Z: 1}, Block: driver.Dim{X: 1, Y: 1, Z: 1}, Cluster: driver.Dim{X: 2, Y: 3, Z: 1}}
		if text == declared {
			l.Cluster = driver.Dim{}
		}
		if err := r.Launch(r.k, l, new(driver.Args).Add(to, to, 0)); err != nil {
			t.Fatal(err)
		}
		raw := r.read(to, 4*6*40)
		for y := range 6 {
			for x := range 4 {
				var got [10]uint32
				for i := range got {
					got[i] = binary.LittleEndian.Uint32(raw[(4*y+x)*40+4*i:])
				}
				if want := [10]uint32{uint32(x%2 + y%3*2), 6, uint32(x / 2), uint32(y / 3), 2, 2, uint32(x % 2), uint32(y % 3), 2, 3}; got != want {
					t.Errorf("block %d, %d: %d, want %d", x, y, got, want)
				}
			}
		}
		if l.Cluster = (driver.Dim{X: 4, Y: 1, Z: 1}); text == declared {
			if err := r.Launch(r.k, l, new(driver.Args).Add(to, to, 0)); err == nil || !strings.Contains(err.Error(), "the kernel is for [2 3 1]") {
				t.Errorf("clusters of four: %v", err)
			}
		}
	}
}

// Threads of a cluster's blocks race in global memory as threads of a block do, and its barrier orders them.
func TestClusterGlobal(t *testing.T) {
	const write = "setp.eq.u32 %p1, %r3, 0;\n@%p1 st.global.u32 [%rd1], 1;\n"
	const readIt = "@!%p1 ld.global.u32 %r4, [%rd1];\n"
	const meet = "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n"
	for body, want := range map[string]string{write + readIt: "a race", write + meet + readIt: "", write + strings.Replace(meet, "release", "relaxed", 1) + readIt: "a race"} {
		for _, order := range Orders {
			r := newRig(t, Options{Order: order}, strings.Replace(module("mov.u32 %r3, %cluster_ctarank;\n"+body), "sm_80", "sm_90a", 1))
			at := r.memory(make([]byte, 4))
			err := r.Launch(r.k, driver.Launch{Grid: driver.Dim{X: 2, Y: 1, Z: 1}, Block: driver.Dim{X: 1, Y: 1, Z: 1}, Cluster: driver.Dim{X: 2, Y: 1, Z: 1}},
				new(driver.Args).Add(at, at, 0))
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s%v: %v, want %q", body, order, err, want)
			}
		}
	}
}
