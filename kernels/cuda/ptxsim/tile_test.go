package ptxsim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// tileModule is a kernel k(map, other, b): %rd1 and %rd8 are the addresses of two tensor maps, %rd2 of memory. It has an mbarrier bar and
// 2 × 2048 bytes of tiles.
func tileModule(body string) string {
	return ".version 8.4\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .align 64 .b8 m[128], .param .align 64 .b8 o[128], .param .u64 b)\n{" +
		registersText + ".shared .align 128 .b8 tile[4096];\n.shared .align 8 .b64 bar;\n.shared .align 8 .b64 empty;\n" +
		"mov.b64 %rd1, m;\ncvta.param.u64 %rd1, %rd1;\nmov.b64 %rd8, o;\ncvta.param.u64 %rd8, %rd8;\nld.param.u64 %rd2, [b];\nmov.u32 %r2, %tid.x;\n" +
		"setp.eq.u32 %p1, %r2, 0;\n" + body + "\nret;\n}\n"
}

// A tensor of u16: element i holds i.
const tensorRows, tensorCols = 20, 40

func (r *rig) tensor() (at uint64) {
	var raw []byte
	for i := range tensorRows * tensorCols {
		raw = binary.LittleEndian.AppendUint16(raw, uint16(i))
	}
	return r.memory(raw)
}

// boxes are what the two maps describe: boxes of 16 × 32, or by the swizzle narrower ones of the same bytes.
func (r *rig) encode(at uint64, s driver.Swizzle) *driver.TensorMap {
	r.t.Helper()
	box := []uint32{uint32(min(32, 8<<s)), 16}
	if s == driver.SwizzleNone {
		box[0] = 32
	}
	m, err := r.Encode(driver.Tile{Type: driver.TileBF16, Address: at, Dims: []uint64{tensorCols, tensorRows}, Strides: []uint64{2 * tensorCols}, Box: box, Swizzle: s})
	if err != nil {
		r.t.Fatal(err)
	}
	return &m
}

func (r *rig) launchTiles(threads int, m, o *driver.TensorMap, b uint64) error {
	one := driver.Dim{X: 1, Y: 1, Z: 1}
	return r.Launch(r.k, driver.Launch{Grid: one, Block: driver.Dim{X: threads, Y: 1, Z: 1}}, new(driver.Args).AddMap(m).AddMap(o).Add(b))
}

const (
	makeBarrier = `@%p1 mbarrier.init.shared::cta.b64 [bar], 1;
@%p1 fence.mbarrier_init.release.cluster;
bar.sync 0;
`
	bringTile = `@!%p1 bra wait;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], BYTES;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [tile], [%rd1, {XX, YY}], [bar];
`
	waitTile = `wait:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], 0;
@!%p2 bra wait;
`
	// Each of 128 threads copies 16 bytes of what has come to %rd2.
	copyTile = `shl.b32 %r4, %r2, 4;
mov.u32 %r5, tile;
add.s32 %r5, %r5, %r4;
ld.shared.v4.b32 {%r10,%r11,%r12,%r13}, [%r5];
cvt.u64.u32 %rd6, %r4;
add.s64 %rd6, %rd6, %rd2;
st.global.v4.b32 [%rd6], {%r10,%r11,%r12,%r13};
`
)

// Tiles come as their map has them, by every swizzle, with zeros outside the tensor.
func TestTiles(t *testing.T) {
	for swizzle, span := range map[driver.Swizzle]int{driver.SwizzleNone: 0, driver.Swizzle32: 32, driver.Swizzle64: 64, driver.Swizzle128: 128} {
		for _, at := range [][2]int{{0, 0}, {24, 8}, {-8, -3}, {40, 0}, {3, 19}} {
			for _, order := range Orders {
				cols := 32
				if span == 32 {
					cols = 16
				}
				bytes := 16 * cols * 2
				body := strings.NewReplacer("BYTES", fmt.Sprint(bytes), "XX", "%r20", "YY", "%r21").Replace(fmt.Sprintf("mov.u32 %%r20, %d;\nmov.u32 %%r21, %d;\n", at[0], at[1]) +
					makeBarrier + bringTile + waitTile + copyTile)
				r := newRig(t, Options{Order: order}, tileModule(body))
				m, to := r.encode(r.tensor(), swizzle), r.memory(make([]byte, bytes))
				if err := r.launchTiles(bytes/16, m, m, to); err != nil {
					t.Fatalf("swizzle %d, at %d, %v: %v", swizzle, at, order, err)
				}
				raw := r.read(to, bytes)
				for row := range 16 {
					for col := range cols {
						want, x, y := 0, at[0]+col, at[1]+row
						if x >= 0 && x < tensorCols && y >= 0 && y < tensorRows {
							want = y*tensorCols + x
						}
						byteAt := (row*cols + col) * 2
						line := byteAt / 128 // whose number's low bits exchange the pieces within a span
						piece := byteAt / 16 % 8
						if span > 0 {
							piece ^= line % 8 % (span / 16)
						}
						if got := int(binary.LittleEndian.Uint16(raw[line*128+piece*16+byteAt%16:])); got != want {
							t.Fatalf("swizzle %d, at %d: element %d, %d is %d, not %d", swizzle, at, row, col, got, want)
						}
					}
				}
			}
		}
	}
}

var bringOne = strings.NewReplacer("BYTES", "1024", "XX", "0", "YY", "0").Replace(makeBarrier + bringTile)

// pipeline brings four tiles in turn through one place; the other warp says when it has read one.
const pipeline = `@%p1 mbarrier.init.shared::cta.b64 [bar], 1;
@%p1 mbarrier.init.shared::cta.b64 [empty], 1;
bar.sync 0;
mov.u32 %r20, 0;
shr.u32 %r21, %r2, 5;
setp.ne.u32 %p3, %r21, 0;
@%p3 bra read;
@!%p1 bra done;
bring:
and.b32 %r22, %r20, 1;
xor.b32 %r23, %r22, 1;
full:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [empty], %r23;
@!%p2 bra full;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 1024;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [tile], [%rd1, {0, %r20}], [bar];
add.s32 %r20, %r20, 1;
setp.lt.u32 %p4, %r20, 4;
@%p4 bra bring;
bra done;
read:
and.b32 %r22, %r20, 1;
again:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], %r22;
@!%p2 bra again;
and.b32 %r24, %r2, 31;
shl.b32 %r24, %r24, 1;
mov.u32 %r25, tile;
add.s32 %r25, %r25, %r24;
ld.shared.u16 %h1, [%r25];
cvt.u64.u32 %rd6, %r24;
add.s64 %rd6, %rd6, %rd2;
st.global.u16 [%rd6], %h1;
bar.warp.sync 0xffffffff;
setp.eq.u32 %p5, %r2, 32;
@%p5 mbarrier.arrive.shared::cta.b64 _, [empty];
add.s32 %r20, %r20, 1;
setp.lt.u32 %p4, %r20, 4;
@%p4 bra read;
done:`

// stored stores a tile that threads wrote.
const stored = `shl.b32 %r4, %r2, 4;
mov.u32 %r5, tile;
add.s32 %r5, %r5, %r4;
st.shared.v4.b32 [%r5], {%r2,%r2,%r2,%r2};
fence.proxy.async.shared::cta;
bar.sync 0;
@!%p1 bra after;
cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd8, {8, 2}], [tile];
cp.async.bulk.commit_group;
cp.async.bulk.wait_group.read 0;
after:
bar.sync 0;
st.shared.u32 [%r5], 7;`

// tileBugs are planted in a kernel: what is replaced, by what, and parts of the messages it may be found with; none for what is
// no bug, and an empty one where it may also do no harm.
var tileBugs = map[string]struct{ body, old, new, want string }{
	"a tile":                               {bringOne + waitTile + copyTile, "", "", ""},
	"not waited for":                       {bringOne + waitTile + copyTile, "@!%p2 bra wait;\n", "", "that has not been waited for"},
	"only the first waits":                 {bringOne + waitTile + copyTile, "wait:", "bra wait;\nwait:", ""},
	"too many bytes announced":             {bringOne + waitTile + copyTile, ", 1024;", ", 1040;", "no warp can go on"},
	"too few bytes announced":              {bringOne + waitTile + copyTile, ", 1024;", ", 1008;", "no warp can go on"},
	"not announced":                        {bringOne + waitTile + copyTile, ".expect_tx.shared::cta.b64 _, [bar], 1024;", ".shared::cta.b64 _, [bar];", "|no warp can go on|has not been waited for|nobody has waited"},
	"the other parity":                     {bringOne + waitTile + copyTile, "[bar], 0;", "[bar], 1;", "has not been waited for|nothing has been written to"},
	"no barrier after init":                {bringOne + waitTile + copyTile, "bar.sync 0;\n", "", "a race|there is no mbarrier"},
	"no init":                              {bringOne + waitTile + copyTile, "@%p1 mbarrier.init.shared::cta.b64 [bar], 1;", "", "there is no mbarrier"},
	"a place that is no multiple of 128":   {bringOne + waitTile + copyTile, "[tile], [%rd1", "[tile+64], [%rd1", "no multiple of 128"},
	"no map":                               {bringOne + waitTile + copyTile, "[%rd1, {", "[%rd2, {", "no tensor map"},
	"three coordinates":                    {bringOne + waitTile + copyTile, "{0, 0}", "{0, 0, 0}", "2 coordinates"},
	"nobody waits":                         {bringOne + "wait:", "", "", "nobody has waited"},
	"written before by threads":            {bringOne + waitTile + copyTile, "@!%p1 bra wait;", "@%p1 st.shared.u32 [tile], 1;\n@!%p1 bra wait;", "fence.proxy.async is missing"},
	"tiles in turn":                        {pipeline, "", "", ""},
	"the place is not waited for":          {pipeline, "@!%p2 bra full;\n", "", "a race|announces"},
	"the place by the other parity":        {pipeline, "[empty], %r23;", "[empty], %r22;", "no warp can go on"},
	"not all lanes have read":              {pipeline, "bar.warp.sync 0xffffffff;\n", "", "a race"},
	"the tile by the other parity":         {pipeline, "[bar], %r22;", "[bar], %r23;", "nothing has been written to|has not been waited for|no warp can go on"},
	"the reader never says":                {pipeline, "@%p5 mbarrier.arrive.shared::cta.b64 _, [empty];\n", "", "no warp can go on|ended"},
	"a store":                              {stored, "", "", ""},
	"a store without the fence":            {stored, "fence.proxy.async.shared::cta;\n", "", "fence.proxy.async is missing"},
	"the first thread's fence":             {stored, "fence.proxy.async.shared::cta;\nbar.sync 0;", "bar.sync 0;\nfence.proxy.async.shared::cta;", ""},
	"a store that others have not written": {stored, "fence.proxy.async.shared::cta;\nbar.sync 0;", "fence.proxy.async.shared::cta;", "a race|nothing has been written to"},
	"a store that is not waited for":       {stored, "cp.async.bulk.wait_group.read 0;\n", "", "reads by itself"},
	"a store in no group":                  {stored, "cp.async.bulk.commit_group;\n", "", "reads by itself"},
}

// What is wrong with how tiles are brought, waited for and stored is found, whatever the order of warps.
func TestTileChecks(t *testing.T) {
	for name, c := range tileBugs {
		t.Run(name, func(t *testing.T) {
			body := c.body
			if c.old != "" {
				if body = strings.ReplaceAll(c.body, c.old, c.new); body == c.body {
					t.Fatal("nothing is changed")
				}
			}
			for _, order := range Orders {
				d := New(Options{Order: order})
				m, err := d.Load([]byte(tileModule(body)))
				if err != nil {
					if c.want == "" || !strings.Contains(err.Error(), c.want) {
						t.Fatal(err)
					}
					continue
				}
				f, err := d.Function(m, "k")
				if err != nil {
					t.Fatal(err)
				}
				r := &rig{t, d, f}
				from, to := r.tensor(), r.memory(make([]byte, 2*tensorRows*tensorCols))
				err = r.launchTiles(64, r.encode(from, driver.SwizzleNone), r.encode(to, driver.SwizzleNone), to)
				parts := strings.Split(c.want, "|")
				switch {
				case c.want == "" && err != nil, err == nil && !slices.Contains(parts, ""):
					t.Errorf("%v: %v", order, err)
				case err != nil && !slices.ContainsFunc(parts, func(p string) bool { return p != "" && strings.Contains(err.Error(), p) }):
					t.Errorf("%v: %v", order, err)
				}
				if name == "a store" {
					checkStored(t, r.read(to, 2*tensorRows*tensorCols))
				}
			}
		})
	}
}

// checkStored looks for the tile of 16 rows of 32 in a tensor from column 8, row 2 on: row r holds in its piece c, of four, the
// number of thread 4r + c, as words; beside it there are zeros.
func checkStored(t *testing.T, raw []byte) {
	t.Helper()
	for y := range tensorRows {
		for x := range tensorCols {
			want := 0
			if r, c := y-2, x-8; r >= 0 && r < 16 && c >= 0 && c < 32 && c%2 == 0 {
				want = 4*r + c/8
			}
			if got := int(binary.LittleEndian.Uint16(raw[2*(y*tensorCols+x):])); got != want {
				t.Fatalf("element %d, %d is %d, not %d", y, x, got, want)
			}
		}
	}
}

// mbarriers count: arrivals of several, more at once, states instead of parities.
func TestMbarriers(t *testing.T) {
	text := module(`.shared .align 8 .b64 bar;
.shared .align 4 .b32 word;
setp.eq.u32 %p1, %r2, 0;
@%p1 mbarrier.init.shared::cta.b64 [bar], 96;
bar.sync 0;
@%p1 st.shared.u32 [word], 5;
mbarrier.arrive.shared::cta.b64 %rd6, [bar];
setp.lt.u32 %p2, %r2, 16;
@%p2 mbarrier.arrive.shared::cta.b64 _, [bar], 2;
wait:
mbarrier.test_wait.shared::cta.b64 %p3, [bar], %rd6;
@!%p3 bra wait;
ld.shared.u32 %r4, [word];
st.global.u32 [%rd5], %r4;`)
	for _, order := range Orders {
		r := newRig(t, Options{Order: order}, text)
		to := r.memory(make([]byte, 256))
		if err := r.launch(1, 64, 0, 0, to, 0); err != nil {
			t.Fatal(err)
		}
		for i, raw := 0, r.read(to, 256); i < 64; i++ {
			if v := binary.LittleEndian.Uint32(raw[4*i:]); v != 5 {
				t.Fatalf("thread %d has %d", i, v)
			}
		}
	}
	for old, c := range map[string][2]string{
		"[bar], 96;": {"[bar], 97;", "no warp can go on"}, "[bar], 2;": {"[bar], 20;", "arrives 20 times"},
		"@!%p3 bra wait;": {"", "a race"}, "[bar], 96;\nbar.sync 0;": {"[bar], 96;", "nothing orders"}, "b64 [bar], 96": {"b64 [bar], 0", "0 arrivals"},
	} {
		r := newRig(t, Options{}, strings.Replace(text, old, c[0], 1))
		if err := r.launch(1, 64, 0, 0, r.memory(make([]byte, 256)), 0); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%q for %q: %v", c[0], old, err)
		}
	}
}

// setmaxnreg has its numbers; what a GPU of before has not is refused.
func TestHopperOnly(t *testing.T) {
	if _, err := New(Options{}).Load([]byte(module("setmaxnreg.inc.sync.aligned.u32 240;\nsetmaxnreg.dec.sync.aligned.u32 40;"))); err != nil {
		t.Error(err)
	}
	for _, n := range []string{"16", "250", "264"} {
		if _, err := New(Options{}).Load([]byte(module("setmaxnreg.inc.sync.aligned.u32 " + n + ";"))); err == nil || !strings.Contains(err.Error(), "multiple of 8") {
			t.Errorf("%s registers: %v", n, err)
		}
	}
	old := New(Options{Capability: 80})
	if _, err := old.Load([]byte(tileModule(""))); err == nil || !strings.Contains(err.Error(), "for sm_90a, and this is a simulated sm_80") {
		t.Errorf("code for sm_90a: %v", err)
	}
	if _, err := old.Encode(driver.Tile{Type: driver.TileU8, Address: 16, Dims: []uint64{16}, Box: []uint32{16}}); err == nil || !strings.Contains(err.Error(), "no tensor maps") {
		t.Errorf("a tensor map: %v", err)
	}
}
