package main

import "math"

// In all of these R0 is the argument and R1 the eight lanes of the panel's block, of which R9 are left. In dots R2 is x's
// block, R3 the sums of these lanes, R4 the blocks left, R5 the rows, R6 the bytes to x's next block, R7 the panel's
// block, R10 to R12 a row's record, its sums and the rows left.

// blockWords are more instructions by their words: of integers whose results are twice as wide, and conversions.
var blockWords = map[string]uint32{
	"mull": 0x0e20c000, "mull2": 0x4e20c000, "mlal": 0x0e208000, "mlal2": 0x4e208000,
	"addlp": 0x4e602800, "adalp": 0x4e606800, "addp": 0x4ea0bc00,
	"float": 0x4e21d800, "half": 0x0e217800, "half2": 0x4e217800,
	"high": 0x6f0c0400, // each byte's
	"umax": 0x6ea06400, "umaxv": 0x6eb0a800, "addv": 0x4eb1b800,
	"narrow4": 0x0e612800, "narrow8": 0x4e612800, "bytes8": 0x0e212800, "bytes16": 0x4e212800,
	"byte1": 0x6f380400, "byte2": 0x6f300400, "byte3": 0x6f280400, // of four: shifts to the right
}

func init() {
	for op, word := range blockWords {
		neonWords[op] = word
	}
}

// every loads four bytes into every lane of d, and moves the register on by four.
func (t *neon) every(d, from int) {
	t.p("WORD $0x%08x // V%d = (R%d) in every lane, R%d += 4", 0x4ddfc800|uint32(from)<<5|uint32(d), d, from, from)
}

// dots prints a panel's sums with rows of rounded x. V16 … V31 are the integers of eight lanes, a group of four inputs in
// two registers, V12 and V13 their scales and V8 and V9 their minima.
func (t *neon) dots(b blocked) {
	t.function("dots"+b.name+"Lanes", 0, 8)
	t.p("MOVD t+0(FP), R0")
	for i, at := range []int{8, 16, 24, 32, 40, 0} {
		t.p("MOVD %d(R0), R%d", at, 2+i)
	}
	t.label("block")
	t.p("MOVD R7, R1")
	t.p("ADD $%d, R7, R13", b.quants)
	t.p("MOVD R3, R14")
	t.p("MOVD $%d, R9", groupBytes/partBytes)
	t.label("part")
	t.integers(b)
	t.scales(b)
	t.p("MOVD R2, R10")
	t.p("MOVD R14, R11")
	t.p("MOVD R5, R12")
	t.label("row")
	t.dotsRow(b)
	t.p("ADD $128, R11, R11")
	t.p("SUBS $1, R12, R12")
	t.p("BNE row")
	t.p("ADD $%d, R14, R14", partBytes)
	t.nextPart()
	t.p("ADD $%d, R7, R7", b.size())
	t.p("ADD R6, R2, R2")
	t.p("SUBS $1, R4, R4")
	t.p("BNE block")
	t.p("RET")
}

// nextPart goes on to the next eight lanes.
func (t *neon) nextPart() {
	t.p("ADD $%d, R1, R1", partBytes)
	t.p("ADD $%d, R13, R13", partBytes/2)
	t.p("SUBS $1, R9, R9")
	t.p("BNE part")
}

// integers loads those of eight lanes: nibbles as they are, bytes without what was added to them.
func (t *neon) integers(b blocked) {
	t.p("VMOVI $%d, V4.B16", map[bool]int{true: 15, false: 128}[b.nibbles])
	t.p("MOVD R1, R8")
	for g := range b.quants / groupBytes {
		r := 16 + 2*g
		t.p("VLD1 (R8), [V%d.B16, V%d.B16]", r, r+1)
		t.p("ADD $%d, R8, R8", groupBytes)
		for h := r; h < r+2; h++ {
			if b.nibbles {
				t.word2("high", h+8, h)
				t.word("and", h, h, 4)
			} else {
				t.word("xor", h, h, 4)
			}
		}
	}
}

// scales loads those at R13 into V12 and V13, and the minima into V8 and V9.
func (t *neon) scales(b blocked) {
	half := func(reg int) {
		t.p("VLD1 (R8), [V0.B16]")
		t.word2("half", reg, 0)
		t.word2("half2", reg+1, 0)
	}
	t.p("MOVD R13, R8")
	half(12)
	if b.minimum {
		t.p("ADD $64, R8, R8")
		half(8)
	}
}

// dotsRow adds the product with one row. A nibble times an int8 is at most 1905 and a sum of eight fits 16 bits; two
// products of int8, of which one is not -128, do too.
func (t *neon) dotsRow(b blocked) {
	for g := range groups {
		t.every(4, 10)
		fresh := g == 0 || !b.nibbles && g%2 == 0
		for h := range 2 {
			op := "mlal"
			if fresh {
				op = "mull"
			}
			t.word(op, 2*h, 16+2*g+h, 4)
			t.word(op+"2", 2*h+1, 16+2*g+h, 4)
		}
		if !b.nibbles && g%2 == 1 {
			for i := range 4 {
				t.word2(map[bool]string{true: "addlp", false: "adalp"}[g == 1], 8+i, i)
			}
		}
	}
	first := 8
	if b.nibbles {
		first = 0
		for i := range 4 {
			t.word2("addlp", i, i)
		}
	}
	t.word("addp", 0, first, first+1)
	t.word("addp", 1, first+2, first+3)
	t.every(5, 10)
	t.every(6, 10)
	t.every(7, 10)
	t.p("ADD $%d, R10, R10", recordSize-44)
	t.p("VLD1 (R11), [V14.S4, V15.S4]")
	for h := range 2 {
		if b.nibbles && b.offset > 0 {
			t.word("plus", h, h, 6)
		}
		t.word2("float", h, h)
		t.word("mul", 4, 12+h, 5)
		t.word("fma", 14+h, h, 4)
		if b.minimum {
			t.word("fma", 14+h, 8+h, 7)
		}
	}
	t.p("VST1 [V14.S4, V15.S4], (R11)")
}

// widen prints the turning of n blocks of a panel into f32 lines: integer times scale plus the minimum, or minus the
// offset times the scale. R2 is the block's first line, R4 the blocks left.
func (t *neon) widen(b blocked) {
	t.function("widen"+b.name+"Lanes", 0, 8)
	t.p("MOVD m+0(FP), R0")
	t.p("MOVD 0(R0), R2")
	t.p("MOVD 8(R0), R7")
	t.p("MOVD 16(R0), R4")
	t.p("MOVD $0xff, R8")
	t.p("VDUP R8, V5.S4")
	t.p("MOVD $0x%08x, R8", math.Float32bits(float32(-b.offset)))
	t.p("VDUP R8, V6.S4")
	t.label("block")
	t.p("MOVD R7, R1")
	t.p("ADD $%d, R7, R13", b.quants)
	t.p("MOVD R2, R14")
	t.p("MOVD $%d, R9", groupBytes/partBytes)
	t.label("part")
	t.rawIntegers(b)
	t.scales(b)
	if !b.minimum {
		t.word("mul", 8, 12, 6)
		t.word("mul", 9, 13, 6)
	}
	t.p("MOVD R14, R11")
	for g := range groups {
		for i := range 4 {
			for h := range 2 {
				from := 16 + 2*g + h
				if i > 0 {
					t.word2([...]string{"", "byte1", "byte2", "byte3"}[i], 0, from)
					from = 0
				}
				t.word("and", 0, from, 5)
				t.word2("float", 0, 0)
				t.copy(14+h, 8+h)
				t.word("fma", 14+h, 0, 12+h)
			}
			t.p("VST1 [V14.S4, V15.S4], (R11)")
			t.p("ADD $128, R11, R11")
		}
	}
	t.p("ADD $%d, R14, R14", partBytes)
	t.nextPart()
	t.p("ADD $%d, R7, R7", b.size())
	t.p("ADD $4096, R2, R2")
	t.p("SUBS $1, R4, R4")
	t.p("BNE block")
	t.p("RET")
}

// rawIntegers loads them with what was added to them.
func (t *neon) rawIntegers(b blocked) {
	if b.nibbles {
		t.integers(b)
		return
	}
	t.p("MOVD R1, R8")
	for g := range groups {
		t.p("VLD1 (R8), [V%d.B16, V%d.B16]", 16+2*g, 17+2*g)
		t.p("ADD $%d, R8, R8", groupBytes)
	}
}

// round prints the rounding of n blocks of a row of x: see blocks.go. R6 is the bytes from one record to the next.
func (t *neon) round() {
	t.function("roundBlocksLanes", 0, 8)
	t.p("MOVD m+0(FP), R0")
	t.p("MOVD 0(R0), R2")
	t.p("MOVD 8(R0), R1")
	t.p("MOVD 16(R0), R4")
	t.p("MOVD 32(R0), R6")
	t.p("MOVD $0x7fffffff, R7")
	t.p("VDUP R7, V20.S4")
	t.p("MOVD $0x42fe0000, R7") // 127
	t.p("FMOVS R7, F21")
	t.label("block")
	t.p("VLD1.P 64(R1), [V0.S4, V1.S4, V2.S4, V3.S4]")
	t.p("VLD1.P 64(R1), [V4.S4, V5.S4, V6.S4, V7.S4]")
	t.word("and", 8, 0, 20)
	for i := 1; i < 8; i++ {
		t.word("and", 9, i, 20)
		t.word("umax", 8, 8, 9)
	}
	t.word2("umaxv", 8, 8) // of bits: a NaN is the largest
	t.p("FMOVS F8, R7")
	t.p("MOVW $0, R10")
	t.p("MOVD $0x0d800000, R8") // 2⁻¹⁰⁰
	t.p("CMPW R8, R7")
	t.p("BLO none")
	t.p("MOVD $0x7fc00000, R10")
	t.p("MOVD $0x7f800000, R8")
	t.p("CMPW R8, R7")
	t.p("BHS none")
	t.p("FDIVS F21, F8, F9")  // the scale
	t.p("FDIVS F8, F21, F10") // what is multiplied by
	t.p("VDUP V10.S[0], V10.S4")
	for i := range 8 {
		t.word("mul", i, i, 10)
		t.word2("integer", i, i)
	}
	t.word("plus", 11, 0, 1)
	for i := 2; i < 8; i++ {
		t.word("plus", 11, 11, i)
	}
	t.word2("addv", 11, 11)
	for i := 0; i < 8; i += 2 {
		t.word2("narrow4", i, i)
		t.word2("narrow8", i, i+1)
	}
	for i := 0; i < 8; i += 4 {
		t.word2("bytes8", i, i)
		t.word2("bytes16", i, i+2)
	}
	t.p("VST1 [V0.B16], (R2)")
	t.p("ADD $16, R2, R8")
	t.p("VST1 [V4.B16], (R8)")
	t.p("FMOVS F11, R7")
	t.p("SCVTFWS R7, F12")
	t.p("FMULS F9, F12, F12")
	t.p("LSLW $3, R7, R7")
	t.p("NEGW R7, R7")
	t.p("FMOVS F9, 32(R2)")
	t.p("MOVW R7, 36(R2)")
	t.p("FMOVS F12, 40(R2)")
	t.label("next")
	t.p("ADD R6, R2, R2")
	t.p("SUBS $1, R4, R4")
	t.p("BNE block")
	t.p("RET")
	t.label("none")
	t.p("STP (ZR, ZR), 0(R2)")
	t.p("STP (ZR, ZR), 16(R2)")
	t.p("MOVW R10, 32(R2)")
	t.p("MOVW ZR, 36(R2)")
	t.p("MOVW R10, 40(R2)")
	t.p("B next")
}
