package main

import "fmt"

// A blocked is a type of weights in blocks: see kernels/cpu/blocks.go for how panels hold them.
type blocked struct {
	name    string
	quants  int  // bytes of a block of 32 lanes before the scales
	nibbles bool // two to a byte
	offset  int  // what is taken off each integer
	minimum bool // there is a line of them after the scales, and no offset
}

var blockTypes = []blocked{
	{name: "Q8", quants: 1024, offset: 128},
	{name: "Q40", quants: 512, nibbles: true, offset: 8},
	{name: "Q41", quants: 512, nibbles: true, minimum: true},
}

// size is the bytes of a block of 32 lanes.
func (b blocked) size() int {
	if b.minimum {
		return b.quants + 128
	}
	return b.quants + 64
}

// farRows is the most rows of which nibbles are asked for far ahead, into the second cache; with more, arithmetic takes
// so long that they come into the nearest in time from nearby. Bytes, twice as many, go to the second cache always.
const farRows = 8

// prefetch asks for what comes as long after the block as DX is after DI.
func (a *assembly) prefetch(b blocked) {
	if b.nibbles {
		a.op("CMPQ R9, $%d", farRows)
		a.op("JA   near")
	}
	for i := range b.size() / 64 {
		a.op("PREFETCHT1 %d(DX)", 64*i)
	}
	if !b.nibbles {
		return
	}
	a.op("JMP  asked")
	a.label("near")
	for i := range b.size() / 64 {
		a.op("PREFETCHT0 %d(DI)", 4096+64*i)
	}
	a.label("asked")
}

// blockDots writes, for each type, the sums of blocks of a panel with rows of rounded x. DI is the block, DX
// what is prefetched, SI x's block and R8 the sums; Z16 … hold the block's integers, Z0 and Z1 its scales, Z2
// and Z3 its minima. R14 is a row of out, BX bytes from the next: with the first block they are asked for, so that storeSums
// finds them in the second cache; after that BX is 0.
func (a *assembly) blockDots() {
	for _, b := range blockTypes {
		a.function("dots"+b.name, "t", "blockTile")
		a.op("MOVQ 0(AX), DI")
		a.op("MOVQ 8(AX), SI")
		a.op("MOVQ 16(AX), R8")
		a.op("MOVQ 24(AX), CX")
		a.op("MOVQ 32(AX), R9")
		a.op("MOVQ 40(AX), R10")
		a.op("MOVQ 80(AX), DX")
		a.op("MOVQ 48(AX), R14")
		a.op("MOVQ 56(AX), BX")
		a.nibbleMask(b)
		a.label("block")
		a.prefetch(b)
		a.integers(b)
		a.op("VCVTPH2PS %d(DI), Z0", b.quants)
		a.op("VCVTPH2PS %d(DI), Z1", b.quants+32)
		if b.minimum {
			a.op("VCVTPH2PS %d(DI), Z2", b.quants+64)
			a.op("VCVTPH2PS %d(DI), Z3", b.quants+96)
		}
		a.op("MOVQ SI, R11")
		a.op("MOVQ R8, R12")
		a.op("MOVQ R9, R13")
		a.label("row")
		a.op("PREFETCHT1 (R14)")
		a.op("PREFETCHT1 64(R14)")
		a.op("ADDQ BX, R14")
		a.blockRow(b)
		a.op("ADDQ $48, R11")
		a.op("ADDQ $128, R12")
		a.op("DECQ R13")
		a.op("JNZ  row")
		a.op("ADDQ $%d, DI", b.size())
		a.op("ADDQ $%d, DX", b.size())
		a.op("ADDQ R10, SI")
		a.op("MOVQ 48(AX), R14")
		a.op("XORQ BX, BX")
		a.op("DECQ CX")
		a.op("JNZ  block")
		a.ret()
	}
}

func (a *assembly) nibbleMask(b blocked) {
	if b.nibbles {
		a.op("MOVL $0x0f0f0f0f, R15")
		a.op("VPBROADCASTD R15, Z12")
	}
}

// integers loads a block's into Z16 …: four neighbours of 16 lanes each.
func (a *assembly) integers(b blocked) {
	if !b.nibbles {
		for i := range 16 {
			a.op("VMOVDQU32 %d(DI), Z%d", 64*i, 16+i)
		}
		return
	}
	for i := range 8 {
		a.op("VMOVDQU32 %d(DI), Z%d", 64*i, 24+i)
		a.op("VPANDD Z12, Z%d, Z%d", 24+i, 16+i)
		a.op("VPSRLD $4, Z%d, Z%d", 24+i, 24+i)
		a.op("VPANDD Z12, Z%d, Z%d", 24+i, 24+i)
	}
}

// blockRow adds a block's product with one row, at R11, to the row's sums, at R12. The row has, after its
// integers, its scale, -8 times the sum of its integers, and scale times sum.
func (a *assembly) blockRow(b blocked) {
	if b.minimum {
		a.op("VPXORD Z4, Z4, Z4")
		a.op("VPXORD Z5, Z5, Z5")
	} else {
		a.op("VPBROADCASTD 36(R11), Z4")
		if b.offset == 128 {
			a.op("VPSLLD $4, Z4, Z4")
		}
		a.op("VMOVDQA32 Z4, Z5")
	}
	for g := range 8 {
		for h := range 2 {
			a.op("VPDPBUSD.BCST %d(R11), Z%d, Z%d", 4*g, 16+2*g+h, 4+h)
		}
	}
	a.op("VBROADCASTSS 32(R11), Z6")
	for h := range 2 {
		a.op("VCVTDQ2PS Z%d, Z%d", 4+h, 4+h)
		a.op("VMULPS Z%d, Z6, Z%d", h, 7+h)
		a.op("VMOVUPS %d(R12), Z%d", 64*h, 9+h)
		a.op("VFMADD231PS Z%d, Z%d, Z%d", 4+h, 7+h, 9+h)
	}
	if b.minimum {
		a.op("VBROADCASTSS 40(R11), Z11")
		a.op("VFMADD231PS Z2, Z11, Z9")
		a.op("VFMADD231PS Z3, Z11, Z10")
	}
	a.op("VMOVUPS Z9, (R12)")
	a.op("VMOVUPS Z10, 64(R12)")
}

// blockStore writes what puts the sums into out, with what is added to them if there is something.
func (a *assembly) blockStore() {
	a.function("storeSums", "t", "blockTile")
	a.op("MOVQ 16(AX), R8")
	a.op("MOVQ 32(AX), CX")
	a.op("MOVQ 48(AX), DI")
	a.op("MOVQ 56(AX), R10")
	a.op("MOVQ 64(AX), SI")
	a.op("MOVL 72(AX), R15")
	a.op("MOVQ 88(AX), R11")
	a.op("MOVQ 96(AX), R9")
	a.op("KMOVW R15, K1")
	a.op("SHRL $16, R15")
	a.op("KMOVW R15, K2")
	a.op("TESTQ SI, SI")
	a.op("JZ   plain")
	a.label("added")
	a.loadLine("SI", "Z0", "Z1", 2)
	a.loadLine("R8", "Z2", "Z3", 2)
	for h := range 2 {
		a.op("VADDPS Z%d, Z%d, Z%d", 2+h, h, h)
		a.op("VMOVUPS Z%d, K%d, %d(DI)", h, h+1, 64*h)
	}
	a.op("ADDQ R11, SI")
	a.nextSums("added")
	a.label("plain")
	a.loadLine("R8", "Z0", "Z1", 2)
	for h := range 2 {
		a.op("VMOVUPS Z%d, K%d, %d(DI)", h, h+1, 64*h)
	}
	a.nextSums("plain")
}

func (a *assembly) nextSums(loop string) {
	a.op("ADDQ R9, R8")
	a.op("ADDQ R10, DI")
	a.op("DECQ CX")
	a.op("JNZ  %s", loop)
	a.ret()
}

// blockWiden writes, for each type, the turning of n blocks of a panel into f32 lines: integer times scale
// plus the minimum, or minus the offset times the scale.
func (a *assembly) blockWiden() {
	for _, b := range blockTypes {
		a.function("widen"+b.name, "m", "move")
		a.op("MOVQ 0(AX), SI")
		a.op("MOVQ 8(AX), DI")
		a.op("MOVQ 16(AX), CX")
		a.nibbleMask(b)
		a.op("MOVL $0xff, R15")
		a.op("VPBROADCASTD R15, Z13")
		a.op("MOVL $0x%08x, R15", map[int]int{128: 0xc3000000, 8: 0xc1000000, 0: 0}[b.offset]) // -128, -8
		a.op("VPBROADCASTD R15, Z14")
		a.label("block")
		for i := range b.size() / 64 {
			a.op("PREFETCHT0 %d(DI)", 4096+64*i)
		}
		a.integers(b)
		for h := range 2 {
			a.op("VCVTPH2PS %d(DI), Z%d", b.quants+32*h, h)
			if b.minimum {
				a.op("VCVTPH2PS %d(DI), Z%d", b.quants+64+32*h, 2+h)
			} else {
				a.op("VMULPS Z%d, Z14, Z%d", h, 2+h)
			}
		}
		for k := range 32 {
			for h := range 2 {
				from, to := fmt.Sprintf("Z%d", 16+k/4*2+h), fmt.Sprintf("Z%d", 4+h)
				if k%4 > 0 {
					a.op("VPSRLD $%d, %s, %s", 8*(k%4), from, to)
					from = to
				}
				if k%4 < 3 {
					a.op("VPANDD Z13, %s, %s", from, to)
				}
				a.op("VCVTDQ2PS %s, %s", to, to)
				a.op("VFMADD213PS Z%d, Z%d, %s", 2+h, h, to)
				a.op("VMOVUPS %s, %d(SI)", to, 128*k+64*h)
			}
		}
		a.op("ADDQ $%d, DI", b.size())
		a.op("ADDQ $4096, SI")
		a.op("DECQ CX")
		a.op("JNZ  block")
		a.ret()
	}
}

// blockRound writes the rounding of n blocks of a row of x: see blocks.go. R10 is the bytes from one
// record to the next.
func (a *assembly) blockRound() {
	a.function("roundBlocks", "m", "move")
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 16(AX), CX")
	a.op("MOVQ 32(AX), R10")
	a.op("MOVL $0x7fffffff, R15")
	a.op("VPBROADCASTD R15, Z10")
	a.op("MOVL $0x42fe0000, R15") // 127
	a.op("VMOVD R15, X11")
	a.op("VPXORD Z12, Z12, Z12")
	a.label("block")
	a.op("VMOVUPS (SI), Z0")
	a.op("VMOVUPS 64(SI), Z1")
	a.op("VPANDD Z10, Z0, Z2")
	a.op("VPANDD Z10, Z1, Z3")
	a.op("VPMAXUD Z2, Z3, Z2") // of bits: a NaN is the largest
	a.across("VPMAXUD")
	a.op("VMOVD X2, R11")
	a.op("CMPL R11, $0x0d800000") // 2⁻¹⁰⁰
	a.op("JB   zeros")
	a.op("CMPL R11, $0x7f800000")
	a.op("JAE  odd")
	a.op("VDIVSS X11, X2, X4") // the scale
	a.op("VDIVSS X2, X11, X5")
	a.op("VBROADCASTSS X5, Z5")
	for h := range 2 {
		a.op("VMULPS Z5, Z%d, Z%d", h, h)
		a.op("VCVTPS2DQ Z%d, Z%d", h, h)
		a.op("VPMOVDB Z%d, X6", h)
		a.op("VMOVDQU X6, %d(DI)", 16*h)
	}
	a.op("VPADDD Z0, Z1, Z2")
	a.across("VPADDD")
	a.op("VMOVD X2, R11")
	a.op("VMOVSS X4, 32(DI)")
	a.op("VCVTDQ2PS X2, X2")
	a.op("VMULSS X4, X2, X2")
	a.op("VMOVSS X2, 40(DI)")
	a.op("NEGL R11")
	a.op("SHLL $3, R11")
	a.op("MOVL R11, 36(DI)")
	a.label("next")
	a.op("ADDQ $128, SI")
	a.op("ADDQ R10, DI")
	a.op("DECQ CX")
	a.op("JNZ  block")
	a.ret()
	a.label("odd")
	a.op("VMOVDQU Y12, (DI)")
	a.op("MOVL $0x7fc00000, R15")
	a.op("MOVL R15, 32(DI)")
	a.op("MOVL $0, 36(DI)")
	a.op("MOVL R15, 40(DI)")
	a.op("JMP  next")
	a.label("zeros")
	a.op("VMOVDQU Y12, (DI)")
	a.op("VMOVDQU X12, 32(DI)")
	a.op("JMP  next")
}

// across folds the 16 lanes of Z2 into the first.
func (a *assembly) across(op string) {
	a.op("VEXTRACTI64X4 $1, Z2, Y3")
	a.op("%s Y3, Y2, Y2", op)
	a.op("VEXTRACTI128 $1, Y2, X3")
	a.op("%s X3, X2, X2", op)
	for _, swap := range []int{0x4e, 0xb1} {
		a.op("VPSHUFD $0x%x, X2, X3", swap)
		a.op("%s X3, X2, X2", op)
	}
}
