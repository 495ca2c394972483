package sample

import "math/bits"

// Uniform returns the number in [0, 1), a multiple of 2⁻²⁴, that draws token step of completion sample.
// It depends on its arguments alone, so a draw does not depend on what else runs: the first word of
// Philox 4x32-10 (Salmon et al. 2011) with the seed as key and (step, sample, 0, 0) as counter.
func Uniform(seed uint64, sample, step uint32) float32 {
	word := philox([4]uint32{step, sample}, [2]uint32{uint32(seed), uint32(seed >> 32)})[0]
	return float32(word>>8) / (1 << 24)
}

// philox is the ten-round bijection of counters c under key k.
func philox(c [4]uint32, k [2]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, c[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k[0], lo1, hi0 ^ c[3] ^ k[1], lo0}
		k[0] += 0x9E3779B9
		k[1] += 0xBB67AE85
	}
	return c
}
