package weights

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	half "github.com/x448/float16"
)

func TestFloat16AllValues(t *testing.T) {
	for h := range 1 << 16 {
		want := math.Float32bits(half.Frombits(uint16(h)).Float32())
		if got := math.Float32bits(float16(uint16(h))); got != want {
			t.Fatalf("%04x decodes to %08x, want %08x", h, got, want)
		}
	}
}

// Every half, every midpoint between two, and their neighbours: all places where rounding turns.
func TestFloat16Bits(t *testing.T) {
	check := func(f float32) {
		t.Helper()
		want := half.Fromfloat32(f).Bits()
		if got := float16Bits(f); got != want {
			t.Fatalf("%x (%08x) encodes to %04x, want %04x", f, math.Float32bits(f), got, want)
		}
	}
	for h := range 1 << 16 {
		a, b := float16(uint16(h)), float16(uint16(h+1))
		check(a)
		if mid := (a + b) / 2; mid == mid {
			check(mid)
			check(math.Nextafter32(mid, a))
			check(math.Nextafter32(mid, b))
		}
	}
	for range 1 << 20 {
		check(math.Float32frombits(rand.Uint32()))
	}
	for _, f := range []float32{65504, 65519.996, 65520, 1e30, 0x1p-25, 0x1.000002p-25, 0x1p-24, 0x1p-149} {
		check(f)
		check(-f)
	}
}

func TestBfloat16(t *testing.T) {
	for h := range 1 << 16 {
		f := bfloat16(uint16(h))
		if math.Float32bits(f) != uint32(h)<<16 {
			t.Fatalf("%04x decodes to %x", h, f)
		}
		if f == f && bfloat16Bits(f) != uint16(h) {
			t.Fatalf("%04x does not come back", h)
		}
	}
	// The nearest of the two neighbours, the even one at the same distance: in exact arithmetic.
	for range 1 << 18 {
		b := rand.Uint32()
		f := math.Float32frombits(b)
		lo := uint16(b >> 16)
		down, up := bfloat16(lo), bfloat16(lo+1)
		if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) || math.IsInf(float64(up), 0) {
			continue
		}
		exact := func(x float32) *big.Float { return new(big.Float).SetFloat64(float64(x)) }
		below := new(big.Float).Sub(exact(f), exact(down))
		above := new(big.Float).Sub(exact(up), exact(f))
		want := lo
		if c := below.Abs(below).Cmp(above.Abs(above)); c > 0 || c == 0 && lo&1 == 1 {
			want++
		}
		if got := bfloat16Bits(f); got != want {
			t.Fatalf("%08x encodes to %04x, want %04x", b, got, want)
		}
	}
	if f := bfloat16(bfloat16Bits(math.Float32frombits(0x7f800001))); f == f {
		t.Error("a NaN became a number")
	}
	if got := bfloat16Bits(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("the largest float32 encodes to %04x, want infinity", got)
	}
}

// Blocks against the formulas of ggml in float64, rounded once: w = d·q and w = d·q + m.
func TestBlocks(t *testing.T) {
	const n = 64
	for _, dt := range []DType{Q8_0, Q4_0, Q4_1} {
		data := make([]byte, n*dt.BlockSize())
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		for i := range n { // finite scales
			b := data[i*dt.BlockSize():]
			b[1] &^= 0x40
			b[3] &^= byte(map[DType]int{Q4_1: 0x40}[dt])
		}
		x := Tensor{Name: "x", Type: dt, Shape: []int{n / 2, 64}, Data: data}
		got := x.Float32([]float32{7})
		if len(got) != 1+32*n || got[0] != 7 {
			t.Fatalf("%v: %d values after the first", dt, len(got)-1)
		}
		for i, g := range got[1:] {
			b := data[i/32*dt.BlockSize():]
			d := float64(half.Frombits(binary.LittleEndian.Uint16(b)).Float32())
			var want float64
			nibble := func(b []byte) float64 { return float64(b[i%16] >> (i % 32 / 16 * 4) & 15) }
			switch dt {
			case Q8_0:
				want = d * float64(int8(b[2+i%32]))
			case Q4_0:
				want = d * (nibble(b[2:]) - 8)
			case Q4_1:
				want = d*nibble(b[4:]) + float64(half.Frombits(binary.LittleEndian.Uint16(b[2:])).Float32())
			}
			if math.Float32bits(g) != math.Float32bits(float32(want)) {
				t.Fatalf("%v: element %d is %g, want %g", dt, i, g, want)
			}
		}
	}
}

func TestEncode(t *testing.T) {
	v := []float32{0, 1, -2.5, 1e-3, 3e38, 0x1p-20}
	for _, dt := range []DType{F32, F16, BF16} {
		x := Encode("x", dt, []int{2, 3}, v)
		if x.Rows() != 2 || x.Cols() != 3 || len(x.Data) != 6*dt.BlockSize() {
			t.Fatalf("%v: %d × %d, %d bytes", dt, x.Rows(), x.Cols(), len(x.Data))
		}
		for i, got := range x.Float32(nil) {
			want := v[i]
			switch dt {
			case F16:
				want = half.Fromfloat32(v[i]).Float32()
			case BF16:
				want = math.Float32frombits(uint32(bfloat16Bits(v[i])) << 16)
			}
			if got != want {
				t.Errorf("%v: element %d is %g, want %g", dt, i, got, want)
			}
		}
	}
}

// Finite against a plain look at every decoded element, with one bad value put at each place.
func TestFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, dt := range []DType{F32, F16, BF16} {
		for n := range 11 {
			v := make([]float32, n)
			for i := range v {
				v[i] = []float32{60000, -60000, 0x1p-24, 1}[i%4]
			}
			if ok, i := Encode("x", dt, []int{n}, v).Finite(); !ok {
				t.Fatalf("%v: element %d of finite ones", dt, i)
			}
			for i := range v {
				for _, bad := range []float32{nan, inf} {
					old := v[i]
					v[i] = bad
					if ok, at := Encode("x", dt, []int{n}, v).Finite(); ok || at != i {
						t.Fatalf("%v: %g at %d of %d: ok %v at %d", dt, bad, i, n, ok, at)
					}
					v[i] = old
				}
			}
		}
	}
	for _, dt := range []DType{Q8_0, Q4_0, Q4_1, Q5_0, Q5_1} {
		x := Tensor{Type: dt, Shape: []int{96}, Data: make([]byte, 3*dt.BlockSize())}
		if ok, _ := x.Finite(); !ok {
			t.Errorf("%v: zeros are not finite", dt)
		}
		binary.LittleEndian.PutUint16(x.Data[2*dt.BlockSize():], 0x7e00)
		if ok, at := x.Finite(); ok || at != 64 {
			t.Errorf("%v: NaN scale in block 2: ok %v at %d", dt, ok, at)
		}
	}
	x := Tensor{Type: F64, Shape: []int{2}, Data: binary.LittleEndian.AppendUint64(make([]byte, 8), 0x7ff0000000000000)}
	if ok, at := x.Finite(); ok || at != 1 {
		t.Errorf("F64: infinity at 1: ok %v at %d", ok, at)
	}
}
