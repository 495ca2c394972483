package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/x448/float16"
)

var blockTypes = []kernels.DType{kernels.Q8_0, kernels.Q4_0, kernels.Q4_1}

// randomBlocks are rows of n blocks with scales (and minima) of either sign and any integers.
func randomBlocks(r *rand.Rand, t kernels.DType, rows, n int) []byte {
	b := make([]byte, rows*t.Bytes(n*kernels.BlockLen))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	size := t.Bytes(kernels.BlockLen)
	for at := 0; at < len(b); at += size {
		binary.LittleEndian.PutUint16(b[at:], float16.Fromfloat32(float32(r.NormFloat64())/64).Bits())
		if t == kernels.Q4_1 {
			binary.LittleEndian.PutUint16(b[at+2:], float16.Fromfloat32(float32(r.NormFloat64())/8).Bits())
		}
	}
	return b
}

// The product of rows rounded to blocks is what the definition gives, computed here element by element from
// the file's bytes, to the bit: however it is cut, and in assembly as in Go.
func TestBlockLinearIsOneChain(t *testing.T) { both(t, blockLinearIsOneChain) }

func blockLinearIsOneChain(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 1))
	for _, typ := range blockTypes {
		for i, s := range [][2]int{{1, 1}, {5, 3}, {33, 2}, {70, 5}, {97, 1}} {
			d := New(1 + i%3)
			raw := randomBlocks(r, typ, s[0], s[1])
			w := d.Load(kernels.Format{Type: typ, Acts: kernels.I8}, s[0], kernels.BlockLen*s[1], raw)
			bias := random(r, 1, s[0])
			for _, m := range []int{1, 2, 15, 100} {
				x := random(r, m, kernels.BlockLen*s[1])
				out := put(t, d, nans(m, s[0]), m%3)
				d.Linear(out, put(t, d, x, 1), w, put(t, d, bias, 1))
				wantBits(t, fmt.Sprintf("%v %dx%d, %d rows", typ, s[0], s[1], m), get(t, d, out), blockChain(typ, raw, x, bias))
			}
			d.Close()
		}
	}
}

// The largest integers, of either sign, overflow nothing on the way.
func TestBlockLinearOfExtremes(t *testing.T) {
	both(t, func(t *testing.T) {
		d := New(1)
		defer d.Close()
		for _, typ := range blockTypes {
			for _, q := range []byte{0x00, 0xff, 0x7f, 0x80, 0x0f, 0xf0} {
				raw := randomBlocks(rand.New(rand.NewPCG(44, 1)), typ, 8, 2)
				size := typ.Bytes(kernels.BlockLen)
				for i := range raw {
					if i%size >= size-blockQuants(typ)/lanes {
						raw[i] = q
					}
				}
				x := matrix{3, 2 * kernels.BlockLen, make([]float32, 3*2*kernels.BlockLen)}
				for i := range x.v {
					x.v[i] = [...]float32{1, -1, float32(i%2*2 - 1)}[i/x.cols]
				}
				w := d.Load(kernels.Format{Type: typ, Acts: kernels.I8}, 8, x.cols, raw)
				out := put(t, d, nans(3, 8), 1)
				d.Linear(out, put(t, d, x, 0), w, kernels.Tensor{})
				wantBits(t, fmt.Sprintf("%v of %#x", typ, q), get(t, d, out), blockChain(typ, raw, x, matrix{1, 8, make([]float32, 8)}))
			}
		}
	})
}

// blockChain is the definition.
func blockChain(typ kernels.DType, raw []byte, x, bias matrix) matrix {
	blocks, size := x.cols/kernels.BlockLen, typ.Bytes(kernels.BlockLen)
	out := matrix{x.rows, bias.cols, make([]float32, x.rows*bias.cols)}
	half := func(b []byte) float32 { return float16.Frombits(binary.LittleEndian.Uint16(b)).Float32() }
	for i := range x.rows {
		for j := range bias.cols {
			var sum float32
			for b := range blocks {
				q, scale := roundedBlock(x.v[i*x.cols+b*kernels.BlockLen:][:kernels.BlockLen])
				w := raw[(j*blocks+b)*size:][:size]
				dot, total := 0, 0
				for k, v := range q {
					total += v
					switch typ {
					case kernels.Q8_0:
						dot += v * int(int8(w[2+k]))
					case kernels.Q4_0:
						dot += v * (int(w[2+k%16]>>(k/16*4)&15) - 8)
					case kernels.Q4_1:
						dot += v * int(w[4+k%16]>>(k/16*4)&15)
					}
				}
				sum = fma32(float32(dot), float32(half(w)*scale), sum)
				if typ == kernels.Q4_1 {
					sum = fma32(half(w[2:]), float32(float32(total)*scale), sum)
				}
			}
			out.v[i*bias.cols+j] = sum + bias.v[j]
		}
	}
	return out
}

// roundedBlock is a block's integers and scale by the definition, in float64 where nothing says float32.
func roundedBlock(x []float32) (q [kernels.BlockLen]int, scale float32) {
	m := 0.0
	for _, v := range x {
		m = max(m, math.Abs(float64(v)))
	}
	if m < 0x1p-100 {
		return q, 0
	}
	inverse := float32(127 / m) // rounded twice, which is once: a quotient of float32 is never so near a tie
	for k, v := range x {
		q[k] = int(math.RoundToEven(float64(float32(float64(v) * float64(inverse)))))
	}
	return q, float32(m / 127)
}

// Rounding a block gives the definition's numbers for all sizes of x, and NaN where x is not finite; in
// assembly as in Go.
func TestRoundBlocks(t *testing.T) { both(t, roundsBlocks) }

func roundsBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(42, 1))
	for n := range 4000 {
		var x [kernels.BlockLen]float32
		size := math.Exp2(float64(r.IntN(250) - 125))
		for k := range x {
			x[k] = float32(r.NormFloat64() * size)
		}
		odd := n % 8
		switch odd {
		case 0:
			x[r.IntN(32)] = float32(math.NaN())
		case 1:
			x[r.IntN(32)] = float32(math.Inf(1 - 2*r.IntN(2)))
		case 2: // ties: multiples of half a step
			for k := range x {
				x[k] = float32(r.IntN(255)-127) / 2
			}
			x[r.IntN(32)] = 127
		}
		var got, twin record
		m := move{dst: unsafe.Pointer(&got), src: unsafe.Pointer(&x[0]), n: 1, dstRow: recordSize}
		m.roundBlocks()
		m.dst = unsafe.Pointer(&twin)
		m.roundBlocksGo()
		if odd < 2 {
			if got.scale == got.scale || got.sum == got.sum || twin.scale == twin.scale || twin.sum == twin.sum || got.lifted != 0 {
				t.Fatalf("a block with %v: %+v, in Go %+v", x, got, twin)
			}
			continue
		}
		if got != twin {
			t.Fatalf("%v is %+v, in Go %+v", x, got, twin)
		}
		q, scale := roundedBlock(x[:])
		total := 0
		for k, v := range q {
			total += v
			if int(got.q[k]) != v {
				t.Fatalf("element %d of %v is %d, want %d", k, x, got.q[k], v)
			}
		}
		if got.scale != scale || got.lifted != int32(-8*total) || got.sum != float32(total)*scale {
			t.Fatalf("%v: scale %v, lifted %v, sum %v; want %v, %v, %v", x, got.scale, got.lifted, got.sum, scale, -8*total, float32(total)*scale)
		}
	}
}

// Widened, read by Embed and used by LinearGrad, a block's elements are the same bits in assembly and in Go.
func TestWidenBlocks(t *testing.T) { both(t, widensBlocks) }

func widensBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(43, 1))
	d := New(1)
	defer d.Close()
	for _, typ := range blockTypes {
		w := d.Load(kernels.Format{Type: typ}, 40, 96, randomBlocks(r, typ, 40, 3)).Buf.(*weight)
		got, twin := make([]float32, 96*lanes), make([]float32, 96*lanes)
		m := move{dst: unsafe.Pointer(&got[0]), src: w.at(0, 0), n: 3}
		w.widenBlocks(&m)
		m.dst = unsafe.Pointer(&twin[0])
		w.widenBlocksGo(&m)
		row := make([]float32, 96)
		for i := range got {
			k, l := i/lanes, i%lanes
			w.row(row, l)
			if !same(got[i], twin[i]) || !same(got[i], row[k]) {
				t.Fatalf("%v: input %d of lane %d is %v, in Go %v, in its row %v", typ, k, l, got[i], twin[i], row[k])
			}
		}
	}
}
