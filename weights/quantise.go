package weights

import (
	"encoding/binary"
	"math"
)

// appendBlocks appends v, whole blocks, as Q8_0 or Q4_0, with ggml's choice of scales and integers.
func appendBlocks(dst []byte, t DType, v []float32) []byte {
	for ; len(v) > 0; v = v[32:] {
		if t == Q8_0 {
			dst = appendQ8_0(dst, v[:32])
		} else {
			dst = appendQ4_0(dst, v[:32])
		}
	}
	return dst
}

// appendQ8_0 takes the largest |v| as 127, and rounds to nearest, halves away from zero. The integers are
// those of the scale before it is rounded to a half.
func appendQ8_0(dst []byte, v []float32) []byte {
	var most float32
	for _, x := range v {
		most = max(most, float32(math.Abs(float64(x))))
	}
	d, inverse := scaleOf(most / 127)
	dst = binary.LittleEndian.AppendUint16(dst, float16Bits(d))
	for _, x := range v {
		dst = append(dst, byte(int8(math.Round(float64(x*inverse)))))
	}
	return dst
}

// appendQ4_0 takes the v of largest size, with its sign, as -8, so that one end of -8 … 7 is exact.
func appendQ4_0(dst []byte, v []float32) []byte {
	var most float32
	for _, x := range v {
		if math.Abs(float64(x)) > math.Abs(float64(most)) {
			most = x
		}
	}
	d, inverse := scaleOf(most / -8)
	dst = binary.LittleEndian.AppendUint16(dst, float16Bits(d))
	nibble := func(x float32) byte { return byte(min(15, int(float64(x)*float64(inverse)+8.5))) }
	for i := range 16 {
		dst = append(dst, nibble(v[i])|nibble(v[i+16])<<4)
	}
	return dst
}

// scaleOf is a scale and what to multiply by to divide by it: 0 where the block is zeros.
func scaleOf(d float32) (scale, inverse float32) {
	if d == 0 {
		return 0, 0
	}
	return d, 1 / d
}
