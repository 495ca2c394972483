package weights

import "encoding/binary"

// The K types hold 256 elements to a block, with a half d (and a half m) for all of them and a few bits of
// scale (and of minimum) for each 16 or 32. Element e of the four fields of 2 bits in a byte is field
// e%128/32 of byte 32·(e/128) + e%32. All products are exact in float32, so the one rounding is that of the
// difference, as in ggml.

// kScale reads the eight pairs of six bits that Q4_K and Q5_K pack into 12 bytes.
func kScale(b []byte, group int) (scale, low float32) {
	if group < 4 {
		return float32(b[group] & 63), float32(b[group+4] & 63)
	}
	return float32(b[group+4]&15 | b[group-4]>>6<<4), float32(b[group+4]>>4 | b[group]>>6<<4)
}

func halfAt(b []byte, at int) float32 { return float16(binary.LittleEndian.Uint16(b[at:])) }

// twoBits is the field of element e in 64 bytes of fields.
func twoBits(b []byte, e int) byte { return b[e/128*32+e%32] >> (e % 128 / 32 * 2) & 3 }

// q2_K decodes a block: 16 bytes of scale (low nibble) and minimum, 64 of fields, halves d and m.
func q2_K(out []float32, b []byte) {
	d, m := halfAt(b, 80), halfAt(b, 82)
	for e := range out {
		s := b[e/16]
		out[e] = d*float32(s&15)*float32(twoBits(b[16:80], e)) - m*float32(s>>4)
	}
}

// q3_K decodes a block: 32 bytes of bits that are set where nothing is taken off, 64 of fields, 12 of scales
// (six bits, less 32), a half d.
func q3_K(out []float32, b []byte) {
	d, scales := halfAt(b, 108), b[96:108]
	for e := range out {
		j := e / 16
		s := scales[j%8]>>(j/8*4)&15 | scales[8+j%4]>>(j/4*2)&3<<4
		q := int(twoBits(b[32:96], e))
		if b[e%32]>>(e/32)&1 == 0 {
			q -= 4
		}
		out[e] = d * float32(int(s)-32) * float32(q)
	}
}

// q4_K decodes a block: halves d and m, 12 bytes of scales and minima, 128 of nibbles: those of 32 elements
// low, of the next 32 high.
func q4_K(out []float32, b []byte) {
	d, m := halfAt(b, 0), halfAt(b, 2)
	for e := range out {
		s, low := kScale(b[4:16], e/32)
		q := b[16+e/64*32+e%32] >> (e / 32 % 2 * 4) & 15
		out[e] = d*s*float32(q) - m*low
	}
}

// q5_K decodes a block: as q4_K, with 32 bytes of bit 4, a bit for each 32 elements, before the nibbles.
func q5_K(out []float32, b []byte) {
	d, m := halfAt(b, 0), halfAt(b, 2)
	for e := range out {
		s, low := kScale(b[4:16], e/32)
		q := b[48+e/64*32+e%32]>>(e/32%2*4)&15 | b[16+e%32]>>(e/32)&1<<4
		out[e] = d*s*float32(q) - m*low
	}
}

// q6_K decodes a block: 128 bytes of nibbles (of 64 elements low, of the next 64 high), 64 of fields, bits
// 4 and 5, 16 signed scales, a half d. 32 is taken off.
func q6_K(out []float32, b []byte) {
	d := halfAt(b, 208)
	for e := range out {
		q := b[e/128*64+e%64]>>(e/64%2*4)&15 | twoBits(b[128:192], e)<<4
		out[e] = d * float32(int8(b[192+e/16])) * float32(int(q)-32)
	}
}
