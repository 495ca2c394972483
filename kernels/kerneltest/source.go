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
	typ        kernels.DType
	rows, cols int
	parts      [][]byte
}

// weight is a random weight of a random type in one part or several.
func (g source) weight(rows, cols int) weight {
	typ := []kernels.DType{kernels.F32, kernels.BF16, kernels.F16}[g.IntN(3)]
	var b []byte
	for range rows * cols {
		b = encode(b, typ, float32(g.NormFloat64()))
	}
	w := weight{typ: typ, rows: rows, cols: cols}
	for len(b) > 0 {
		n := (1 + g.IntN(rows)) * cols * typ.Size()
		if g.IntN(2) == 0 || n > len(b) {
			n = len(b)
		}
		w.parts, b = append(w.parts, b[:n:n]), b[n:]
	}
	return w
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
