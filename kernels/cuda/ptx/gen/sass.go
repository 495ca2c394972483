package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Machine code from sm_70 on is instructions of 16 bytes, of which the lowest nine bits say what each is; the bits
// after them, where its operands come from. There is no list of these numbers in print: those below are what NVIDIA's
// disassembler (nvdisasm 13.5) names in our own kernels and in a kernel of one of each, and only those that are counted.
var operations = map[uint16]string{
	0x1f0: "HGMMA", 0x1f1: "IGMMA", 0x1f3: "QGMMA", // products of warpgroups, by type
	0x03c: "HMMA", 0x037: "IMMA", // of warps
	0x03b: "LDSM", 0x044: "STSM", // matrices from and to shared memory
	0x1b4: "UTMALDG", 0x1b5: "UTMASTG", // tiles by tensor maps
	0x1ae: "LDGSTS", 0x181: "LDG", 0x186: "STG", // global memory
	0x184: "LDS", 0x188: "STS", // shared memory
	0x183: "LDL", 0x187: "STL", // local memory: a stack
	0x1c8: "USETMAXREG",                         // registers of a warpgroup
	0x020: "FMUL", 0x021: "FADD", 0x023: "FFMA", // f32
	0x108: "MUFU",                // the special functions' unit
	0x11d: "BAR", 0x1b2: "SYNCS", // barriers of a block; waits for mbarriers
}

const nop = 0x118 // what fills up the end of a kernel

// mix counts the instructions of a kernel's machine code: all but the filling, and those that have a name here.
func mix(code []byte) (all int, of map[string]int) {
	of = map[string]int{}
	for ; len(code) >= 16; code = code[16:] {
		op := binary.LittleEndian.Uint16(code) & 0x1ff
		if op == nop {
			continue
		}
		all++
		if name := operations[op]; name != "" {
			of[name]++
		}
	}
	return all, of
}

// becomes says what an instruction of PTX must be in machine code: where the one is, so must be the other. A product that
// is emulated, or a number of registers that the compiler ignores, is found by it.
var becomes = []struct{ ptx, sass string }{
	{"wgmma.mma_async", "HGMMA IGMMA QGMMA"}, {"mma.sync", "HMMA IMMA"}, {"ldmatrix", "LDSM"}, {"stmatrix", "STSM"},
	{"cp.async.bulk.tensor", "UTMALDG UTMASTG"}, {"cp.async.cg", "LDGSTS"}, {"setmaxnreg", "USETMAXREG"},
}

// missing says what a kernel's PTX has and its machine code has not, and whether this uses local memory; "" if nothing is wrong.
func (u usage) missing(ptx string) string {
	if n := u.of["LDL"] + u.of["STL"]; u.stack > 0 || n > 0 {
		return fmt.Sprintf("keeps %d bytes of a thread in local memory, by %d instructions", u.stack, n)
	}
	for _, b := range becomes {
		n := 0
		for _, name := range strings.Fields(b.sass) {
			n += u.of[name]
		}
		if n == 0 && strings.Contains(ptx, b.ptx) {
			return fmt.Sprintf("has no %s, and its PTX has %s", strings.ReplaceAll(b.sass, " ", " or "), b.ptx)
		}
	}
	return ""
}

// String is one line of what a kernel takes and of the instructions that it has.
func (u usage) String() string {
	text := fmt.Sprintf("%3d registers  %6d B shared  %4d B stack  %5d instructions:", u.registers, u.shared, u.stack, u.instructions)
	var names []string
	for name := range u.of {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf(" %d %s", u.of[name], name)
	}
	return text
}

// bodyOf is the text of one kernel of a PTX module.
func bodyOf(ptx, kernel string) string {
	_, body, found := strings.Cut(ptx, ".entry "+kernel+"(")
	if !found {
		return ""
	}
	body, _, _ = strings.Cut(body, "\n.visible .entry")
	return body
}
