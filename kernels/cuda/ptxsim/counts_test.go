package ptxsim

import (
	"fmt"
	"strings"
	"testing"
)

// counted runs a kernel k on a device that counts, and gives what it counted of the launch.
func counted(t *testing.T, text string, blocks, threads, dynamic int, args func(r *rig) []uint64) Counts {
	t.Helper()
	var all []Counts
	r := newRig(t, Options{Count: func(c Counts) { all = append(all, c) }}, text)
	if err := r.launch(blocks, threads, dynamic, args(r)...); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Kernel != "k" || all[0].Launch.Grid.X != blocks {
		t.Fatalf("counted %v", all)
	}
	return all[0]
}

func twoBuffers(r *rig) []uint64 {
	return []uint64{r.memory(make([]byte, 1<<13)), r.memory(make([]byte, 1<<13)), 0}
}

// Global memory: what a warp's 32 addresses cost in sectors of 32 bytes, by hand.
func TestTrafficCounts(t *testing.T) {
	read := func(shift, offset int) string { // lane i reads 4 bytes at i << shift, and offset
		return fmt.Sprintf("shl.b32 %%r3, %%r2, %d;\ncvt.u64.u32 %%rd6, %%r3;\nadd.s64 %%rd6, %%rd6, %%rd1;\nld.global.f32 %%f1, [%%rd6+%d];\n", shift, offset)
	}
	for name, c := range map[string]struct {
		body    string
		threads int
		want    Traffic // read
	}{
		"side by side":             {read(2, 0), 64, Traffic{2, 256, 256, 256}},
		"a sector too many":        {read(2, 4), 32, Traffic{1, 128, 160, 160}},
		"every other":              {read(3, 0), 32, Traffic{1, 128, 256, 256}},
		"a sector each":            {read(5, 0), 32, Traffic{1, 128, 1024, 1024}},
		"a line each":              {read(7, 0), 32, Traffic{1, 128, 1024, 1024}},
		"one for all":              {"ld.global.f32 %f1, [%rd1];\n", 32, Traffic{1, 4, 32, 32}},
		"the same twice":           {read(2, 0) + "ld.global.f32 %f1, [%rd6];\n", 32, Traffic{2, 256, 256, 128}},
		"the same by both warps":   {"ld.global.f32 %f1, [%rd1];\n", 64, Traffic{2, 8, 64, 32}},
		"16 bytes a lane":          {"shl.b32 %r3, %r2, 4;\ncvt.u64.u32 %rd6, %r3;\nadd.s64 %rd6, %rd6, %rd1;\nld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd6];\n", 32, Traffic{1, 512, 512, 512}},
		"half the lanes":           {"setp.lt.u32 %p1, %r2, 16;\n@%p1 ld.global.f32 %f1, [%rd4];\n", 32, Traffic{1, 64, 64, 64}},
		"none of the lanes":        {"setp.gt.u32 %p1, %r2, 99;\n@%p1 ld.global.f32 %f1, [%rd4];\n", 32, Traffic{}},
		"a generic address":        {"ld.f32 %f1, [%rd4];\n", 32, Traffic{1, 128, 128, 128}},
		"a copy to shared memory":  {"shl.b32 %r3, %r2, 4;\ncvt.u64.u32 %rd6, %r3;\nadd.s64 %rd6, %rd6, %rd1;\nmov.u32 %r4, dyn;\nadd.s32 %r4, %r4, %r3;\ncp.async.cg.shared.global [%r4], [%rd6], 16;\ncp.async.wait_all;\n", 32, Traffic{1, 512, 512, 512}},
		"a copy of half its bytes": {"shl.b32 %r3, %r2, 4;\ncvt.u64.u32 %rd6, %r3;\nadd.s64 %rd6, %rd6, %rd1;\nmov.u32 %r4, dyn;\nadd.s32 %r4, %r4, %r3;\nmov.u32 %r5, 8;\ncp.async.cg.shared.global [%r4], [%rd6], 16, %r5;\ncp.async.wait_all;\n", 32, Traffic{1, 256, 512, 512}},
		"an atomic sum":            {"atom.global.add.u32 %r3, [%rd1], 1;\n", 32, Traffic{1, 4, 32, 32}},
	} {
		got := counted(t, module(c.body), 1, c.threads, 1024, twoBuffers)
		if got.Read != c.want {
			t.Errorf("%s: %+v, want %+v", name, got.Read, c.want)
		}
		if name != "an atomic sum" && got.Written != (Traffic{}) {
			t.Errorf("%s: writes %+v", name, got.Written)
		}
	}
	if got := counted(t, module("st.global.u16 [%rd5], %h1;\nst.global.u16 [%rd5], %h1;\n"), 1, 32, 0, twoBuffers); got.Written != (Traffic{2, 128, 256, 128}) || got.Read != (Traffic{}) {
		t.Errorf("two stores of the low half of each word: %+v", got.Written)
	}
}

// Shared memory: the waves of a warp's access beyond one for 128 bytes, by hand.
func TestBankCounts(t *testing.T) {
	at := func(stride int) string {
		return fmt.Sprintf("mul.lo.s32 %%r3, %%r2, %d;\nmov.u32 %%r4, dyn;\nadd.s32 %%r4, %%r4, %%r3;\n", stride)
	}
	for name, c := range map[string]struct {
		body string
		want Waves
	}{
		"side by side":                {at(4) + "st.shared.f32 [%r4], %f1;\n", Waves{1, 0}},
		"every other word":            {at(8) + "st.shared.f32 [%r4], %f1;\n", Waves{1, 1}},
		"one bank":                    {at(128) + "st.shared.f32 [%r4], %f1;\n", Waves{1, 31}},
		"rows of 33 words":            {at(132) + "st.shared.f32 [%r4], %f1;\n", Waves{1, 0}},
		"halves of words":             {at(2) + "st.shared.u16 [%r4], %h1;\n", Waves{1, 0}},
		"16 bytes side by side":       {at(16) + "st.shared.v4.f32 [%r4], {%f1,%f1,%f1,%f1};\n", Waves{4, 0}},
		"16 bytes of rows of 128":     {at(128) + "st.shared.v4.f32 [%r4], {%f1,%f1,%f1,%f1};\n", Waves{4, 28}},
		"16 bytes of rows of 144":     {at(144) + "st.shared.v4.f32 [%r4], {%f1,%f1,%f1,%f1};\n", Waves{4, 0}},
		"8 bytes of rows of 64":       {at(64) + "st.shared.v2.f32 [%r4], {%f1,%f1};\n", Waves{2, 14}},
		"a store and a load for all":  {at(0) + "setp.eq.u32 %p1, %r2, 0;\n@%p1 st.shared.f32 [dyn], %f1;\nbar.warp.sync 0xffffffff;\nld.shared.f32 %f2, [%r4];\n", Waves{2, 0}},
		"matrices of rows of 16":      {at(16) + "st.shared.v4.f32 [%r4], {%f1,%f1,%f1,%f1};\nbar.warp.sync 0xffffffff;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5,%r6,%r7,%r8}, [%r4];\n", Waves{8, 0}},
		"two matrices of rows of 128": {at(128) + "st.shared.v4.f32 [%r4], {%f1,%f1,%f1,%f1};\nbar.warp.sync 0xffffffff;\nldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r5,%r6}, [%r4];\n", Waves{6, 42}},
		"by way of a generic address": {"mov.u64 %rd6, dyn;\ncvta.shared.u64 %rd6, %rd6;\nadd.s64 %rd6, %rd6, %rd3;\nst.f32 [%rd6], %f1;\n", Waves{1, 0}},
	} {
		if got := counted(t, module("mov.f32 %f1, 0f00000000;\nmov.u16 %h1, 0;\n"+c.body), 1, 32, 8192, twoBuffers); got.Shared != c.want || got.Read.Bytes+got.Written.Bytes > 0 {
			t.Errorf("%s: %+v, want %+v", name, got.Shared, c.want)
		}
	}
}

// Instructions are counted by warps and by threads, those of both ways of a branch and of no lanes too.
func TestInstructionCounts(t *testing.T) {
	got := counted(t, module(`setp.lt.u32 %p1, %r2, 8;
mov.f32 %f1, 0f3F800000;
@%p1 bra some;
add.f32 %f2, %f1, %f1;
bra.uni end;
some:
fma.rn.f32 %f2, %f1, %f1, %f1;
sqrt.rn.f32 %f3, %f2;
end:
bar.sync 0;
@!%p1 mul.f32 %f4, %f1, %f1;
shfl.sync.bfly.b32 %r3, %r2, 1, 31, 0xffffffff;`), 1, 64, 0, twoBuffers)
	type both struct{ warps, lanes int }
	for class, want := range map[Class]both{
		// module's own: 3 parameters and a move; a wide product and two sums; ret. Warp 0 alone goes both ways.
		Move:     {2*4 + 2, 2*32*4 + 64},
		Integer:  {2*3 + 2, 2*32*3 + 64},
		Float:    {2 + 1 + 2, 56 + 8 + 56}, // add, fma, mul
		Special:  {1, 8},
		Control:  {2 + 2 + 2, 8 + 56 + 64}, // the branch of some, the branch to the end, ret
		Barrier:  {2, 64},
		Exchange: {2, 64},
		Global:   {},
		Shared:   {},
		Copy:     {},
		Matrix:   {},
	} {
		if (both{got.Issued[class], got.Lanes[class]}) != want {
			t.Errorf("%v: %d of warps for %d threads, want %+v", class, got.Issued[class], got.Lanes[class], want)
		}
	}
	if want := 56 + 2*8 + 8 + 56; got.Flops != want || got.Barriers != 2 {
		t.Errorf("%d operations and %d barriers, want %d and 2", got.Flops, got.Barriers, want)
	}
}

// A product of warps: 16 × 8 × 16 multiply-adds.
func TestProductCounts(t *testing.T) {
	got := counted(t, module("mov.b32 %r10, 0;\nmov.f32 %f1, 0f00000000;\n"+
		"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2,%f3,%f4,%f5}, {%r10,%r10,%r10,%r10}, {%r10,%r10}, {%f1,%f1,%f1,%f1};\n"), 3, 64, 0, twoBuffers)
	if want := (Products{Warp: 6, Flops: 6 * 2 * 16 * 8 * 16}); got.Products != want || got.Issued[Matrix] != 6 {
		t.Errorf("%+v, want %+v", got.Products, want)
	}
}

// Two products of a warpgroup, of 64 × 64 × 16: A once a warpgroup, a quarter by each warp, and B once. Laid with rows of 128 bytes
// as if they were not exchanged, eight rows' pieces are in the same four banks.
func TestWarpgroupCounts(t *testing.T) {
	a, b, _ := wgOperands()
	for _, y := range []struct {
		laying
		conflicts int
	}{{laying{0, false}, 0}, {laying{32, false}, 0}, {laying{64, false}, 0}, {laying{128, false}, 0}, {laying{128, true}, 0}} {
		image := make([]byte, wgImage)
		y.lay(image, 0, a)
		y.lay(image, 8192, b)
		trans := map[bool]int{true: 1}[y.across]
		text := wgText(strings.NewReplacer("$A", fmt.Sprint(y.describe(0, 64)), "$B", fmt.Sprint(y.describe(8192, wgColumns)), "$T", fmt.Sprintf("%d, %d", trans, trans)).Replace(wgKernel))
		got := counted(t, text, 1, 128, wgImage, func(r *rig) []uint64 { return []uint64{r.memory(image), r.memory(make([]byte, 128*128)), 0} })
		want := Products{Group: 2, Flops: 2 * 2 * 64 * 64 * 16, Bytes: 2 * (64 + 64) * 32, Operands: Waves{2 * (64 + 64) / 8 * 2, y.conflicts}}
		if got.Products != want || got.Issued[Matrix] != 8 {
			t.Errorf("%v: %+v, want %+v", y.laying, got.Products, want)
		}
		if got.Shared != (Waves{1024/8 + 4*4, 0}) { // the image, 16 bytes a lane, and the 16 bytes that all lanes of a warp read
			t.Errorf("%v: shared memory %+v", y.laying, got.Shared)
		}
		if got.Written.Useful != 128*128 || got.Written.Bytes != 32*32*128 { // a lane's numbers are 128 bytes apart from the next one's
			t.Errorf("%v: writes %+v", y.laying, got.Written)
		}
	}
	// Lines of 16 bytes, 128 apart instead of 16 within eight of them: not a way of wgmma's, so by the counter itself.
	var tl tally
	tl.operand(descriptor{swizzle: 128}, 0, 8)
	if tl.Products.Operands != (Waves{2, 0}) {
		t.Errorf("exchanged pieces: %+v", tl.Products.Operands)
	}
	var at [32]uint64
	for i := range at {
		at[i] = 128 * uint64(i)
	}
	tl.Shared.add(0xff, &at, 16)
	if tl.Shared != (Waves{1, 7}) {
		t.Errorf("pieces that are not exchanged: %+v", tl.Shared)
	}
}

// A tile by its tensor map: a box of 16 rows of 64 bytes, from rows of 80. Rows begin at a sector, and in the middle of one, in turn.
func TestTileCounts(t *testing.T) {
	for at, want := range map[[2]int]Traffic{
		{0, 0}:   {1, 16 * 64, 8*64 + 8*96, 8*64 + 8*96},
		{24, 8}:  {1, 12 * 32, 6*64 + 6*32, 6*64 + 6*32}, // bytes 48 to 80 of rows 8 to 19 are inside
		{99, 99}: {Requests: 1},
	} {
		body := strings.NewReplacer("BYTES", "1024", "XX", fmt.Sprint(at[0]), "YY", fmt.Sprint(at[1])).Replace(makeBarrier + bringTile + waitTile)
		var got Counts
		r := newRig(t, Options{Count: func(c Counts) { got = c }}, tileModule(body))
		m := r.encode(r.tensor(), 0)
		if err := r.launchTiles(64, m, m, r.memory(make([]byte, 16))); err != nil {
			t.Fatal(err)
		}
		if got.Read != want || got.Tiles != (Tiles{1, 1024, 0}) || got.Barriers != 1+2 {
			t.Errorf("the box at %v: %+v, want %+v; %+v, %d barriers", at, got.Read, want, got.Tiles, got.Barriers)
		}
	}
}

// A device that counts nothing calls nobody, and keeps nothing of an instruction.
func TestNoCounts(t *testing.T) {
	r := newRig(t, Options{}, module("st.global.f32 [%rd5], %f1;\n"))
	if err := r.launch(1, 32, 0, twoBuffers(r)...); err != nil {
		t.Fatal(err)
	}
	k := r.functions[0].kernel
	if b := r.assemble(k, [3]int{1, 1, 1}, [3]int{1, 1, 1}, [3]int{32, 1, 1}, 0, nil).blocks[0]; b.tally != nil {
		t.Error("it counts")
	}
}

// What a surveying device counts is what another one does: of a kernel with tiles, products and barriers whole, and of a part
// of the blocks.
func TestSurvey(t *testing.T) {
	y := laying{128, false}
	image := make([]byte, wgImage)
	text := wgText(strings.NewReplacer("$A", fmt.Sprint(y.describe(0, 64)), "$B", fmt.Sprint(y.describe(8192, wgColumns)), "$T", "0, 0").Replace(wgKernel))
	for _, blocks := range []int{1, 8} {
		var both [2]Counts
		for i, survey := range []bool{false, true} {
			r := newRig(t, Options{Survey: survey, Count: func(c Counts) { both[i] = c }}, strings.Replace(text, "mov.u32 %r3, dyn;", "mov.u32 %r3, %ctaid.x;\nshl.b32 %r3, %r3, 14;\ncvt.u64.u32 %rd6, %r3;\nadd.s64 %rd2, %rd2, %rd6;\nmov.u32 %r3, dyn;", 1))
			r.Survey(4)
			if err := r.launch(blocks, 128, wgImage, r.memory(image), r.memory(make([]byte, blocks*128*128)), 0); err != nil {
				t.Fatal(err)
			}
		}
		full, part := both[0], both[1]
		if full.Blocks != blocks || part.Blocks != min(blocks, 4) {
			t.Fatalf("%d and %d blocks of %d", full.Blocks, part.Blocks, blocks)
		}
		n := blocks / part.Blocks
		for class := range Classes {
			part.Issued[class] *= n
			part.Lanes[class] *= n
		}
		part.Flops, part.Barriers, part.Blocks = n*part.Flops, n*part.Barriers, n*part.Blocks
		part.Shared = Waves{n * part.Shared.Least, n * part.Shared.Conflicts}
		part.Read.Requests, part.Read.Useful, part.Read.Bytes = n*part.Read.Requests, n*part.Read.Useful, n*part.Read.Bytes
		part.Written = Traffic{n * part.Written.Requests, n * part.Written.Useful, n * part.Written.Bytes, n * part.Written.Distinct}
		p := &part.Products
		p.Group, p.Flops, p.Bytes, p.Operands = n*p.Group, n*p.Flops, n*p.Bytes, Waves{n * p.Operands.Least, n * p.Operands.Conflicts}
		if part != full {
			t.Errorf("of %d blocks:\n%+v, want\n%+v", blocks, part, full)
		}
	}
}
