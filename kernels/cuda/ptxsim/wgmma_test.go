package ptxsim

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// A laying is a way that a matrix lies in shared memory for wgmma: bytes of a swizzled line, 0 for lines of 16 without, and whether
// lines go along M or N instead of K.
type laying struct {
	swizzle int
	across  bool
}

// block is the bytes of eight lines.
func (y laying) block() int { return 8 * max(y.swizzle, 16) }

// place is where an element lies that is number along of a line. Eight lines are a block, blocks of further lines come next, and
// then those that go on with the lines. The 16-byte pieces of a swizzled line are exchanged by the line's number in its block.
func (y laying) place(line, along, lines int) int {
	r, per := line%8, max(y.swizzle, 16)/2
	piece := along%per/8 ^ map[int]int{0: 0, 128: r, 64: r / 2, 32: r / 4}[y.swizzle]
	return (along/per*(lines/8)+line/8)*y.block() + r*2*per + piece*16 + along%8*2
}

// descriptor is what describes a matrix so laid, by the definitions of its leading and stride byte offsets.
func (y laying) descriptor(base, lines int) uint64 {
	nextLines, goOn := y.block(), lines/8*y.block()
	leading, stride := goOn, nextLines
	if y.across && y.swizzle == 0 {
		leading, stride = nextLines, goOn
	}
	return uint64(base)>>4 | uint64(leading)>>4<<16 | uint64(stride)>>4<<32 | map[int]uint64{0: 0, 128: 1, 64: 2, 32: 3}[y.swizzle]<<62
}

// lay puts a matrix of n × 16 into an image of shared memory from base on.
func (y laying) lay(image []byte, base int, v [][16]uint32) {
	for i := range v {
		for k := range 16 {
			at := base + y.place(i, k, len(v))
			if y.across {
				at = base + y.place(k, i, 16)
			}
			binary.LittleEndian.PutUint16(image[at:], uint16(v[i][k]))
		}
	}
}

func (y laying) describe(base, n int) uint64 {
	if y.across {
		return y.descriptor(base, 16)
	}
	return y.descriptor(base, n)
}

const (
	wgColumns = 64 // of B
	wgImage   = 16384
)

// wgKernel copies the image from %rd1 to shared memory, multiplies twice, and stores each lane's 32 numbers at %rd2. $A, $B are the
// operands, $T what stands after the scales; the rest can be replaced to plant a bug.
const wgKernel = `mov.u32 %r3, dyn;
mov.u32 %r4, %r2;
fill:
shl.b32 %r5, %r4, 4;
cvt.u64.u32 %rd6, %r5;
add.s64 %rd6, %rd6, %rd1;
ld.global.v4.b32 {%r10,%r11,%r12,%r13}, [%rd6];
add.s32 %r5, %r5, %r3;
st.shared.v4.b32 [%r5], {%r10,%r11,%r12,%r13};
add.s32 %r4, %r4, 128;
setp.lt.u32 %p1, %r4, 1024;
@%p1 bra fill;
fence.proxy.async;
bar.sync 0;
ld.shared.v4.b32 {%r20,%r21,%r22,%r23}, [dyn];
setp.ne.u32 %p2, %r2, %r2;
$ZERO
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {$D}, $A, $B, %p2, 1, 1, $T;
wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {$D}, $A, $B, 1, 1, 1, $T;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
bar.sync 0;
shl.b32 %r4, %r2, 7;
cvt.u64.u32 %rd6, %r4;
add.s64 %rd6, %rd6, %rd2;
$STORE`

// wgText fills in what is repeated.
func wgText(body string) string {
	var zero, regs, store, declare []string
	for i := range wgColumns / 2 {
		zero = append(zero, fmt.Sprintf("mov.f32 %%s%d, 0f3F800000;", i)) // which the first product is not to add to
		regs = append(regs, fmt.Sprintf("%%s%d", i))
		store = append(store, fmt.Sprintf("st.global.f32 [%%rd6+%d], %%s%d;", 4*i, i))
	}
	declare = append(declare, fmt.Sprintf(".reg .f32 %%s<%d>;\n", wgColumns/2))
	body = strings.Replace(body, "bar.sync 0;\nshl.b32", "skip:\nbar.sync 0;\nshl.b32", 1)
	body = strings.NewReplacer("$ZERO", strings.Join(zero, "\n"), "$D", strings.Join(regs, ","), "$STORE", strings.Join(store, "\n")).Replace(body)
	return strings.Replace(module(declare[0]+body), "sm_80", "sm_90a", 1)
}

// operands are random matrices, as bits and as numbers.
func wgOperands() (a, b [][16]uint32, product [64][wgColumns]float64) {
	rng := rand.New(rand.NewPCG(8, 9))
	fill := func(n int) (m [][16]uint32) {
		m = make([][16]uint32, n)
		for i := range m {
			for k := range 16 {
				m[i][k] = uint32(ladders["bf16"]().round(big.NewFloat(rng.NormFloat64()), false))
			}
		}
		return m
	}
	a, b = fill(64), fill(wgColumns)
	for i := range a {
		for j := range b {
			for k := range 16 {
				product[i][j] += decode("bf16", uint64(a[i][k])) * decode("bf16", uint64(b[j][k]))
			}
		}
	}
	return a, b, product
}

// Products of warpgroups against plain ones, with operands laid in every way.
func TestWarpgroup(t *testing.T) {
	a, b, product := wgOperands()
	for _, layA := range []laying{{0, false}, {32, false}, {64, false}, {128, false}, {0, true}, {32, true}, {64, true}, {128, true}} {
		for _, layB := range []laying{{0, false}, {128, false}, {64, true}, {128, true}} {
			image := make([]byte, wgImage)
			layA.lay(image, 0, a)
			layB.lay(image, 8192, b)
			text := wgText(strings.NewReplacer("$A", fmt.Sprint(layA.describe(0, 64)), "$B", fmt.Sprint(layB.describe(8192, wgColumns)),
				"$T", fmt.Sprintf("%d, %d", map[bool]int{true: 1}[layA.across], map[bool]int{true: 1}[layB.across])).Replace(wgKernel))
			r := newRig(t, Options{Order: Orders[layA.swizzle/32%3]}, text)
			from, to := r.memory(image), r.memory(make([]byte, 128*128))
			if err := r.launch(1, 128, wgImage, from, to, 0); err != nil {
				t.Fatalf("A %v, B %v: %v", layA, layB, err)
			}
			checkProduct(t, fmt.Sprintf("A %v, B %v", layA, layB), r.read(to, 128*128), product)
		}
	}
}

// checkProduct compares what the lanes hold with twice a product: lane 4g+t of warp w has in registers 4c … 4c+3 the columns
// 8c+2t and 8c+2t+1 of row 16w+g, and of row 16w+g+8.
func checkProduct(t *testing.T, what string, raw []byte, product [64][wgColumns]float64) {
	t.Helper()
	for thread := range 128 {
		for i := range wgColumns / 2 {
			row, col := thread/32*16+thread%32/4+i%4/2*8, i/4*8+thread%4*2+i%2
			got := float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[128*thread+4*i:])))
			if want := 2 * product[row][col]; !(math.Abs(got-want) < 1e-4) {
				t.Fatalf("%s: element %d, %d is %v, not %v", what, row, col, want, got)
			}
		}
	}
}

// What is wrong with how a kernel of warpgroups waits is found.
func TestWarpgroupChecks(t *testing.T) {
	a, b, product := wgOperands()
	y := laying{128, false}
	image := make([]byte, wgImage)
	y.lay(image, 0, a)
	y.lay(image, 8192, b)
	base := strings.NewReplacer("$A", fmt.Sprint(y.describe(0, 64)), "$B", fmt.Sprint(y.describe(8192, wgColumns)), "$T", "0, 0").Replace(wgKernel)
	for name, c := range map[string]struct{ old, new, want string }{
		"nothing":                       {"", "", ""},
		"no proxy fence":                {"fence.proxy.async;", "", "fence.proxy.async is missing"},
		"the fence after the barrier":   {"fence.proxy.async;\nbar.sync 0;", "bar.sync 0;\nfence.proxy.async;", ""},
		"no barrier":                    {"fence.proxy.async;\nbar.sync 0;\nld.shared.v4.b32 {%r20,%r21,%r22,%r23}, [dyn];", "fence.proxy.async;\n", "nothing has been written to|a race"},
		"no fence of registers":         {"wgmma.fence.sync.aligned;", "", "wgmma.fence is missing"},
		"registers changed without one": {"wgmma.wait_group.sync.aligned 0;\n", "wgmma.wait_group.sync.aligned 0;\nmov.f32 %s3, 0f00000000;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {$D}, 1, 1, 1, 1, 1, 0, 0;\n", "wgmma.fence is missing"},
		"not waited for":                {"wgmma.wait_group.sync.aligned 0;", "", "NaN"},
		"one group too many":            {"wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", "NaN"},
		"no commit":                     {"wgmma.commit_group.sync.aligned;", "", "NaN"},
		"overwritten before the wait":   {"wgmma.commit_group.sync.aligned;", "wgmma.commit_group.sync.aligned;\nbar.sync 0;\nst.shared.v4.b32 [%r5], {%r10,%r11,%r12,%r13};\n", "reads by itself, and that has not been waited for"},
		"overwritten after it":          {"wgmma.wait_group.sync.aligned 0;\nbar.sync 0;", "wgmma.wait_group.sync.aligned 0;\nbar.sync 0;\nst.shared.v4.b32 [%r5], {%r10,%r11,%r12,%r13};\n", ""},
		"overwritten with no barrier":   {"wgmma.wait_group.sync.aligned 0;\nbar.sync 0;", "wgmma.wait_group.sync.aligned 0;\nst.shared.v4.b32 [%r5], {%r10,%r11,%r12,%r13};\n", "a race"},
		"three warps":                   {"wgmma.fence.sync", "setp.lt.u32 %p4, %r2, 96;\n@!%p4 bra skip;\nwgmma.fence.sync", "has taken part in"},
		"part of a warp":                {"wgmma.commit_group.sync.aligned;", "setp.lt.u32 %p3, %r2, 5;\n@%p3 wgmma.commit_group.sync.aligned;", "pass it by"},
		"an operand beyond the memory":  {fmt.Sprint(y.describe(8192, wgColumns)), fmt.Sprint(y.describe(16384-64, wgColumns)), "of shared memory of"},
		"another base offset":           {fmt.Sprint(y.describe(8192, wgColumns)), fmt.Sprint(y.describe(8192, wgColumns) | 1<<49), "base offset"},
	} {
		t.Run(name, func(t *testing.T) {
			body := base
			if c.old != "" {
				if body = strings.ReplaceAll(base, c.old, c.new); body == base {
					t.Fatal("nothing is changed")
				}
			}
			r := newRig(t, Options{}, wgText(body))
			from, to := r.memory(image), r.memory(make([]byte, 128*128))
			err := r.launch(1, 128, wgImage, from, to, 0)
			switch {
			case c.want == "" || c.want == "NaN":
				if err != nil {
					t.Fatal(err)
				}
				raw := r.read(to, 128*128)
				if c.want == "" {
					checkProduct(t, name, raw, product)
				} else if v := math.Float32frombits(binary.LittleEndian.Uint32(raw[500:])); v == v {
					t.Errorf("a register that has not been waited for holds %v", v)
				}
			case err == nil:
				t.Error("not found")
			default:
				found := false
				for _, part := range strings.Split(c.want, "|") {
					found = found || strings.Contains(err.Error(), part)
				}
				if !found {
					t.Error(err)
				}
			}
		})
	}
}

// A in registers, in the order of mma's; scales that turn the sign.
func TestWarpgroupRegisters(t *testing.T) {
	_, b, _ := wgOperands()
	y := laying{128, false}
	image := make([]byte, wgImage)
	y.lay(image, 8192, b)
	// All of A is 1: each number is the sum of a column, subtracted once and then once more.
	text := strings.NewReplacer("$A", "{%r30,%r30,%r30,%r30}", "$B", fmt.Sprint(y.describe(8192, wgColumns)), "$T", "0",
		"1, 1, $T;\nwgmma.commit", "-1, 1, 0;\nwgmma.commit", "setp.ne.u32", "mov.b32 %r30, 0x3f803f80;\nsetp.ne.u32").Replace(wgKernel)
	text = strings.ReplaceAll(text, "%p2, 1, 1,", "%p2, 1, -1,")
	r := newRig(t, Options{}, wgText(text))
	from, to := r.memory(image), r.memory(make([]byte, 128*128))
	if err := r.launch(1, 128, wgImage, from, to, 0); err != nil {
		t.Fatal(err)
	}
	var sums [64][wgColumns]float64
	for i := range sums {
		for j := range b {
			for k := range 16 {
				sums[i][j] -= decode("bf16", uint64(b[j][k]))
			}
		}
	}
	checkProduct(t, "A of ones", r.read(to, 128*128), sums)
}
