package main

import "math"

// In all of these AX is the argument, DI the panel's block, BX how far into a group the eight lanes are, R15 half of it.
// In dots SI is x's block, R8 the sums, CX the blocks left, R9 the rows, R10 the bytes to x's next block, R11 to R13 a row's record, its sums and the rows left, R14 the high nibbles of Q8.

// dots prints a panel's sums with rows of rounded x. Y8 … Y15 are the integers of eight lanes, or their low nibbles;
// Y6 their scales and Y7 their minima.
func (t *avx2) dots(b blocked) {
	frame := 0
	if !b.nibbles {
		frame = groups * partBytes
	}
	t.function("dots"+b.name+"Lanes", frame, 8)
	t.p("MOVQ t+0(FP), AX")
	for _, load := range []string{"0(AX), DI", "8(AX), SI", "16(AX), R8", "24(AX), CX", "32(AX), R9", "40(AX), R10"} {
		t.p("MOVQ %s", load)
	}
	t.p("VPCMPEQW Y4, Y4, Y4")
	t.p("VPSRLW $15, Y4, Y4") // ones
	if !b.nibbles {
		t.p("VPSLLW $4, Y4, Y5")
		t.p("LEAQ high-%d(SP), R14", frame)
	}
	t.label("block")
	for i := range b.size() / 64 {
		t.p("PREFETCHT0 %d(DI)", 4096+64*i)
	}
	t.p("XORQ BX, BX")
	t.label("part")
	t.p("MOVQ BX, R15")
	t.p("SHRQ $1, R15")
	t.nibbles(b, func(g int) { t.p("VMOVDQU Y0, %d(R14)", partBytes*g) })
	t.p("VCVTPH2PS %d(DI)(R15*1), Y6", b.quants)
	if b.minimum {
		t.p("VCVTPH2PS %d(DI)(R15*1), Y7", b.quants+64)
	}
	t.p("MOVQ SI, R11")
	t.p("LEAQ (R8)(BX*1), R12")
	t.p("MOVQ R9, R13")
	t.label("row")
	t.dotsRow(b)
	t.p("ADDQ $%d, R11", recordSize)
	t.p("ADDQ $128, R12")
	t.p("DECQ R13")
	t.p("JNZ row")
	t.nextPart()
	t.p("ADDQ $%d, DI", b.size())
	t.p("ADDQ R10, SI")
	t.p("DECQ CX")
	t.p("JNZ block")
	t.p("VZEROUPPER")
	t.p("RET")
}

// nextPart goes on to the next eight lanes.
func (t *avx2) nextPart() {
	t.p("ADDQ $%d, BX", partBytes)
	t.p("CMPQ BX, $%d", groupBytes)
	t.p("JNE part")
}

// nibbles puts the integers of eight lanes into Y8 …, a group of four inputs each; of whole bytes the low nibbles, and
// high is called with the high ones of group g in Y0.
func (t *avx2) nibbles(b blocked, high func(g int)) {
	t.p("VBROADCASTSS %s, Y7", t.constant(0x0f0f0f0f))
	for g := range b.quants / groupBytes {
		t.p("VMOVDQU %d(DI)(BX*1), Y0", groupBytes*g)
		t.p("VPAND Y7, Y0, Y%d", 8+g)
		t.p("VPSRLW $4, Y0, Y0")
		if b.nibbles {
			t.p("VPAND Y7, Y0, Y%d", 12+g)
		} else {
			t.p("VPAND Y7, Y0, Y0")
			high(g)
		}
	}
}

// dotsRow adds the product with one row. A nibble times an int8 is at most 1905, and 16 bits hold 16 of these.
func (t *avx2) dotsRow(b blocked) {
	for g := range groups {
		t.p("VPBROADCASTD %d(R11), Y0", 4*g)
		to := "Y3"
		if g == 0 {
			to = "Y1"
		}
		t.p("VPMADDUBSW Y0, Y%d, %s", 8+g, to)
		if g > 0 {
			t.p("VPADDW Y3, Y1, Y1")
		}
		if b.nibbles {
			continue
		}
		t.p("VMOVDQU %d(R14), Y3", partBytes*g)
		if g == 0 {
			t.p("VPMADDUBSW Y0, Y3, Y2")
		} else {
			t.p("VPMADDUBSW Y0, Y3, Y3")
			t.p("VPADDW Y3, Y2, Y2")
		}
	}
	t.p("VPMADDWD Y4, Y1, Y1")
	if !b.nibbles {
		t.p("VPMADDWD Y5, Y2, Y2") // times 16
		t.p("VPADDD Y2, Y1, Y1")
	}
	if b.offset > 0 {
		t.p("VPBROADCASTD 36(R11), Y0")
		if b.offset == 128 {
			t.p("VPSLLD $4, Y0, Y0")
		}
		t.p("VPADDD Y0, Y1, Y1")
	}
	t.p("VCVTDQ2PS Y1, Y1")
	t.p("VBROADCASTSS 32(R11), Y0")
	t.p("VMULPS Y6, Y0, Y0")
	t.p("VMOVUPS (R12), Y2")
	t.p("VFMADD231PS Y1, Y0, Y2")
	if b.minimum {
		t.p("VBROADCASTSS 40(R11), Y0")
		t.p("VFMADD231PS Y7, Y0, Y2")
	}
	t.p("VMOVUPS Y2, (R12)")
}

// widen prints the turning of n blocks of a panel into f32 lines: integer times scale plus the minimum, or minus the
// offset times the scale.
func (t *avx2) widen(b blocked) {
	t.function("widen"+b.name+"Lanes", 0, 8)
	t.p("MOVQ m+0(FP), AX")
	t.p("MOVQ 0(AX), SI")
	t.p("MOVQ 8(AX), DI")
	t.p("MOVQ 16(AX), CX")
	t.label("block")
	t.p("XORQ BX, BX")
	t.label("part")
	t.p("MOVQ BX, R15")
	t.p("SHRQ $1, R15")
	t.p("VCVTPH2PS %d(DI)(R15*1), Y4", b.quants)
	if b.minimum {
		t.p("VCVTPH2PS %d(DI)(R15*1), Y5", b.quants+64)
	} else {
		t.p("VBROADCASTSS %s, Y5", t.constant(math.Float32bits(float32(-b.offset))))
		t.p("VMULPS Y4, Y5, Y5")
	}
	t.p("VBROADCASTSS %s, Y6", t.constant(0xff))
	t.p("LEAQ (SI)(BX*1), R12")
	if b.nibbles {
		t.nibbles(b, nil)
	}
	for g := range groups {
		from := "Y0"
		if b.nibbles {
			from = [...]string{"Y8", "Y9", "Y10", "Y11", "Y12", "Y13", "Y14", "Y15"}[g]
		} else {
			t.p("VMOVDQU %d(DI)(BX*1), Y0", groupBytes*g)
		}
		for i := range 4 {
			t.p("VPSRLD $%d, %s, Y1", 8*i, from)
			t.p("VPAND Y6, Y1, Y1")
			t.p("VCVTDQ2PS Y1, Y1")
			t.p("VFMADD213PS Y5, Y4, Y1")
			t.p("VMOVUPS Y1, %d(R12)", 128*(4*g+i))
		}
	}
	t.nextPart()
	t.p("ADDQ $%d, DI", b.size())
	t.p("ADDQ $4096, SI")
	t.p("DECQ CX")
	t.p("JNZ block")
	t.p("VZEROUPPER")
	t.p("RET")
}

// round prints the rounding of n blocks of a row of x: see blocks.go. R10 is the bytes from one record to the next.
func (t *avx2) round() {
	t.function("roundBlocksLanes", 0, 8)
	t.p("MOVQ m+0(FP), AX")
	t.p("MOVQ 0(AX), DI")
	t.p("MOVQ 8(AX), SI")
	t.p("MOVQ 16(AX), CX")
	t.p("MOVQ 32(AX), R10")
	t.p("VPCMPEQD Y10, Y10, Y10")
	t.p("VPSRLD $1, Y10, Y10")
	t.p("VMOVSS %s, X11", t.constant(math.Float32bits(127)))
	t.p("VPXOR Y12, Y12, Y12")
	t.label("block")
	for i := range 4 {
		t.p("VMOVUPS %d(SI), Y%d", 32*i, i)
		t.p("VPAND Y10, Y%d, Y%d", i, 4+i)
	}
	t.across("VPMAXUD", 4) // of bits: a NaN is the largest
	t.p("VMOVD X4, R11")
	t.p("CMPL R11, $0x0d800000") // 2⁻¹⁰⁰
	t.p("JB zeros")
	t.p("CMPL R11, $0x7f800000")
	t.p("JAE odd")
	t.p("VDIVSS X11, X4, X8") // the scale
	t.p("VDIVSS X4, X11, X9")
	t.p("VBROADCASTSS X9, Y9")
	for i := range 4 {
		t.p("VMULPS Y9, Y%d, Y%d", i, i)
		t.p("VCVTPS2DQ Y%d, Y%d", i, i)
		t.p("VMOVDQA Y%d, Y%d", i, 4+i)
	}
	t.p("VPACKSSDW Y1, Y0, Y0")
	t.p("VPACKSSDW Y3, Y2, Y2")
	t.p("VPACKSSWB Y2, Y0, Y0") // fours of elements 0, 8, 16, 24 and 4, 12, 20, 28
	t.p("VPERMQ $0xd8, Y0, Y0")
	t.p("VPSHUFD $0xd8, Y0, Y0")
	t.p("VMOVDQU Y0, (DI)")
	t.across("VPADDD", 4)
	t.p("VMOVD X4, R11")
	t.p("VMOVSS X8, 32(DI)")
	t.p("VCVTDQ2PS X4, X4")
	t.p("VMULSS X8, X4, X4")
	t.p("VMOVSS X4, 40(DI)")
	t.p("NEGL R11")
	t.p("SHLL $3, R11")
	t.p("MOVL R11, 36(DI)")
	t.label("next")
	t.p("ADDQ $128, SI")
	t.p("ADDQ R10, DI")
	t.p("DECQ CX")
	t.p("JNZ block")
	t.p("VZEROUPPER")
	t.p("RET")
	t.label("odd")
	t.p("VMOVDQU Y12, (DI)")
	t.p("VMOVDQU X12, 32(DI)")
	t.p("MOVL $0x7fc00000, R15")
	t.p("MOVL R15, 32(DI)")
	t.p("MOVL R15, 40(DI)")
	t.p("JMP next")
	t.label("zeros")
	t.p("VMOVDQU Y12, (DI)")
	t.p("VMOVDQU X12, 32(DI)")
	t.p("JMP next")
}

// across folds the lanes of four registers into the first of r's.
func (t *avx2) across(op string, r int) {
	t.p("%s Y%d, Y%d, Y%d", op, r+1, r, r)
	t.p("%s Y%d, Y%d, Y%d", op, r+3, r+2, r+2)
	t.p("%s Y%d, Y%d, Y%d", op, r+2, r, r)
	t.p("VEXTRACTI128 $1, Y%d, X%d", r, r+1)
	t.p("%s X%d, X%d, X%d", op, r+1, r, r)
	for _, swap := range []int{0x4e, 0xb1} {
		t.p("VPSHUFD $0x%x, X%d, X%d", swap, r, r+1)
		t.p("%s X%d, X%d, X%d", op, r+1, r, r)
	}
}
