package main

// transposeF32 writes the transpose of a block of up to 16 rows and 16 columns.
func (a *assembly) transposeF32() {
	a.function("transposeF32x16", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 16(AX), CX")
	a.op("MOVQ 24(AX), R10")
	a.op("MOVQ 32(AX), R11")
	a.op("MOVL 40(AX), R15")
	a.op("KMOVW R15, K1")
	for i := range 16 {
		a.op("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	for i := range 16 {
		a.op("CMPQ CX, $%d", i)
		a.op("JLE  loaded")
		a.op("VMOVUPS.Z (SI), K1, Z%d", i)
		a.op("ADDQ R10, SI")
	}
	a.label("loaded")
	a.transpose16()
	a.storeRows(16)
	a.ret()
}

// transposeBF16 writes the transpose of 16 bf16 panel lines to 32 rows of 16 f32.
func (a *assembly) transposeBF16() {
	a.function("transposeBF16x16", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 32(AX), R11")
	for i := range 16 {
		a.op("VPSLLD $16, %d(SI), Z%d", 64*i, i)
	}
	a.transpose16()
	a.storeRows(16)
	a.op("VPTERNLOGD $255, Z31, Z31, Z31")
	a.op("VPSLLD $16, Z31, Z31")
	for i := range 16 {
		a.op("VPANDD %d(SI), Z31, Z%d", 64*i, i)
	}
	a.transpose16()
	a.storeRows(16)
	a.ret()
}

// storeRows stores Z0 … R11 bytes apart from DI on, and moves DI on.
func (a *assembly) storeRows(n int) {
	for i := range n {
		a.op("VMOVUPS Z%d, (DI)", i)
		a.op("ADDQ R11, DI")
	}
}

// transpose16 turns the rows of Z0 … Z15 into columns, by pairs, then fours, eights and sixteens.
func (a *assembly) transpose16() {
	for i := 0; i < 16; i += 2 {
		a.op("VUNPCKLPS Z%d, Z%d, Z%d", i+1, i, 16+i)
		a.op("VUNPCKHPS Z%d, Z%d, Z%d", i+1, i, 17+i)
	}
	for i := 0; i < 16; i += 4 {
		for h := range 2 {
			a.op("VUNPCKLPD Z%d, Z%d, Z%d", 18+i+h, 16+i+h, i+2*h)
			a.op("VUNPCKHPD Z%d, Z%d, Z%d", 18+i+h, 16+i+h, i+2*h+1)
		}
	}
	for j := range 4 {
		for h := range 2 {
			a.op("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", 8*h+4+j, 8*h+j, 16+4*j+2*h)
			a.op("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", 8*h+4+j, 8*h+j, 17+4*j+2*h)
		}
	}
	for j := range 4 {
		for h := range 2 {
			a.op("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", 18+4*j+h, 16+4*j+h, 4*h+j)
			a.op("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", 18+4*j+h, 16+4*j+h, 8+4*h+j)
		}
	}
}

// roofs writes what measures the processor: multiply-adds as fast as they go, and reading as fast.
func (a *assembly) roofs() {
	a.function("roofFMA", "m", "move")
	a.op("MOVQ 16(AX), CX")
	for i := range 18 {
		a.op("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	a.label("loop")
	for i := range 16 {
		a.op("VFMADD231PS Z16, Z17, Z%d", i)
	}
	a.op("DECQ CX")
	a.op("JNZ  loop")
	a.ret()

	a.function("roofRead", "m", "move")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 16(AX), CX")
	a.label("loop")
	for i := range 8 {
		a.op("PREFETCHT0 %d(SI)", 4096+64*i)
	}
	for i := range 8 {
		a.op("VPADDD %d(SI), Z%d, Z%d", 64*i, i, i)
	}
	a.op("ADDQ $512, SI")
	a.op("DECQ CX")
	a.op("JNZ  loop")
	a.ret()
}
