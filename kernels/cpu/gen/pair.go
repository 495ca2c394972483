package main

// dpbf16 writes VDPBF16PS of two registers of pairs into one of sums, which Go's assembler does not
// know: first the odd elements' products are added, then the even ones', one rounding each, subnormal
// numbers being zero on the way in and out.
func (a *assembly) dpbf16(w, x, sum int) {
	inverted := func(reg, bit, at int) int { return (reg>>bit&1 ^ 1) << at }
	bytes := [6]int{
		0x62, // EVEX: then the registers' high bits and the map 0F38
		inverted(sum, 3, 7) | inverted(w, 4, 6) | inverted(w, 3, 5) | inverted(sum, 4, 4) | 2,
		(x&15^15)<<3 | 1<<2 | 2,  // W 0, prefix F3
		2<<5 | inverted(x, 4, 3), // 512 bits
		0x52,
		3<<6 | sum&7<<3 | w&7,
	}
	a.op("LONG $0x%02x%02x%02x%02x; WORD $0x%02x%02x // VDPBF16PS Z%d, Z%d, Z%d",
		bytes[3], bytes[2], bytes[1], bytes[0], bytes[5], bytes[4], w, x, sum)
}

// splitLine turns the pairs of Z0 and Z1 into even elements there and odd ones in Z28 and Z29.
func (a *assembly) splitLine() {
	for h := range 2 {
		a.op("VPANDD Z%d, Z3, Z%d", h, 28+h)
		a.op("VPSLLD $16, Z%d, Z%d", h, h)
	}
}

// pairByFMA does what two VDPBF16PS do, where flush(true) holds.
func (a *assembly) pairByFMA(row int) {
	a.op("VPANDD Z2, Z3, Z30")
	a.op("VPSLLD $16, Z2, Z2")
	for h := range 2 {
		a.op("VFMADD231PS Z%d, Z30, %s", 28+h, sum(row, h))
	}
	for h := range 2 {
		a.op("VFMADD231PS Z%d, Z2, %s", h, sum(row, h))
	}
}

// flush has subnormal numbers read and written as zero, or ends it.
func (a *assembly) flush(on bool) {
	if !on {
		a.op("LDMXCSR 0(SP)")
		return
	}
	a.op("STMXCSR 0(SP)")
	a.op("MOVL 0(SP), R15")
	a.op("ORL  $0x8040, R15")
	a.op("MOVL R15, 4(SP)")
	a.op("LDMXCSR 4(SP)")
}

// round writes the rounding of n vectors of f32, and of the part of another one that mask names, to bf16.
func (a *assembly) round() {
	a.function("roundBF16", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 16(AX), CX")
	a.op("MOVL 40(AX), R15")
	a.op("KMOVW R15, K2")
	for i, v := range []string{"1", "0x7fff", "0x40", "0x7f800000", "0x8000"} {
		a.op("MOVL $%s, R14", v)
		a.op("VPBROADCASTD R14, Z%d", 10+i)
	}
	a.op("KXNORW K1, K1, K1")
	a.op("TESTQ CX, CX")
	a.op("JZ   tail")
	a.label("loop")
	a.op("VMOVUPS (SI), Z0")
	a.roundVector()
	a.op("ADDQ $64, SI")
	a.op("ADDQ $32, DI")
	a.op("DECQ CX")
	a.op("JNZ  loop")
	a.label("tail")
	a.op("TESTL R15, R15")
	a.op("JZ   done")
	a.op("VMOVUPS.Z (SI), K2, Z0")
	a.roundVector()
	a.label("done")
	a.ret()
}

// roundVector rounds Z0 to nearest, ties to even, and stores it. A NaN stays one, and of a subnormal
// number the sign.
func (a *assembly) roundVector() {
	a.op("VPSRLD $16, Z0, Z1")
	a.op("VPANDD Z1, Z10, Z2")
	a.op("VPADDD Z0, Z2, Z2")
	a.op("VPADDD Z11, Z2, Z2")
	a.op("VPSRLD $16, Z2, Z2")
	a.op("VCMPPS $3, Z0, Z0, K3") // unordered
	a.op("VPORD Z12, Z1, K3, Z2")
	a.op("VPTESTNMD Z13, Z0, K4")
	a.op("VPANDD Z14, Z1, K4, Z2")
	a.op("VPMOVDW Z2, Y2")
	a.op("VMOVDQU Y2, (DI)")
}

// transposePairs writes the transpose of 16 lanes of 16 lines of pairs: 16 rows of 32 f32.
func (a *assembly) transposePairs() {
	a.function("transposePairsx16", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	for i := range 16 {
		a.op("VMOVUPS %d(SI), Z%d", 128*i, i)
	}
	a.transpose16()
	for i := range 16 {
		a.op("VPMOVZXWD Y%d, Z16", i)
		a.op("VEXTRACTI64X4 $1, Z%d, Y17", i)
		a.op("VPMOVZXWD Y17, Z17")
		for h := range 2 {
			a.op("VPSLLD $16, Z%d, Z%d", 16+h, 16+h)
			a.op("VMOVUPS Z%d, %d(DI)", 16+h, 128*i+64*h)
		}
	}
	a.ret()
}

// pairRows writes the laying of 16 columns of n pairs of rows of bf16 into lines of pairs; mask names the columns that
// there are.
func (a *assembly) pairRows() {
	a.function("pairRows", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 16(AX), CX")
	a.op("MOVQ 24(AX), R10")
	a.op("MOVQ 32(AX), R11")
	a.op("MOVL 40(AX), R15")
	a.op("KMOVW R15, K1")
	a.label("loop")
	a.op("VPMOVZXWD.Z (SI), K1, Z0")
	a.op("VPMOVZXWD.Z (SI)(R10*1), K1, Z1")
	a.op("VPSLLD $16, Z1, Z1")
	a.op("VPORD Z0, Z1, Z0")
	a.op("VMOVDQU32 Z0, (DI)")
	a.op("LEAQ (SI)(R10*2), SI")
	a.op("ADDQ R11, DI")
	a.op("DECQ CX")
	a.op("JNZ  loop")
	a.ret()
}
