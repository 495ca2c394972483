package main

import "fmt"

// Registers of a tile: R2 the panel's line, R10 bytes to the next, R3 … R8 the rows of x, R9 the bytes from
// one k to the next, R11 what is left of k. V0 … V3 hold the line, V4 an element of x, V5 the mask of high
// halves, V8 … the sums.
func (t *neon) tile(kind string, lanes int) {
	t.function(fmt.Sprintf("tile%sLanes%d", kind, lanes), 0, 16)
	t.p("MOVD t+0(FP), R0")
	t.p("MOVD rows+8(FP), R1")
	t.p("MOVD 0(R0), R2")
	t.p("MOVD 8(R0), R3")
	t.p("MOVD 32(R0), R11")
	t.p("MOVD 40(R0), R10")
	t.p("MOVD 48(R0), R12")
	t.p("MOVD 56(R0), R9")
	t.p("MOVD 64(R0), R13")
	for r := 1; r < tileRows; r++ {
		t.p("ADD R12, R%d, R%d", 2+r, 3+r)
	}
	if kind == "High" {
		t.p("MOVD $0xffff0000, R7")
		t.p("VDUP R7, V5.S4")
		t.p("ADD R12, R6, R7")
	}
	for rows := 1; rows < tileRows; rows++ {
		t.p("CMP $%d, R1", rows)
		t.p("BEQ rows%d", rows)
	}
	for rows := tileRows; rows > 0; rows-- {
		t.label(fmt.Sprintf("rows%d", rows))
		t.tileOf(kind, lanes, rows)
		t.p("RET")
	}
}

// lineOf prints a load or a store of the registers of a row of lanes at an address.
func (t *neon) lineOf(at string, lanes, reg int, store bool) {
	list := fmt.Sprintf("[V%d.S4]", reg)
	if lanes == 16 {
		list = fmt.Sprintf("[V%d.S4, V%d.S4, V%d.S4, V%d.S4]", reg, reg+1, reg+2, reg+3)
	}
	switch {
	case lanes == 1 && store:
		t.p("FMOVS F%d, (%s)", reg, at)
	case lanes == 1:
		t.p("FMOVS (%s), F%d", at, reg)
	case store:
		t.p("VST1 %s, (%s)", list, at)
	default:
		t.p("VLD1 (%s), %s", at, list)
	}
}

func (t *neon) tileOf(kind string, lanes, rows int) {
	n := max(1, lanes/4)
	sum := func(r, h int) int { return 8 + n*r + h }
	name := func(what string) string { return fmt.Sprintf("%s%d", what, rows) }
	t.p("MOVW 92(R0), R12")
	t.p("CBNZ R12, %s", name("load"))
	for r := range rows {
		for h := range n {
			t.p("VEOR V%[1]d.B16, V%[1]d.B16, V%[1]d.B16", sum(r, h))
		}
	}
	t.p("B %s", name("begin"))
	t.label(name("load"))
	t.p("MOVD 16(R0), R12")
	for r := range rows {
		t.lineOf("R12", lanes, sum(r, 0), false)
		t.p("ADD R13, R12, R12")
	}
	t.label(name("begin"))
	t.p("CBZ R11, %s", name("summed"))
	t.label(name("loop"))
	t.lineOf("R2", lanes, 0, false)
	t.p("ADD R10, R2, R2")
	for h := range n {
		switch kind {
		case "Low":
			t.word2("shift16", h, h)
		case "High":
			t.word("and", h, h, 5)
		}
	}
	for r := range rows {
		t.p("WORD $0x%08x // V4 = (R%d) in every lane, R%d += R9", 0x4dc0c800|9<<16|uint32(3+r)<<5|4, 3+r, 3+r)
		for h := range n {
			t.word("fma", sum(r, h), h, 4)
		}
	}
	t.p("SUBS $1, R11, R11")
	t.p("BNE %s", name("loop"))
	t.label(name("summed"))
	t.p("FMOVS 96(R0), F4")
	t.p("VDUP V4.S[0], V4.S4")
	for r := range rows {
		for h := range n {
			t.word("mul", sum(r, h), sum(r, h), 4)
		}
	}
	t.p("MOVD 24(R0), R12")
	t.p("CBZ R12, %s", name("store"))
	t.lineOf("R12", lanes, 0, false)
	for r := range rows {
		for h := range n {
			t.word("add", sum(r, h), sum(r, h), h)
		}
	}
	t.label(name("store"))
	t.p("MOVD 16(R0), R12")
	for r := range rows {
		t.lineOf("R12", lanes, sum(r, 0), true)
		t.p("ADD R13, R12, R12")
	}
}

func (t *neon) roof() {
	t.function("roofLanes", 0, 8)
	t.p("MOVD n+0(FP), R0")
	for i := range 26 {
		t.p("VEOR V%[1]d.B16, V%[1]d.B16, V%[1]d.B16", i)
	}
	t.label("loop")
	for i := range 24 {
		t.word("fma", i, 24, 25)
	}
	t.p("SUBS $1, R0, R0")
	t.p("BNE loop")
	t.p("RET")
}
