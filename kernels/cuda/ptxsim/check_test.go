package ptxsim

import (
	"strconv"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// own is where a thread has a word of dynamic shared memory, in %r5; %r6 is the word of the thread 32 on, %r7 that of the
// other lane of a pair.
const own = `shl.b32 %r5, %r2, 2;
mov.u32 %r8, dyn;
add.s32 %r5, %r5, %r8;
xor.b32 %r6, %r5, 128;
xor.b32 %r7, %r5, 4;
`

const (
	storeOwn  = "st.shared.u32 [%r5], %r2;\n"
	loadNext  = "ld.shared.u32 %r9, [%r6];\n"
	loadPair  = "ld.shared.u32 %r9, [%r7];\n"
	copyOwn   = "cp.async.ca.shared.global [%r5], [%rd4], 4;\ncp.async.commit_group;\n"
	waitAll   = "cp.async.wait_all;\n"
	blockSync = "bar.sync 0;\n"
	warpSync  = "bar.warp.sync 0xffffffff;\n"
	shuffleIt = "shfl.sync.bfly.b32 %r10, %r2, 1, 31, 0xffffffff;\n"
)

// Kernels of two warps, and what is found in them: "" for nothing, else a part of the message. Every order of
// warps finds the same.
func TestChecks(t *testing.T) {
	const mma = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r2,%r2,%r2,%r2}, {%r2,%r2}, {%f5,%f6,%f7,%f8};\n"
	const ofAWarp = "setp.lt.u32 %p1, %r2, 32;\n" // which %p1 is true for
	for _, c := range []struct{ name, body, want string }{
		{"through a barrier", own + storeOwn + blockSync + loadNext, ""},
		{"without one", own + storeOwn + loadNext, "nothing has been written to|a race"},
		{"a warp's barrier is not a block's", own + storeOwn + warpSync + loadNext, "nothing has been written to|a race"},
		{"within a warp", own + storeOwn + warpSync + loadPair, ""},
		{"a shuffle orders nothing", own + storeOwn + shuffleIt + loadPair, "a race: reads shared memory at"},
		{"a vote orders nothing", own + storeOwn + "vote.sync.ballot.b32 %r10, %p1, 0xffffffff;\n" + loadPair, "a race"},
		{"a matrix instruction orders nothing", own + storeOwn + mma + loadPair, "a race"},
		{"ldmatrix orders nothing", own + storeOwn + "bar.sync 0;\nst.shared.u32 [%r5], %r2;\n" +
			"and.b32 %r10, %r2, 7;\nshl.b32 %r10, %r10, 4;\nadd.s32 %r10, %r10, %r8;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r11}, [%r10];\n", "a race"},
		{"write after read", own + storeOwn + blockSync + loadNext + "st.shared.u32 [%r5], 1;\n", "a race: writes shared memory at|a race: reads shared memory at"},
		{"write after ordered read", own + storeOwn + blockSync + loadNext + blockSync + "st.shared.u32 [%r5], 1;\n", ""},
		{"all write one word", own + "st.shared.u32 [%r8], 1;\n", "a race: writes"},
		{"halves of a word", "shl.b32 %r5, %r2, 1;\nmov.u32 %r8, dyn;\nadd.s32 %r5, %r5, %r8;\nst.shared.u16 [%r5], 1;\n", ""},
		{"uninitialised", own + "ld.shared.u32 %r9, [%r5];\n", "nothing has been written to"},
		{"a copy that is waited for", own + copyOwn + waitAll + "ld.shared.u32 %r9, [%r5];\n", ""},
		{"a copy that is not", own + copyOwn + "ld.shared.u32 %r9, [%r5];\n", "has not been waited for"},
		{"a part of what there is to copy", own + "setp.eq.u32 %p1, %r2, 60;\n@%p1 cp.async.ca.shared.global [dyn], [%rd4], 16, 16;\n", ""},
		{"more than there is to copy", own + "setp.eq.u32 %p1, %r2, 60;\n@%p1 cp.async.ca.shared.global [dyn], [%rd4+16], 16, 4;\n", "4 bytes at offset 256"},
		{"zeros alone", own + "setp.eq.u32 %p1, %r2, 60;\n@%p1 cp.async.ca.shared.global [dyn], [%rd4+16], 16, 0;\n", ""},
		{"one group too many", own + copyOwn + "cp.async.wait_group 1;\nld.shared.u32 %r9, [%r5];\n", "has not been waited for"},
		{"another thread's copy", own + copyOwn + waitAll + loadNext, "nothing has been written to|a race|has not been waited for"},
		{"another thread's, with a barrier", own + copyOwn + waitAll + blockSync + loadNext, ""},
		{"a barrier before the wait", own + copyOwn + blockSync + waitAll + loadNext, "a race|has not been waited for"},
		{"named barriers of one warp each", own + ofAWarp + storeOwn + "@%p1 bra first;\nbar.sync 2, 32;\nbra on;\nfirst:\nbar.sync 1, 32;\non:\n" + loadPair, ""},
		{"arrive and sync", own + ofAWarp + "@!%p1 bra second;\n" + storeOwn + "bar.arrive 3, 64;\nbra on;\nsecond:\nbar.sync 3, 64;\n" + loadNext + "on:\n", ""},
		{"the one that arrives knows nothing", own + ofAWarp + "@!%p1 bra second;\nbar.arrive 3, 64;\nbar.warp.sync 0xffffffff;\n" + loadNext +
			"bra on;\nsecond:\n" + storeOwn + "bar.sync 3, 64;\non:\n", "nothing has been written to|a race"},
		{"too few come", ofAWarp + "@%p1 bar.sync 4, 64;\n", "no warp can go on"},
		{"one that has ended is not waited for", ofAWarp + "@%p1 ret;\nbar.sync 0;\n", ""},
		{"half a warp at a barrier", "setp.lt.u32 %p1, %r2, 7;\n@%p1 bar.sync 0;\n", "a barrier in divergent code"},
		{"a shuffle that lanes pass by", "setp.lt.u32 %p1, %r2, 7;\n@%p1 shfl.sync.bfly.b32 %r10, %r2, 1, 31, 0xffffffff;\n", "pass it by"},
		{"global: own words", "st.global.u32 [%rd5], 1;\nld.global.u32 %r9, [%rd5];\n", ""},
		{"global: another's word", "st.global.u32 [%rd5], 1;\nxor.b32 %r5, %r2, 32;\nmul.wide.u32 %rd6, %r5, 4;\nadd.s64 %rd6, %rd2, %rd6;\nld.global.u32 %r9, [%rd6];\n",
			"a race: writes global|a race: reads global"},
		{"global: with a barrier", "st.global.u32 [%rd5], 1;\nbar.sync 0;\nxor.b32 %r5, %r2, 32;\nmul.wide.u32 %rd6, %r5, 4;\nadd.s64 %rd6, %rd2, %rd6;\nld.global.u32 %r9, [%rd6];\n", ""},
		{"global: atomic", "red.global.add.u32 [%rd2], 1;\n", ""},
		{"global: atomic and plain", "red.global.add.u32 [%rd2], 1;\nld.global.u32 %r9, [%rd2];\n", "a race"},
		{"global: atomic and relaxed", "red.global.add.u32 [%rd2], 1;\nld.relaxed.gpu.global.u32 %r9, [%rd2];\n", ""},
		{"past the end", "st.global.u32 [%rd5+4], 1;\n", "4 bytes at offset 256 of an allocation of 256"},
		{"before the beginning", "st.global.u32 [%rd5+-4], 1;\n", "where nothing is|of an allocation"},
		{"misaligned", "ld.global.u32 %r9, [%rd4+2];\n", "no multiple of 4"},
		{"past the end of shared memory", own + "st.shared.u32 [%r5+4], 1;\n", "4 bytes at offset 256 of shared memory of 256"},
		{"a generic address of shared memory", own + "cvt.u64.u32 %rd6, %r5;\ncvta.shared.u64 %rd6, %rd6;\nst.u32 [%rd6], 1;\nld.shared.u32 %r9, [%r5];\n", ""},
		{"never ends", "on:\nbra on;\n", "has not ended"},
		{"a trap", "trap;\n", "trap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, order := range Orders {
				r := newRig(t, Options{Order: order}, module(c.body))
				r.mostSteps = 10000
				err := r.launch(1, 64, 256, r.memory(make([]byte, 256)), r.memory(make([]byte, 256)), 0)
				switch {
				case c.want == "" && err != nil:
					t.Errorf("%v: %v", order, err)
				case c.want == "":
				case err == nil:
					t.Errorf("%v: not found", order)
				default:
					found := false
					for _, part := range strings.Split(c.want, "|") {
						found = found || strings.Contains(err.Error(), part)
					}
					if !found || !driver.Fatal(err) || !strings.Contains(err.Error(), "kernel k, line ") {
						t.Errorf("%v: %v", order, err)
					}
				}
			}
		})
	}
}

// Blocks of a launch are not ordered, launches are.
func TestBlocks(t *testing.T) {
	for body, want := range map[string]string{
		"st.global.u32 [%rd5], 1;\n":      "block 0 of the launch writes|block 1 of the launch writes",
		"ld.global.u32 %r9, [%rd5];\n":    "",
		"red.global.max.u32 [%rd2], 1;\n": "",
		"mov.u32 %r5, %ctaid.x;\nsetp.eq.u32 %p1, %r5, 0;\n@%p1 st.global.u32 [%rd5], 1;\n@!%p1 ld.global.u32 %r9, [%rd5];\n": "block",
		"mov.u32 %r5, %ctaid.x;\nmul.wide.u32 %rd6, %r5, 128;\nadd.s64 %rd5, %rd5, %rd6;\nst.global.u32 [%rd5], 1;\n":         "",
	} {
		for _, order := range Orders {
			r := newRig(t, Options{Order: order}, module(body))
			a, b := r.memory(make([]byte, 256)), r.memory(make([]byte, 256))
			var err error
			for range 2 {
				if err == nil {
					err = r.launch(2, 32, 0, a, b, 0)
				}
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), strings.Split(want, "|")[0]) && !strings.Contains(err.Error(), want[strings.Index(want, "|")+1:]) {
				t.Errorf("%s%v: %v, want %q", body, order, err, want)
			}
		}
	}
}

// A launch that may begin before the last has ended waits before it uses what that wrote.
func TestEarly(t *testing.T) {
	for body, want := range map[string]string{
		"st.global.u32 [%rd5], 1;\n":                       "griddepcontrol.wait has not",
		"ld.global.u32 %r3, [%rd4];\n":                     "",
		"griddepcontrol.wait;\nst.global.u32 [%rd5], 1;\n": "",
	} {
		r := newRig(t, Options{}, module(body))
		one := driver.Dim{X: 1, Y: 1, Z: 1}
		l, args := driver.Launch{Grid: one, Block: one}, new(driver.Args).Add(r.memory(make([]byte, 4)), r.memory(make([]byte, 4)), 0)
		if err := r.Launch(r.k, l, args); err != nil {
			t.Fatal(err)
		}
		l.Early = true
		if err := r.Launch(r.k, l, args); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s%v, want %q", body, err, want)
		}
	}
}

// Launches that cannot be are refused before they run, and the device goes on.
func TestLaunches(t *testing.T) {
	text := strings.Replace(module(".shared .align 4 .b8 some[1000];\n"), ".param .u32 n)\n", ".param .u32 n)\n.maxntid 128, 1, 1\n", 1)
	r := newRig(t, Options{}, text)
	one := driver.Dim{X: 1, Y: 1, Z: 1}
	good := func() (driver.Launch, *driver.Args) {
		return driver.Launch{Grid: one, Block: one}, new(driver.Args).Add(1<<36, 1<<36, 7)
	}
	if l, a := good(); r.Launch(r.k, l, a) != nil {
		t.Fatal("the launch that is to be spoilt fails")
	}
	for want, spoil := range map[string]func(l *driver.Launch, a *driver.Args){
		"3 parameters, and is given 2":            func(l *driver.Launch, a *driver.Args) { a.Reset(); a.Add(1, 2) },
		"argument 2 is 0x123456789":               func(l *driver.Launch, a *driver.Args) { a.Words[2] = 0x123456789 },
		"argument 0 is 128 bytes":                 func(l *driver.Launch, a *driver.Args) { a.Reset(); a.AddMap(&driver.TensorMap{}).Add(1, 2) },
		"a grid of 0":                             func(l *driver.Launch, a *driver.Args) { l.Grid.X = 0 },
		"a grid of 1 × 65536":                     func(l *driver.Launch, a *driver.Args) { l.Grid.Y = 65536 },
		"at most 1024 threads":                    func(l *driver.Launch, a *driver.Args) { l.Block.X = 1025 },
		"for at most 128":                         func(l *driver.Launch, a *driver.Args) { l.Block.X = 160 },
		"it has been allowed 49152":               func(l *driver.Launch, a *driver.Args) { l.Shared = 49153 },
		"which clusters of [2 1 1] do not divide": func(l *driver.Launch, a *driver.Args) { l.Cluster = driver.Dim{X: 2, Y: 1, Z: 1} },
	} {
		l, a := good()
		spoil(&l, a)
		if err := r.Launch(r.k, l, a); err == nil || !strings.Contains(err.Error(), want) || driver.Fatal(err) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if err := r.SetFunctionAttribute(r.k, driver.MaxDynamicShared, 227<<10); err == nil || !strings.Contains(err.Error(), "1000 of other") {
		t.Errorf("more shared memory than there is: %v", err)
	}
	if l, a := good(); r.Launch(r.k, l, a) != nil {
		t.Error("afterwards a good launch fails")
	}
}

// Code that is not understood is refused with the line, when it is loaded.
func TestBadCode(t *testing.T) {
	for body, want := range map[string]string{
		"nonsense.b32 %r3, %r2;":                            "nonsense.b32 is not simulated",
		"add.f32.b32 %r3, %r2, %r2;":                        ".f32 is not simulated",
		"add.sat.s32 %r3, %r2, %r2;":                        ".sat is not simulated",
		"add.s32 %r3, %r2;":                                 "operand 3 is missing",
		"add.s32 %r3, %r2, %r2, %r2;":                       "4 operands",
		"add.s64 %r3, %rd1, %rd1;":                          "no register of 64 bits",
		"add.s32 %r3, %rd1, %r2;":                           "no value of up to 32 bits",
		"add.s32 %r3, %r99, %r2;":                           "no register %r99",
		"bra nowhere;":                                      "no label nowhere",
		"@%r2 bra nowhere;":                                 "no predicate",
		"ld.param.u32 %r3, [a+20];":                         "outside the parameters",
		"st.local.u32 [%rd1], %r2;":                         ".local is not simulated",
		".shared .b8 x[99999999999];":                       "size of",
		".local .b8 depot[8];":                              ".local",
		"cp.async.cg.shared.global [dyn], [%rd1], 8;":       "8 bytes",
		"add.rn.ftz.f32 %f1, %f1, %f1;":                     ".ftz is not simulated",
		"mov.u32 %r3, %clock;":                              "no register %clock",
		"{ .reg .b32 %q; mov.u32 %q, 1; } mov.u32 %r3, %q;": "no register %q",
	} {
		text := module(body)
		_, err := New(Options{}).Load([]byte(text))
		line := 1 + strings.Count(text[:strings.Index(text, body)], "\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line "+strconv.Itoa(line)+":") {
			t.Errorf("%s: %v, want line %d: %s", body, err, line, want)
		}
	}
	good := module("")
	for text, want := range map[string]string{
		"":                 "no .target",
		"\x7fELF":          "cubin",
		good[:len(good)-3]: "brace is missing",
		strings.Replace(good, "sm_80", "sm_100a", 1):              "simulated sm_90",
		strings.Replace(good, "ret;", "", 1):                      "no end",
		strings.Replace(good, ".param .u32 n", ".param .u3 n", 1): "parameter",
		"\n\n.func f() { ret; }":                                  "line 3",
	} {
		if _, err := New(Options{}).Load([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// Whatever the text, loading and running it ends, with or without an error.
func FuzzRun(f *testing.F) {
	f.Add(module(own + storeOwn + blockSync + loadNext))
	f.Add(module("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r2,%r2,%r2,%r2}, {%r2,%r2}, {%f5,%f6,%f7,%f8};"))
	f.Add(module("{ .reg .pred q; setp.eq.s32 q, %r1, 0; @!q bra on; }\non: ld.global.v2.u32 {%r3, %r4}, [%rd1+-8]; lop3.b32 %r3, %r3, %r4, %r1, 5;"))
	f.Add(strings.Replace(module(wgKernel), "sm_80", "sm_90a", 1))
	f.Add(tileModule(makeBarrier + bringTile + waitTile + copyTile))
	f.Fuzz(func(t *testing.T, text string) {
		d := New(Options{})
		m, err := d.Load([]byte(text))
		if err != nil {
			return
		}
		f, err := d.Function(m, "k")
		if err != nil {
			return
		}
		d.mostSteps = 1000
		r := &rig{t, d, f}
		_ = r.launch(1, 64, 256, r.memory(make([]byte, 256)), r.memory(make([]byte, 256)), 0)
	})
}

// Memory knows what it was given and what was taken back.
func TestMemory(t *testing.T) {
	d := New(Options{})
	at, err := d.Alloc(10)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if err := d.Download(b, at); err != nil || b[0] != 0xff || b[9] != 0xff {
		t.Errorf("fresh memory holds %x (%v)", b, err)
	}
	for what, err := range map[string]error{
		"offset 1 of an allocation of 10": d.Upload(at+1, b),
		"where nothing is":                d.Set(77, 0, 1),
		"is not where an allocation":      d.Free(at + 1),
		"not pinned":                      d.Unpin(b),
		"0 bytes":                         func() error { _, err := d.Alloc(0); return err }(),
		"are free":                        func() error { _, err := d.Alloc(1 << 40); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
	if err := d.Free(at); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{d.Free(at), d.Upload(at, b)} {
		if err == nil || !strings.Contains(err.Error(), "has been freed") {
			t.Errorf("of freed memory: %v", err)
		}
	}
}
