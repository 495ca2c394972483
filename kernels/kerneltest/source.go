package kerneltest

import (
	"encoding/binary"
	"math"

	"github.com/x448/float16"

	"github.com/r2-reasoner/r2/kernels"
)

// size picks a length: often one around a power of two, where tiles and vectors end.
func (g source) size(least, most int) int {
	n := least + g.IntN(most-least+1)
	if g.IntN(2) == 0 {
		n = 1<<g.IntN(9) + g.IntN(3) - 1
	}
	return min(max(n, least), most)
}

// floats is a matrix of normal deviates times scale, with some zeros.
func (g source) floats(rows, cols int, scale float64) matrix {
	m := filled(kernels.F32, rows, cols, 0)
	for i := range m.bits {
		v := g.NormFloat64() * scale
		if g.IntN(64) == 0 {
			v = math.Copysign(0, v)
		}
		m.bits[i] = math.Float32bits(float32(v))
	}
	return m
}

// ints is a column of integers from lo to hi-1.
func (g source) ints(rows, lo, hi int) matrix {
	m := filled(kernels.I32, rows, 1, 0)
	for i := range m.bits {
		m.bits[i] = uint32(int32(lo + g.IntN(hi-lo)))
	}
	return m
}

// of is a matrix of the given values.
func of(cols int, vs ...float64) matrix {
	m := filled(kernels.F32, len(vs)/cols, cols, 0)
	for i, v := range vs {
		m.bits[i] = math.Float32bits(float32(v))
	}
	return m
}

// intsOf is a column of the given integers.
func intsOf(vs ...int) matrix {
	m := filled(kernels.I32, len(vs), 1, 0)
	for i, v := range vs {
		m.bits[i] = uint32(int32(v))
	}
	return m
}

// A weight is what Load takes.
type weight struct {
	kernels.Format
	rows, cols int
	parts      [][]byte
}

// size is the bytes of n rows.
func (w weight) size(n int) int { return n * w.Type.Bytes(w.cols) }

// exact are the formats that every device has.
var exact = []kernels.Format{{Type: kernels.F32}, {Type: kernels.BF16}, {Type: kernels.F16}}

// inputs is a number of columns for a weight.
func (g source) inputs(least, most int) int {
	n := g.size(least, most)
	if len(g.formats) == 1 && g.formats[0].Type.Blocks() {
		n = (n + kernels.BlockLen - 1) / kernels.BlockLen * kernels.BlockLen
	}
	return n
}

// weight is a random weight of one of the formats, in one part or several.
func (g source) weight(rows, cols int) weight {
	w := weight{Format: g.formats[g.IntN(len(g.formats))], rows: rows, cols: cols}
	var b []byte
	if w.Type.Blocks() {
		for range rows * cols / kernels.BlockLen {
			b = g.block(b, w.Type)
		}
	} else {
		for range rows * cols {
			b = encode(b, w.Type, float32(g.NormFloat64()))
		}
	}
	for len(b) > 0 {
		n := w.size(1 + g.IntN(rows))
		if g.IntN(2) == 0 || n > len(b) {
			n = len(b)
		}
		w.parts, b = append(w.parts, b[:n:n]), b[n:]
	}
	return w
}

// block appends a block of random integers and scales, whose elements are about as large as normal deviates.
func (g source) block(b []byte, t kernels.DType) []byte {
	scales := 1
	if t == kernels.Q4_1 {
		scales = 2
	}
	largest := map[kernels.DType]float64{kernels.Q8_0: 127, kernels.Q4_0: 8, kernels.Q4_1: 15}[t]
	for range scales {
		b = encode(b, kernels.F16, float32(g.NormFloat64()*2/largest))
	}
	for range t.Bytes(kernels.BlockLen) - 2*scales {
		b = append(b, byte(g.Uint32()))
	}
	return b
}

// encode appends v as an element of type t; BF16 is cut off, not rounded.
func encode(b []byte, t kernels.DType, v float32) []byte {
	switch t {
	case kernels.BF16:
		return binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(v)>>16))
	case kernels.F16:
		return binary.LittleEndian.AppendUint16(b, float16.Fromfloat32(v).Bits())
	}
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
}
