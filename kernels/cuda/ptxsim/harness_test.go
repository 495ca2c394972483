package ptxsim

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

const registersText = `
	.reg .pred %p<10>;
	.reg .b16 %h<20>;
	.reg .b32 %r<60>;
	.reg .f32 %f<20>;
	.reg .b64 %rd<30>;
	.reg .f64 %d<10>;
`

// module is one kernel k of such a body, with pointer parameters a and b and a number n.
func module(body string) string {
	return ".version 8.4\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 dyn[];\n" +
		".visible .entry k(.param .u64 a, .param .u64 b, .param .u32 n)\n{" + registersText +
		"ld.param.u64 %rd1, [a];\nld.param.u64 %rd2, [b];\nld.param.u32 %r1, [n];\nmov.u32 %r2, %tid.x;\n" +
		"mul.wide.u32 %rd3, %r2, 4;\nadd.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n" + body + "\nret;\n}\n"
}

// A rig is a device with kernel k of a module.
type rig struct {
	t *testing.T
	*Device
	k driver.Function
}

func newRig(t *testing.T, o Options, text string) *rig {
	t.Helper()
	d := New(o)
	m, err := d.Load([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	k, err := d.Function(m, "k")
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, d, k}
}

// memory is an allocation that holds b.
func (r *rig) memory(b []byte) uint64 {
	r.t.Helper()
	at, err := r.Alloc(len(b))
	if err == nil {
		err = r.Upload(at, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return at
}

func (r *rig) read(at uint64, n int) []byte {
	r.t.Helper()
	b := make([]byte, n)
	if err := r.Download(b, at); err != nil {
		r.t.Fatal(err)
	}
	return b
}

// launch runs k by blocks of threads with dynamic shared memory.
func (r *rig) launch(blocks, threads, dynamic int, args ...uint64) error {
	return r.Launch(r.k, driver.Launch{Grid: driver.Dim{X: blocks, Y: 1, Z: 1}, Block: driver.Dim{X: threads, Y: 1, Z: 1}, Shared: dynamic},
		new(driver.Args).Add(args...))
}

// A run of one instruction: operands of types in, %0 the result of type out and %1 … the operands.
type single struct {
	text string
	out  string
	in   []string
}

func bankName(t scalar, i int) string {
	switch {
	case t.bits == 64 && t.kind == 'f':
		return fmt.Sprintf("%%d%d", i)
	case t.bits == 64:
		return fmt.Sprintf("%%rd%d", 10+i)
	case t.bits == 1:
		return fmt.Sprintf("%%p%d", i)
	case t.name == "f32":
		return fmt.Sprintf("%%f%d", i)
	case t.bits <= 16:
		return fmt.Sprintf("%%h%d", i)
	}
	return fmt.Sprintf("%%r%d", 10+i)
}

// play runs the instruction on rows of operands, each in the low bits of a word, and gives the results so.
func (s single) play(t *testing.T, rows [][]uint64) []uint64 {
	t.Helper()
	n, text := len(s.in), s.text
	var body strings.Builder
	fmt.Fprintf(&body, "setp.ge.u32 %%p9, %%r2, %%r1;\n@%%p9 bra end;\nmul.wide.u32 %%rd6, %%r2, %d;\nadd.s64 %%rd6, %%rd1, %%rd6;\nmul.wide.u32 %%rd7, %%r2, 8;\nadd.s64 %%rd7, %%rd2, %%rd7;\n", 8*n)
	for i := n; i >= 1; i-- {
		name := scalars[s.in[i-1]]
		reg := bankName(name, i)
		text = strings.ReplaceAll(text, fmt.Sprintf("$%d", i), reg)
		if name.bits == 1 {
			fmt.Fprintf(&body, "ld.global.b32 %%r50, [%%rd6+%d];\nsetp.ne.s32 %s, %%r50, 0;\n", 8*(i-1), reg)
		} else {
			fmt.Fprintf(&body, "ld.global.b%d %s, [%%rd6+%d];\n", max(name.bits, 8), reg, 8*(i-1))
		}
	}
	out := scalars[s.out]
	reg := bankName(out, 0)
	body.WriteString(strings.ReplaceAll(text, "$0", reg) + ";\n")
	switch {
	case out.bits == 1:
		fmt.Fprintf(&body, "selp.b32 %%r51, 1, 0, %s;\nst.global.b32 [%%rd7], %%r51;\n", reg)
	case out.bits == 8:
		fmt.Fprintf(&body, "st.global.b16 [%%rd7], %s;\n", reg)
	default:
		fmt.Fprintf(&body, "st.global.b%d [%%rd7], %s;\n", out.bits, reg)
	}
	body.WriteString("end:")
	r := newRig(t, Options{}, module(body.String()))
	var raw []byte
	for _, row := range rows {
		for _, v := range row {
			raw = binary.LittleEndian.AppendUint64(raw, v)
		}
	}
	a, b := r.memory(raw), r.memory(make([]byte, 8*len(rows)))
	results := make([]uint64, len(rows))
	for from := 0; from < len(rows); from += 1024 {
		k := min(1024, len(rows)-from)
		if err := r.launch(1, (k+31)/32*32, 0, a+uint64(8*n*from), b+uint64(8*from), uint64(k)); err != nil {
			t.Fatalf("%s: %v", s.text, err)
		}
	}
	for i, raw := 0, r.read(b, 8*len(rows)); i < len(rows); i++ {
		results[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	return results
}
