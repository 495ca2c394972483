package main

import "fmt"

// transpose prints the transpose of 16 rows of 16 float32, or of the low or high halves of four bytes as bf16: of pieces
// that fit the registers, one after the other. DI is where columns go, R11 bytes apart, SI the rows, R10 bytes apart.
func (t *avx2) transpose(kind string) {
	t.function("transpose"+kind+"Lanes", 0, 8)
	t.p("MOVQ m+0(FP), AX")
	t.p("MOVQ 0(AX), DI")
	t.p("MOVQ 8(AX), SI")
	t.p("MOVQ 24(AX), R10")
	t.p("MOVQ 32(AX), R11")
	for column := range 2 {
		t.p("MOVQ SI, R12")
		for row := range 2 {
			t.p("MOVQ DI, R13")
			for i := range 8 {
				t.rowOf(kind, fmt.Sprintf("%d(R12)", 32*column), i)
				t.p("ADDQ R10, R12")
			}
			t.transpose8()
			for i := range 8 {
				t.p("VMOVUPS Y%d, %d(R13)", i, 32*row)
				t.p("ADDQ R11, R13")
			}
		}
		t.p("LEAQ (DI)(R11*8), DI")
	}
	t.p("VZEROUPPER")
	t.p("RET")
}

// rowOf loads eight elements as float32.
func (t *avx2) rowOf(kind, from string, reg int) {
	t.p("VMOVUPS %s, Y%d", from, reg)
	if kind == "High" {
		t.p("VPSRLD $16, Y%d, Y%d", reg, reg)
	}
	if kind != "F32" {
		t.p("VPSLLD $16, Y%d, Y%d", reg, reg)
	}
}

// transpose8 turns the rows of Y0 … Y7 into columns, by pairs, fours and eights.
func (t *avx2) transpose8() {
	for i := 0; i < 8; i += 2 {
		t.p("VUNPCKLPS Y%d, Y%d, Y%d", i+1, i, 8+i)
		t.p("VUNPCKHPS Y%d, Y%d, Y%d", i+1, i, 9+i)
	}
	for i := 0; i < 8; i += 4 {
		for h := range 2 {
			t.p("VUNPCKLPD Y%d, Y%d, Y%d", 10+i+h, 8+i+h, i+2*h)
			t.p("VUNPCKHPD Y%d, Y%d, Y%d", 10+i+h, 8+i+h, i+2*h+1)
		}
	}
	for i := range 4 {
		t.p("VPERM2F128 $0x20, Y%d, Y%d, Y%d", 4+i, i, 8+i)
		t.p("VPERM2F128 $0x31, Y%d, Y%d, Y%d", 4+i, i, 12+i)
	}
	for i := range 8 {
		t.p("VMOVAPS Y%d, Y%d", 8+i, i)
	}
}

// transpose of NEON: R2 is where columns go, R11 bytes apart, R1 the rows, R10 bytes apart.
func (t *neon) transpose(kind string) {
	t.function("transpose"+kind+"Lanes", 0, 8)
	t.p("MOVD m+0(FP), R0")
	t.p("MOVD 0(R0), R2")
	t.p("MOVD 8(R0), R1")
	t.p("MOVD 24(R0), R10")
	t.p("MOVD 32(R0), R11")
	if kind == "High" {
		t.p("MOVD $0xffff0000, R7")
		t.p("VDUP R7, V30.S4")
	}
	t.p("MOVD $4, R9")
	t.label("rows")
	t.p("MOVD R2, R13")
	for i := range 4 {
		t.p("VLD1 (R1), [V%d.S4, V%d.S4, V%d.S4, V%d.S4]", 4*i, 4*i+1, 4*i+2, 4*i+3)
		t.p("ADD R10, R1, R1")
		for j := 4 * i; j < 4*i+4; j++ {
			switch kind {
			case "Low":
				t.word2("shift16", j, j)
			case "High":
				t.word("and", j, j, 30)
			}
		}
	}
	for c := range 4 { // columns 4c … 4c+3 of four rows
		for h := range 2 {
			a, b := 8*h+c, 8*h+4+c
			t.p("VTRN1 V%d.S4, V%d.S4, V%d.S4", b, a, 16+2*h)
			t.p("VTRN2 V%d.S4, V%d.S4, V%d.S4", b, a, 17+2*h)
		}
		for i := range 2 {
			t.p("VTRN1 V%d.D2, V%d.D2, V%d.D2", 18+i, 16+i, 20+i)
			t.p("VTRN2 V%d.D2, V%d.D2, V%d.D2", 18+i, 16+i, 22+i)
		}
		for i := range 4 {
			t.p("VST1 [V%d.S4], (R13)", 20+i)
			t.p("ADD R11, R13, R13")
		}
	}
	t.p("ADD $16, R2, R2")
	t.p("SUBS $1, R9, R9")
	t.p("BNE rows")
	t.p("RET")
}
