package ref

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	k "github.com/r2-reasoner/r2/kernels"
)

// Load keeps the elements that the bytes stand for, each exact.
func (d *Device) Load(f k.Format, rows, cols int, src ...[]byte) k.Weight {
	if f.Type == k.I32 || f.Type == k.I8 {
		panic(fmt.Sprintf("ref: Load: a weight is f32, bf16, f16 or in blocks, not %v", f.Type))
	}
	step := 1
	if f.Type.Blocks() {
		step = k.BlockLen
	}
	if cols%step != 0 {
		panic(fmt.Sprintf("ref: Load: %d columns are not whole blocks of %v", cols, f.Type))
	}
	b, size := make(buffer, 0, rows*cols), f.Type.Bytes(step)
	for _, part := range src {
		if len(part)%f.Type.Bytes(cols) != 0 {
			panic(fmt.Sprintf("ref: Load: a part of %d bytes is not whole rows of %d %v", len(part), cols, f.Type))
		}
		for ; len(part) > 0; part = part[size:] {
			b = append(b, elements(f, part)...)
		}
	}
	if len(b) != rows*cols {
		panic(fmt.Sprintf("ref: Load: the parts hold %d rows of %d, not %d", len(b)/cols, cols, rows))
	}
	if !d.Holds(f) {
		d.fail("Load", 0, "there is no product of %v weights with rows rounded to %v", f.Type, f.Acts)
	}
	return k.Weight{Buf: b, Rows: rows, Cols: cols, Format: f}
}

// Holds reports whether there is a product of weights of f with x rounded as f says.
func (d *Device) Holds(f k.Format) bool {
	return f.Acts == k.F32 || f.Acts == k.BF16 && f.Type == k.BF16 || f.Acts == k.I8 && f.Type.Blocks()
}

// elements are the first element, or the first block, of src.
func elements(f k.Format, src []byte) []float64 {
	half := func(at int) float64 {
		return float64(float16.Frombits(binary.LittleEndian.Uint16(src[at:])).Float32())
	}
	out := make([]float64, 0, k.BlockLen)
	switch f.Type {
	case k.Q8_0:
		for _, q := range src[2:34] {
			out = append(out, half(0)*float64(int8(q)))
		}
	case k.Q4_0, k.Q4_1:
		scale, low, at := half(0), -8*half(0), 2
		if f.Type == k.Q4_1 {
			low, at = half(2), 4
		}
		for shift := 0; shift < 8; shift += 4 {
			for _, q := range src[at : at+16] {
				out = append(out, scale*float64(q>>shift&15)+low)
			}
		}
	default:
		v := decode(f.Type, src)
		if f.Acts == k.BF16 {
			v = normal(v)
		}
		out = append(out, v)
	}
	return out
}

// normal is v, or zero for what float32 could only hold as a subnormal number.
func normal(v float64) float64 {
	if math.Abs(v) < 0x1p-126 {
		return math.Copysign(0, v)
	}
	return v
}

// rounded is x as a product with weights of format f reads it.
func rounded(x k.Tensor, f k.Format) k.Tensor {
	if f.Acts == k.F32 {
		return x
	}
	out := k.Tensor{Buf: make(buffer, x.Rows*x.Cols), Rows: x.Rows, Cols: x.Cols, Stride: x.Cols, Type: x.Type}
	for i := range x.Rows {
		row := Row(out, i)
		copy(row, Row(x, i))
		if f.Acts == k.BF16 {
			for j, v := range row {
				row[j] = nearestBF16(v)
			}
			continue
		}
		for ; len(row) > 0; row = row[k.BlockLen:] {
			roundBlock(row[:k.BlockLen])
		}
	}
	return out
}

// nearestBF16 rounds to eight significant bits, ties to even. What is too large becomes infinite.
func nearestBF16(v float64) float64 {
	v = normal(v)
	fraction, exponent := math.Frexp(v)
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	r := math.Ldexp(math.RoundToEven(math.Ldexp(fraction, 8)), exponent-8)
	if math.Abs(r) >= 0x1p128 {
		return math.Inf(int(math.Copysign(1, v)))
	}
	return r
}

// roundBlock rounds a block as Acts I8 says.
func roundBlock(x []float64) {
	var m float64
	for _, v := range x {
		if a := math.Abs(v); a > m || math.IsNaN(a) {
			m = a
		}
	}
	scale, inverse := float64(float32(m)/127), float64(127/float32(m))
	for i, v := range x {
		switch {
		case m < 0x1p-100:
			x[i] = 0
		case math.IsNaN(m) || math.IsInf(m, 0):
			x[i] = math.NaN()
		default:
			// The product is rounded to float32 before it becomes an integer.
			x[i] = math.RoundToEven(float64(float32(v*inverse))) * scale
		}
	}
}
