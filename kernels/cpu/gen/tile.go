package main

import (
	"fmt"
	"regexp"
	"strings"
)

// Registers of a tile: DI the panel's line, R14 bytes to the next; SI and R8 rows 0 and 8 of x, R10
// to R13 one, three, five and seven times the bytes between rows, R9 the bytes from one k to the next;
// CX what is left of k; DX and BX the prefetch; Z0 and Z1 the line, Z2 an element of x, Z3 bf16's mask,
// Z4 … the sums, two a row; K1 and K2 the lanes that exist.

// row is the address of this k's element of a row of x.
func row(r int) string {
	base := [...]string{"(SI)", "(R8)"}[r/8]
	index := [...]string{"", "(R10*1)", "(R10*2)", "(R11*1)", "(R10*4)", "(R12*1)", "(R11*2)", "(R13*1)"}
	return base + index[r%8]
}

// sum is the register of 16 sums of a row: half 0 or 1.
func sum(row, half int) string { return fmt.Sprintf("Z%d", 4+2*row+half) }

// tile writes a tile of f32 or bf16 lines, or of the first half of f32 lines: for every k, ascending,
// one fused multiply-add into each sum. In tiles of pairs, by one instruction or by two multiply-adds,
// k counts pairs.
func (a *assembly) tile(typ string, rows int) {
	halves := 2
	if typ == "Half" {
		halves = 1
	}
	frame := 0
	if typ == "PairFMA" {
		frame = 8
	}
	a.framed(frame, fmt.Sprintf("tile%sx%d", typ, rows), "t", "tile")
	a.tileArguments(typ, rows)
	a.tileStart(rows, halves)
	a.label("begin")
	if typ == "PairFMA" {
		a.flush(true)
	}
	a.op("TESTQ CX, CX")
	a.op("JZ   summed")
	a.label("loop")
	level := "T1" // the nearest cache has too few places for lines under way to take them from memory
	if typ == "BF16" {
		level = "T0" // half the bytes: they do, and T1 was slower
	}
	a.op("PREFETCH%s (DX)", level)
	a.op("PREFETCH%s (DX)(BX*1)", level)
	a.op("LEAQ (DX)(BX*2), DX")
	if typ != "BF16" {
		a.loadLine("DI", "Z0", "Z1", halves)
	} else { // lanes j and j+16 share four bytes
		a.op("VPSLLD $16, (DI), Z0")
		a.op("VPANDD (DI), Z3, Z1")
	}
	if typ == "PairFMA" {
		a.splitLine()
	}
	for r := range rows {
		a.op("VBROADCASTSS %s, Z2", row(r))
		switch typ {
		case "Pair":
			a.dpbf16(0, 2, 4+2*r)
			a.dpbf16(1, 2, 5+2*r)
		case "PairFMA":
			a.pairByFMA(r)
		default:
			for h := range halves {
				a.op("VFMADD231PS Z%d, Z2, %s", h, sum(r, h))
			}
		}
	}
	a.op("ADDQ R14, DI")
	a.op("ADDQ R9, SI")
	if rows > 8 {
		a.op("ADDQ R9, R8")
	}
	a.op("DECQ CX")
	a.op("JNZ  loop")
	a.label("summed")
	if typ == "PairFMA" {
		a.flush(false)
	}
	a.tileEnd(rows, halves)
}

// quarter writes a tile of the first quarter of f32 lines: a half's, in vectors of half the length. Zen 4 does twice as
// many of these a cycle.
func (a *assembly) quarter(rows int) {
	var half assembly
	half.tile("Half", rows)
	a.WriteString(register.ReplaceAllString(strings.ReplaceAll(half.String(), "Half", "Quarter"), "Y$1"))
}

var register = regexp.MustCompile(`\bZ(\d+)`)

// loadLine loads the lanes that exist of one or two vectors.
func (a *assembly) loadLine(from, first, second string, halves int) {
	a.op("VMOVUPS.Z (%s), K1, %s", from, first)
	if halves == 2 {
		a.op("VMOVUPS.Z 64(%s), K2, %s", from, second)
	}
}

func (a *assembly) tileArguments(typ string, rows int) {
	a.op("MOVQ 0(AX), DI")
	a.op("MOVQ 8(AX), SI")
	a.op("MOVQ 32(AX), CX")
	a.op("MOVQ 40(AX), R14")
	a.op("MOVQ 48(AX), R10")
	a.op("MOVQ 56(AX), R9")
	a.op("MOVQ 72(AX), DX")
	a.op("MOVQ 80(AX), BX")
	a.op("MOVL 88(AX), R15")
	a.op("KMOVW R15, K1")
	a.op("SHRL $16, R15")
	a.op("KMOVW R15, K2")
	a.op("LEAQ (R10)(R10*2), R11")
	a.op("LEAQ (R10)(R10*4), R12")
	a.op("LEAQ (R11)(R10*4), R13")
	if rows > 8 {
		a.op("LEAQ (SI)(R10*8), R8")
	}
	if typ == "BF16" || typ == "PairFMA" {
		a.op("VPTERNLOGD $255, Z3, Z3, Z3")
		a.op("VPSLLD $16, Z3, Z3")
	}
}

// tileStart starts the sums from zero or from what out holds.
func (a *assembly) tileStart(rows, halves int) {
	a.op("CMPL 92(AX), $0")
	a.op("JNE  load")
	for r := range rows {
		for h := range halves {
			s := sum(r, h)
			a.op("VPXORD %s, %s, %s", s, s, s)
		}
	}
	a.op("JMP begin")
	a.label("load")
	a.op("MOVQ 16(AX), R15")
	for r := range rows {
		a.loadLine("R15", sum(r, 0), sum(r, 1), halves)
		a.op("ADDQ 64(AX), R15")
	}
}

// tileEnd multiplies the sums by alpha, adds the bias if there is one, and stores them.
func (a *assembly) tileEnd(rows, halves int) {
	a.op("CMPL 96(AX), $0x3f800000") // 1
	a.op("JE   scaled")
	a.op("VBROADCASTSS 96(AX), Z2")
	for r := range rows {
		for h := range halves {
			a.op("VMULPS Z2, %s, %s", sum(r, h), sum(r, h))
		}
	}
	a.label("scaled")
	a.op("MOVQ 24(AX), R15")
	a.op("TESTQ R15, R15")
	a.op("JZ   store")
	a.loadLine("R15", "Z0", "Z1", halves)
	for r := range rows {
		for h := range halves {
			a.op("VADDPS Z%d, %s, %s", h, sum(r, h), sum(r, h))
		}
	}
	a.label("store")
	a.op("MOVQ 16(AX), R15")
	for r := range rows {
		for h := range halves {
			a.op("VMOVUPS %s, K%d, %d(R15)", sum(r, h), h+1, 64*h)
		}
		a.op("ADDQ 64(AX), R15")
	}
	a.ret()
}
