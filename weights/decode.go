package weights

import (
	"encoding/binary"
	"math"
	"slices"
)

// Float32 appends all elements of t, dequantised, to dst and returns it. F64 and I64 are rounded to
// nearest; everything else is exact (a product of a half and small integers, and its sum with a
// minimum, where there is one, rounded once, as ggml computes it).
func (t Tensor) Float32(dst []float32) []float32 {
	n := t.Len()
	dst = slices.Grow(dst, n)
	out := dst[len(dst) : len(dst)+n]
	le := binary.LittleEndian
	switch b := t.Data; t.Type {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		}
	case F16:
		for i := range out {
			out[i] = float16(le.Uint16(b[2*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = bfloat16(le.Uint16(b[2*i:]))
		}
	case F64:
		for i := range out {
			out[i] = float32(math.Float64frombits(le.Uint64(b[8*i:])))
		}
	case I64:
		for i := range out {
			out[i] = float32(int64(le.Uint64(b[8*i:])))
		}
	default:
		decode, step, size := decoders[t.Type], t.Type.Block(), t.Type.BlockSize()
		for ; len(out) > 0; out, b = out[step:], b[size:] {
			decode(out[:step], b[:size])
		}
	}
	return dst[:len(dst)+n]
}

// decoders decode one block each.
var decoders = map[DType]func(out []float32, block []byte){
	Q8_0: q8_0, Q4_0: q4_0, Q4_1: q4_1, Q5_0: q5_0, Q5_1: q5_1,
	Q2_K: q2_K, Q3_K: q3_K, Q4_K: q4_K, Q5_K: q5_K, Q6_K: q6_K,
}

// Float64 appends all elements of t, exact for every type but I64 beyond 2⁵³, to dst and returns it.
func (t Tensor) Float64(dst []float64) []float64 {
	switch t.Type {
	case F64:
		for i := range t.Len() {
			dst = append(dst, math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:])))
		}
	case I64:
		for i := range t.Len() {
			dst = append(dst, float64(int64(binary.LittleEndian.Uint64(t.Data[8*i:]))))
		}
	default:
		for _, v := range t.Float32(nil) {
			dst = append(dst, float64(v))
		}
	}
	return dst
}

// q8_0 decodes a block: a half d, then 32 signed bytes q. w = d·q.
func q8_0(out []float32, b []byte) {
	d, b := float16(binary.LittleEndian.Uint16(b)), b[2:34]
	for i, q := range b {
		out[i] = d * float32(int8(q))
	}
}

// q4_0 decodes a block: a half d, then 16 bytes whose low nibbles q are elements 0…15 and whose high
// nibbles are 16…31. w = d·(q-8).
func q4_0(out []float32, b []byte) {
	d, b := float16(binary.LittleEndian.Uint16(b)), b[2:18]
	for i, q := range b {
		out[i] = d * float32(int(q&15)-8)
		out[i+16] = d * float32(int(q>>4)-8)
	}
}

// q4_1 decodes a block: halves d and m, then nibbles as in q4_0. w = d·q + m. The product is exact in
// float32, so a fused multiply-add would give the same bits.
func q4_1(out []float32, b []byte) {
	d, m := float16(binary.LittleEndian.Uint16(b)), float16(binary.LittleEndian.Uint16(b[2:]))
	for i, q := range b[4:20] {
		out[i] = d*float32(q&15) + m
		out[i+16] = d*float32(q>>4) + m
	}
}

// q5_0 decodes a block: a half d, then 32 bits that are bit 4 of each q in order, then the low nibbles
// as in q4_0. w = d·(q-16).
func q5_0(out []float32, b []byte) {
	d, high := float16(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint32(b[2:])
	for i, q := range b[6:22] {
		out[i] = d * float32(int(q&15)+int(high>>i&1)<<4-16)
		out[i+16] = d * float32(int(q>>4)+int(high>>(i+16)&1)<<4-16)
	}
}

// q5_1 decodes a block: halves d and m, then bits and nibbles as in q5_0. w = d·q + m, with an exact
// product as in q4_1.
func q5_1(out []float32, b []byte) {
	d, m := float16(binary.LittleEndian.Uint16(b)), float16(binary.LittleEndian.Uint16(b[2:]))
	high := binary.LittleEndian.Uint32(b[4:])
	for i, q := range b[8:24] {
		out[i] = d*float32(uint32(q&15)|high>>i&1<<4) + m
		out[i+16] = d*float32(uint32(q>>4)|high>>(i+16)&1<<4) + m
	}
}

// float16 is the value of an IEEE half with bits h.
func float16(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero or subnormal: frac · 2⁻²⁴, exact
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	case 31: // infinity, or NaN made quiet as hardware does
		if frac != 0 {
			frac |= 512
		}
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// float16Bits rounds to nearest, ties to even; what is too large becomes infinite.
func float16Bits(f float32) uint16 {
	b := math.Float32bits(f)
	sign, abs := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case abs > 0x7f800000: // NaN, quiet
		return sign | 0x7e00 | uint16(abs>>13&0x1ff)
	case abs >= 0x477ff000: // 65520 and above round to infinity
		return sign | 0x7c00
	case abs < 0x38800000: // below 2⁻¹⁴: counts of 2⁻²⁴. Adding 0.5 = 2²³ · 2⁻²⁴ makes the FPU round.
		v := math.Float32frombits(abs) + 0.5
		return sign | uint16(math.Float32bits(v)-math.Float32bits(0.5))
	}
	return sign | uint16((abs-112<<23+0xfff+abs>>13&1)>>13)
}

// bfloat16 is the value of a bfloat16 with bits h.
func bfloat16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// bfloat16Bits rounds to nearest, ties to even.
func bfloat16Bits(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40 // a NaN whose payload is cut off must not become infinite
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// Finite reports whether every element is a finite number; if not, index is the first element (the
// first of its block, for a quantised type) that is not.
func (t Tensor) Finite() (ok bool, index int) {
	le, b := binary.LittleEndian, t.Data
	switch t.Type {
	case F32:
		const exp = 0x7f800000
		for i := 0; 4*i+4 <= len(b); i++ {
			if le.Uint32(b[4*i:])&exp == exp {
				return false, i
			}
		}
	case F64:
		const exp = 0x7ff0000000000000
		for i := 0; 8*i+8 <= len(b); i++ {
			if le.Uint64(b[8*i:])&exp == exp {
				return false, i
			}
		}
	case F16:
		return finite16(b, 0x7c00)
	case BF16:
		return finite16(b, 0x7f80)
	default:
		for s, i := t.Type.BlockSize(), 0; s*i < len(b); i++ {
			for _, at := range layouts[t.Type].halves {
				if le.Uint16(b[s*i+at:])&0x7c00 == 0x7c00 {
					return false, t.Type.Block() * i
				}
			}
		}
	}
	return true, 0
}

// finite16 looks for 16-bit elements whose exponent bits are all set, four at a time.
func finite16(b []byte, exp uint64) (bool, int) {
	ones := exp | exp<<16 | exp<<32 | exp<<48
	low := exp & -exp * 0x0001000100010001 // the lowest exponent bit of each
	i := 0
	for ; 2*i+8 <= len(b); i += 4 {
		// Adding the lowest exponent bit carries into the sign, cleared before, just when all are set.
		if w := binary.LittleEndian.Uint64(b[2*i:]) & ones; (w+low)&0x8000800080008000 != 0 {
			break
		}
	}
	for ; 2*i+2 <= len(b); i++ {
		if uint64(binary.LittleEndian.Uint16(b[2*i:]))&exp == exp {
			return false, i
		}
	}
	return true, 0
}
