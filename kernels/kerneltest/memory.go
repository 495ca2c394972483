package kerneltest

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	k "github.com/r2-reasoner/r2/kernels"
)

var memoryChecks = []check{
	{"New/zeros", newZeros},
	{"Write and Read/bits", writeRead},
	{"Copy/integers", copyInts},
	{"Load/all 16-bit values", loadAll},
	{"Sync/twice", func(t *testing.T, be k.Backend, _ source) {
		for range 2 {
			if err := be.Sync(); err != nil {
				t.Fatalf("sync without a failure: %v", err)
			}
		}
	}},
	{"shapes that do not fit", misfits},
	{"Attach/waits", attachWaits},
}

func newZeros(t *testing.T, be k.Backend, g source) {
	for _, typ := range []k.DType{k.F32, k.I32} {
		for range 3 { // memory that was written and freed before, too
			x := be.New(typ, 9, 31)
			if x.Rows != 9 || x.Cols != 31 || x.Stride < 31 || x.Type != typ || x.Zero() || x.Buf.Size() < 9*31*4 {
				t.Fatalf("New(%v, 9, 31) is %+v", typ, x)
			}
			at := placed{whole: x, view: x}
			equalBits(t, at.read(t, be), filled(typ, 9, 31, 0), "a new %v tensor and zeros", typ)
			be.Write(x, filled(typ, 9, 31, poison).bytes())
			be.Free(x)
		}
	}
}

func writeRead(t *testing.T, be k.Backend, g source) {
	for range 6 {
		m := g.floats(1+g.IntN(9), 1+g.IntN(40), 1)
		for i, v := range []uint32{0, 1 << 31, 1, 0x7f800000, 0xff800000, 0x7f7fffff} { // zeros, subnormal, infinities, largest
			m.bits[i%len(m.bits)] = v
		}
		x := place(be, g, m)
		equalBits(t, x.read(t, be), m, "f32 read and written")
		n := filled(k.I32, m.rows, m.cols, 0)
		for i, v := range []uint32{1<<31 - 1, 1 << 31, 1<<32 - 1, 0x7fc00001} {
			n.bits[i%len(n.bits)] = v
		}
		y := place(be, g, n)
		equalBits(t, y.read(t, be), n, "i32 read and written")
		raw := make([]byte, len(m.bytes()))
		if err := be.Read(raw, x.view); err != nil || string(raw) != string(m.bytes()) {
			t.Fatalf("reading a view gave other bytes than its rows end to end (%v)", err)
		}
		over := g.floats(m.rows, m.cols, 1)
		be.Write(x.view, over.bytes())
		equalBits(t, x.read(t, be), over, "a view read and written")
		be.Free(x.whole)
		be.Free(y.whole)
	}
}

func copyInts(t *testing.T, be k.Backend, g source) {
	m := filled(k.I32, 7, 13, 0)
	for i := range m.bits {
		m.bits[i] = g.Uint32()
	}
	src, dst := place(be, g, m), place(be, g, filled(k.I32, 7, 13, poison))
	be.Copy(dst.view, src.view)
	equalBits(t, dst.read(t, be), m, "a copy and its source")
}

// loadAll: each of the 65,536 values is decoded exactly, in the row and column where it belongs.
func loadAll(t *testing.T, be k.Backend, g source) {
	for _, typ := range []k.DType{k.BF16, k.F16} {
		var raw []byte
		for v := range 1 << 16 {
			raw = binary.LittleEndian.AppendUint16(raw, uint16(v))
		}
		p := &problem{rows: 256, weights: []weight{{k.Format{Type: typ}, 256, 256, [][]byte{raw[:5*512], raw[5*512:]}}}}
		ids := g.Perm(256)
		out, at := p.out(byRow, 256, 256, 0), p.in(byRow, intsOf(ids...))
		p.call = func(be k.Backend, t []k.Tensor, w []k.Weight) { be.Embed(t[out], w[0], t[at]) }
		got := p.run(t, be, g)[out]
		for i, id := range ids {
			for j := range 256 {
				bits := 256*id + j
				have, want := got.value(256*i+j), half(typ, uint32(bits))
				if math.Float64bits(have) != math.Float64bits(want) && !(math.IsNaN(have) && math.IsNaN(want)) {
					t.Fatalf("%v %#04x is %v, want %v", typ, bits, have, want)
				}
			}
		}
	}
}

// half is the value of 16 bits, by the definition of the format.
func half(typ k.DType, bits uint32) float64 {
	mantissa, bias := 10, 15
	if typ == k.BF16 {
		mantissa, bias = 7, 127
	}
	sign, exponent, fraction := 1-2*float64(bits>>15), int(bits&0x7fff)>>mantissa, float64(bits&(1<<mantissa-1))
	switch {
	case exponent == 0:
		return math.Copysign(math.Ldexp(fraction, 1-bias-mantissa), sign)
	case exponent < 2*bias+1:
		return sign * math.Ldexp(fraction+math.Ldexp(1, mantissa), exponent-bias-mantissa)
	case fraction == 0:
		return math.Inf(int(sign))
	}
	return math.NaN()
}

// misfits: shapes that do not fit are bugs, and panic with the operation.
func misfits(t *testing.T, be k.Backend, g source) {
	f := func(rows, cols int) k.Tensor { return be.New(k.F32, rows, cols) }
	ids, none := func(n int) k.Tensor { return be.New(k.I32, n, 1) }, k.Tensor{}
	w := be.Load(k.Format{Type: k.F32}, 3, 4, make([]byte, 48))
	gemm := k.Gemm{Alpha: 1}
	attn := k.Attn{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1, Starts: be.New(k.I32, 2, 1), Lengths: ids(1), MaxQueries: 1}
	for _, c := range []struct {
		op   string
		call func()
	}{
		{"Write", func() { be.Write(f(2, 3), make([]byte, 23)) }},
		{"Read", func() { _ = be.Read(make([]byte, 25), f(2, 3)) }},
		{"Load", func() { be.Load(k.Format{Type: k.F32}, 3, 4, make([]byte, 44)) }},
		{"Copy", func() { be.Copy(f(2, 3), f(3, 2)) }},
		{"Embed", func() { be.Embed(f(2, 5), w, ids(2)) }},
		{"Embed", func() { be.Embed(f(2, 4), w, ids(3)) }},
		{"RMSNorm", func() { be.RMSNorm(f(2, 6), f(2, 6), f(1, 4), 0) }},
		{"Linear", func() { be.Linear(f(2, 3), f(2, 5), w, none) }},
		{"Linear", func() { be.Linear(f(2, 4), f(2, 4), w, none) }},
		{"Linear", func() { be.Linear(f(2, 3), f(1, 4), w, none) }},
		{"Linear", func() { be.Linear(f(2, 3), f(2, 4), w, f(1, 4)) }},
		{"MatMul", func() { be.MatMul(f(2, 5), f(2, 3), f(4, 5), gemm) }},
		{"MatMul", func() { be.MatMul(f(2, 5), f(2, 3), f(3, 5), k.Gemm{Alpha: 1, TransB: true}) }},
		{"MatMul", func() { be.MatMul(f(2, 5), f(2, 3), f(3, 5), k.Gemm{Alpha: 2, Accumulate: true}) }},
		{"MatMul", func() { be.MatMul(f(2, 5), f(2, 3), f(3, 5), k.Gemm{Alpha: 1, Accumulate: true, Bias: f(1, 5)}) }},
		{"RoPE", func() { be.RoPE(f(2, 6), ids(2), k.Rotary{HeadDim: 4, Table: f(1, 4)}) }},
		{"RoPE", func() { be.RoPE(f(2, 8), ids(2), k.Rotary{HeadDim: 4, Table: f(1, 6)}) }},
		{"Attention", func() { be.Attention(f(1, 8), none, f(1, 8), f(1, 8), f(1, 4), attn) }},
		{"Attention", func() { be.Attention(f(1, 8), f(1, 1), f(1, 8), f(1, 4), f(1, 4), attn) }},
		{"SwiGLU", func() { be.SwiGLU(f(2, 3), f(2, 3), f(2, 4)) }},
		{"Add", func() { be.Add(f(2, 3), f(2, 3), f(3, 3)) }},
		{"Gather", func() { be.Gather(f(2, 3), f(5, 3), ids(3)) }},
		{"Scatter", func() { be.Scatter(f(2, 3), f(5, 4), ids(5)) }},
		{"LogProb", func() { be.LogProb(f(2, 1), f(2, 1), f(2, 9), ids(3), k.Dist{}) }},
		{"LogProb", func() { be.LogProb(f(2, 1), f(2, 1), f(2, 33), ids(2), k.Dist{Mask: be.New(k.I32, 2, 1)}) }},
		{"Entropy", func() { be.Entropy(f(2, 1), f(2, 9), f(3, 1), k.Dist{}) }},
		{"Sample", func() { be.Sample(ids(2), f(2, 1), f(2, 9), f(3, 1), k.Dist{}) }},
		{"RMSNormGrad", func() { be.RMSNormGrad(f(2, 6), none, f(2, 6), f(2, 6), f(1, 4), 0) }},
		{"LinearGrad", func() { be.LinearGrad(f(2, 3), f(2, 4), w) }},
		{"AttentionGrad", func() {
			be.AttentionGrad(f(1, 8), f(1, 8), f(1, 4), f(1, 8), f(1, 8), f(1, 2), f(1, 8), f(1, 4), f(1, 4), attn)
		}},
		{"SwiGLUGrad", func() { be.SwiGLUGrad(f(2, 3), f(2, 3), f(2, 3), f(2, 3), f(2, 4)) }},
		{"LogProbGrad", func() { be.LogProbGrad(f(2, 8), f(2, 9), f(2, 1), ids(2), f(2, 1), k.Dist{}) }},
		{"SumRows", func() { be.SumRows(f(1, 4), f(2, 5)) }},
		{"ScatterAdd", func() { be.ScatterAdd(f(2, 3), f(5, 4), ids(5)) }},
		{"SumSquares", func() { be.SumSquares(f(1, 2), f(5, 4)) }},
		{"AdamW", func() { be.AdamW(f(2, 3), f(2, 3), f(2, 3), f(3, 2), k.Adam{Step: 1}) }},
	} {
		if said := panics(c.call); !strings.Contains(said, c.op) {
			t.Errorf("%s with operands that do not fit: panic %q; want one that names %s", c.op, said, c.op)
		}
	}
	if err := be.Sync(); err != nil {
		t.Errorf("after the panics: %v", err)
	}
}

// panics is what f panics with.
func panics(f func()) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

// attachWaits: while one goroutine has the device, another waits for it.
func attachWaits(t *testing.T, be k.Backend, _ source) {
	got := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := be.Attach()
		if err == nil {
			be.Detach()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("a second goroutine attached while the first had the device (%v)", err)
	case <-time.After(20 * time.Millisecond):
		be.Detach()
		if err := <-got; err != nil {
			t.Errorf("the second goroutine: %v", err)
		}
		if err := be.Attach(); err != nil {
			t.Fatalf("attach again: %v", err)
		}
	}
}
