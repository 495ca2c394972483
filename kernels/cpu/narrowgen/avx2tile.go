package main

import "fmt"

// Registers of a tile are those of the AVX-512 ones (kernels/cpu/gen): DI the panel's line, R14 bytes to the next,
// SI row 0 of x, R10 to R12 one, three and five times the bytes between rows, R9 the bytes from one k to
// the next, CX what is left of k, R15 and R8 for the ends. Y0 and Y1 hold the line, Y2 an element of x, Y3
// the mask of high halves, Y4 … the sums.

// vectors are how many registers a row of so many lanes takes, and their prefix.
func vectors(lanes int) (n int, prefix string) {
	switch lanes {
	case 16:
		return 2, "Y"
	default:
		return 1, "X"
	}
}

func (t *avx2) tile(kind string, lanes int) {
	t.function(fmt.Sprintf("tile%sLanes%d", kind, lanes), 0, 16)
	t.p("MOVQ t+0(FP), AX")
	t.p("MOVQ rows+8(FP), R15")
	t.p("MOVQ 0(AX), DI")
	t.p("MOVQ 8(AX), SI")
	t.p("MOVQ 32(AX), CX")
	t.p("MOVQ 40(AX), R14")
	t.p("MOVQ 48(AX), R10")
	t.p("MOVQ 56(AX), R9")
	t.p("LEAQ (R10)(R10*2), R11")
	t.p("LEAQ (R10)(R10*4), R12")
	if kind == "High" {
		t.p("VPCMPEQD Y3, Y3, Y3")
		t.p("VPSLLD $16, Y3, Y3")
	}
	for rows := 1; rows < tileRows; rows++ {
		t.p("CMPQ R15, $%d", rows)
		t.p("JEQ rows%d", rows)
	}
	for rows := tileRows; rows > 0; rows-- {
		t.label(fmt.Sprintf("rows%d", rows))
		t.tileOf(kind, lanes, rows)
		t.p("VZEROUPPER")
		t.p("RET")
	}
}

// line prints a load of a row of lanes.
func (t *avx2) lineOf(from string, at, lanes int, reg string) {
	if lanes == 1 {
		t.p("VMOVSS %d(%s), %s", at, from, reg)
	} else {
		t.p("VMOVUPS %d(%s), %s", at, from, reg)
	}
}

func (t *avx2) tileOf(kind string, lanes, rows int) {
	n, v := vectors(lanes)
	sum := func(r, h int) string { return fmt.Sprintf("%s%d", v, 4+n*r+h) }
	name := func(what string) string { return fmt.Sprintf("%s%d", what, rows) }
	t.p("CMPL 92(AX), $0")
	t.p("JNE %s", name("load"))
	for r := range rows {
		for h := range n {
			t.p("VXORPS %[1]s, %[1]s, %[1]s", sum(r, h))
		}
	}
	t.p("JMP %s", name("begin"))
	t.label(name("load"))
	t.p("MOVQ 16(AX), R8")
	for r := range rows {
		for h := range n {
			t.lineOf("R8", 32*h, lanes, sum(r, h))
		}
		t.p("ADDQ 64(AX), R8")
	}
	t.label(name("begin"))
	t.p("TESTQ CX, CX")
	t.p("JZ %s", name("summed"))
	t.label(name("loop"))
	for h := range n {
		t.lineOf("DI", 32*h, lanes, fmt.Sprintf("%s%d", v, h))
		switch kind {
		case "Low":
			t.p("VPSLLD $16, %s%d, %s%d", v, h, v, h)
		case "High":
			t.p("VPAND %s3, %s%d, %s%d", v, v, h, v, h)
		}
	}
	for r := range rows {
		at := [...]string{"(SI)", "(SI)(R10*1)", "(SI)(R10*2)", "(SI)(R11*1)", "(SI)(R10*4)", "(SI)(R12*1)"}[r]
		t.p("VBROADCASTSS %s, %s2", at, v)
		for h := range n {
			t.p("VFMADD231PS %s%d, %s2, %s", v, h, v, sum(r, h))
		}
	}
	t.p("ADDQ R14, DI")
	t.p("ADDQ R9, SI")
	t.p("DECQ CX")
	t.p("JNZ %s", name("loop"))
	t.label(name("summed"))
	t.tileEnd(lanes, rows, sum, name("store"))
}

// tileEnd multiplies the sums by alpha, adds the bias if there is one, and stores them.
func (t *avx2) tileEnd(lanes, rows int, sum func(r, h int) string, store string) {
	n, v := vectors(lanes)
	t.p("VBROADCASTSS 96(AX), %s2", v)
	for r := range rows {
		for h := range n {
			t.p("VMULPS %s2, %s, %s", v, sum(r, h), sum(r, h))
		}
	}
	t.p("MOVQ 24(AX), R8")
	t.p("TESTQ R8, R8")
	t.p("JZ %s", store)
	for h := range n {
		t.lineOf("R8", 32*h, lanes, fmt.Sprintf("%s%d", v, h))
	}
	for r := range rows {
		for h := range n {
			t.p("VADDPS %s%d, %s, %s", v, h, sum(r, h), sum(r, h))
		}
	}
	t.label(store)
	t.p("MOVQ 16(AX), R8")
	for r := range rows {
		for h := range n {
			if lanes == 1 {
				t.p("VMOVSS %s, (R8)", sum(r, h))
			} else {
				t.p("VMOVUPS %s, %d(R8)", sum(r, h), 32*h)
			}
		}
		t.p("ADDQ 64(AX), R8")
	}
}

func (t *avx2) roof() {
	t.function("roofLanes", 0, 8)
	t.p("MOVQ n+0(FP), CX")
	for i := range 14 {
		t.p("VXORPS Y%[1]d, Y%[1]d, Y%[1]d", i)
	}
	t.label("loop")
	for i := range 12 {
		t.p("VFMADD231PS Y12, Y13, Y%d", i)
	}
	t.p("DECQ CX")
	t.p("JNZ loop")
	t.p("VZEROUPPER")
	t.p("RET")
}
