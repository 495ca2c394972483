package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A Width is what wgmma gives with so many columns in one instruction.
type Width struct {
	N     int     // columns
	Moved int     // columns by which the tokens were moved
	Other int     // numbers that differ, in their bits, from those of the narrowest instruction
	Error float64 // the largest, against the exact product, over the sum of its terms' sizes
}

// widthSteps are the instructions that a product's K is cut into.
const widthSteps = 24

// Widths multiplies 64 rows of weights and 256 columns of tokens, K of 16 · widthSteps, by wgmma with 8 to 256
// columns an instruction, and says whether a column's bits depend on that, or on where among the others it
// stands. Nothing that NVIDIA publishes says so, and one row, one answer rests on it. It needs sm_90.
func Widths(d driver.Device, seed uint64) ([]Width, error) {
	if err := d.Bind(); err != nil {
		return nil, err
	}
	major, err := d.Attribute(driver.CapabilityMajor)
	if err != nil {
		return nil, err
	}
	if major != 9 {
		return nil, fmt.Errorf("wgmma is of compute capability 9.0, this device is of %d", major)
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	weights, tokens := halves(rng, 64*16*widthSteps), halves(rng, 256*16*widthSteps)
	var first []float32
	var all []Width
	for _, n := range []int{8, 16, 24, 32, 64, 96, 128, 192, 256} {
		for _, moved := range []int{0, 8, n / 2} {
			if moved%8 != 0 || moved >= n && moved > 0 {
				continue
			}
			got, err := wide(d, weights, tokens, n, moved)
			if err != nil {
				return all, fmt.Errorf("wgmma of %d columns: %w", n, err)
			}
			if first == nil {
				first = got
			}
			all = append(all, judge(first, got, weights, tokens, n, moved))
		}
	}
	return all, nil
}

// halves are random bf16, as floats.
func halves(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = math.Float32frombits(math.Float32bits(float32(rng.NormFloat64())) &^ 0xffff)
	}
	return v
}

// core puts rows × (16 · widthSteps) bf16, row by row, in the order of shared memory without swizzle: for each
// step groups of eight rows, of each its two halves of eight columns, rows end to end. Rows are moved down
// so many, the last ones to the top.
func core(v []float32, rows, moved int) []byte {
	b := make([]byte, 2*rows*16*widthSteps)
	for i := range rows {
		at := (i + moved) % rows
		for k := range 16 * widthSteps {
			to := k/16*rows*16 + (at/8*2+k%16/8)*64 + at%8*8 + k%8
			binary.LittleEndian.PutUint16(b[2*to:], uint16(math.Float32bits(v[i*16*widthSteps+k])>>16))
		}
	}
	return b
}

// wide is the first eight columns' product, column by column, by instructions of n columns.
func wide(d driver.Device, weights, tokens []float32, n, moved int) ([]float32, error) {
	m, err := d.Load([]byte(widthPTX(n)))
	if err != nil {
		return nil, err
	}
	defer d.Unload(m)
	f, err := d.Function(m, "width")
	if err != nil {
		return nil, err
	}
	a, b, out := core(weights, 64, 0), core(tokens[:n*16*widthSteps], n, moved), make([]byte, 4*64*n)
	var at [3]uint64
	for i, bytes := range []int{len(a), len(b), len(out)} {
		if at[i], err = d.Alloc(bytes); err != nil {
			return nil, err
		}
		defer d.Free(at[i])
	}
	var args driver.Args
	args.Add(at[0], at[1], at[2], widthSteps)
	one := driver.Launch{Grid: driver.Dim{X: 1, Y: 1, Z: 1}, Block: driver.Dim{X: 128, Y: 1, Z: 1}}
	if err := errors.Join(d.Upload(at[0], a), d.Upload(at[1], b), d.Launch(f, one, &args), d.Download(out, at[2])); err != nil {
		return nil, err
	}
	if err := d.Sync(); err != nil {
		return nil, err
	}
	got := make([]float32, 8*64)
	for thread := range 128 {
		for i := range n / 2 {
			row, col := thread/32*16+thread%32/4+i%4/2*8, i/4*8+thread%4*2+i%2
			if col = (col - moved + n) % n; col < 8 {
				got[col*64+row] = math.Float32frombits(binary.LittleEndian.Uint32(out[4*(thread*n/2+i):]))
			}
		}
	}
	return got, nil
}

// judge compares a product with the narrowest one, and with the exact one.
func judge(first, got, weights, tokens []float32, n, moved int) Width {
	const k = 16 * widthSteps
	w := Width{N: n, Moved: moved}
	for col := range 8 {
		for row := range 64 {
			sum, size := 0.0, 0.0
			for i := range k {
				p := float64(weights[row*k+i]) * float64(tokens[col*k+i])
				sum, size = sum+p, size+math.Abs(p)
			}
			v := got[col*64+row]
			if math.Float32bits(v) != math.Float32bits(first[col*64+row]) {
				w.Other++
			}
			if e := math.Abs(float64(v)-sum) / size; !(e <= w.Error) {
				w.Error = e
			}
		}
	}
	return w
}

// widthPTX is a kernel that multiplies by wgmma of n columns: width(weights, tokens, out, steps), both in the
// order of core, with 128 threads; thread t leaves its n/2 numbers together.
func widthPTX(n int) string {
	var zero, regs, store strings.Builder
	for i := range n / 2 {
		fmt.Fprintf(&zero, "\tmov.f32 %%f%d, 0f00000000;\n", i)
		fmt.Fprintf(&regs, "%%f%d,", i)
		fmt.Fprintf(&store, "\tst.global.f32 [%%rd3+%d], %%f%d;\n", 4*i, i)
	}
	return fmt.Sprintf(`.version 8.0
.target sm_90a
.address_size 64

.visible .entry width(.param .u64 width_a, .param .u64 width_b, .param .u64 width_out, .param .u32 width_steps)
{
	.reg .pred %%p<3>;
	.reg .b32 %%r<16>;
	.reg .b64 %%rd<16>;
	.reg .f32 %%f<%[2]d>;
	.shared .align 128 .b8 tile[%[3]d];

	ld.param.u64 %%rd1, [width_a];
	ld.param.u64 %%rd2, [width_b];
	ld.param.u64 %%rd3, [width_out];
	ld.param.u32 %%r1, [width_steps];
	cvta.to.global.u64 %%rd1, %%rd1;
	cvta.to.global.u64 %%rd2, %%rd2;
	cvta.to.global.u64 %%rd3, %%rd3;
	mov.u32 %%r2, %%tid.x;
	mul.wide.u32 %%rd4, %%r2, 16;
	add.s64 %%rd1, %%rd1, %%rd4;
	add.s64 %%rd2, %%rd2, %%rd4;
	mul.wide.u32 %%rd5, %%r2, %[4]d;
	add.s64 %%rd3, %%rd3, %%rd5;
	mov.u32 %%r3, tile;
	shl.b32 %%r4, %%r2, 4;
	add.s32 %%r4, %%r4, %%r3;
	shr.u32 %%r5, %%r3, 4;
	and.b32 %%r5, %%r5, 16383;
	cvt.u64.u32 %%rd6, %%r5;
	or.b64 %%rd6, %%rd6, 68720001024;
	add.s64 %%rd7, %%rd6, 128;
%[5]sNEXT:
	ld.global.v4.u32 {%%r6,%%r7,%%r8,%%r9}, [%%rd1];
	st.shared.v4.u32 [%%r4], {%%r6,%%r7,%%r8,%%r9};
	mov.u32 %%r10, %%r2;
	mov.u32 %%r11, %%r4;
	mov.u64 %%rd8, %%rd2;
MORE:
	setp.ge.u32 %%p1, %%r10, %[6]d;
	@%%p1 bra THERE;
	ld.global.v4.u32 {%%r6,%%r7,%%r8,%%r9}, [%%rd8];
	st.shared.v4.u32 [%%r11+2048], {%%r6,%%r7,%%r8,%%r9};
	add.s32 %%r10, %%r10, 128;
	add.s32 %%r11, %%r11, 2048;
	add.s64 %%rd8, %%rd8, 2048;
	bra MORE;
THERE:
	fence.proxy.async.shared::cta;
	bar.sync 0;
	setp.ne.u32 %%p2, %%r1, 0;
	wgmma.fence.sync.aligned;
	wgmma.mma_async.sync.aligned.m64n%[1]dk16.f32.bf16.bf16 {%[7]s}, %%rd6, %%rd7, %%p2, 1, 1, 0, 0;
	wgmma.commit_group.sync.aligned;
	wgmma.wait_group.sync.aligned 0;
	bar.sync 0;
	add.s64 %%rd1, %%rd1, 2048;
	add.s64 %%rd2, %%rd2, %[8]d;
	sub.s32 %%r1, %%r1, 1;
	setp.ne.u32 %%p1, %%r1, 0;
	@%%p1 bra NEXT;
%[9]s	ret;
}
`, n, n/2, 2048+32*n, 2*n, zero.String(), 2*n, strings.TrimSuffix(regs.String(), ","), 32*n, store.String())
}
