package main

// neon prints NEON: 4 lanes, 32 registers. Go's assembler lacks most of its float instructions, so these
// are printed as words (Arm Architecture Reference Manual, C7.2). In a leaf R0 … R4 hold the streams, R11
// the bytes gone, R9 the elements left, R5 the mask's bits, R6 all ones where there is a mask, R10 the
// partial results, R12 the coefficients; R7, R8 and V31 are for what ends within an operation, and V30 is
// the bit of each lane in a mask. Constants and arguments stay in registers.
type neon struct {
	writer
	l    leaf
	at   map[string]int
	ptrs map[string]int
}

const (
	scratch  = 31
	laneBits = 30
)

func newNEON() target {
	t := &neon{writer: writer{constants: map[uint32]string{}}}
	t.WriteString(header)
	return t
}

func (t *neon) text() string { return t.String() }

// Instructions on four lanes by their words, of three registers or of two.
var neonWords = map[string]uint32{
	"add": 0x4e20d400, "sub": 0x4ea0d400, "mul": 0x6e20dc00, "div": 0x6e20fc00,
	"fma": 0x4e20cc00, "fnma": 0x4ea0cc00, "greater": 0x6ea0e400, "choose": 0x6e601c00,
	"and": 0x4e201c00, "xor": 0x6e201c00, "or": 0x4ea01c00, "plus": 0x4ea08400, "less": 0x6ea08400, "test": 0x4ea08c00,
	"sqrt": 0x6ea1f800, "round": 0x4e218800, "integer": 0x4e21a800,
	"halve": 0x4f3f0400, "shift23": 0x4f375400, "shift16": 0x4f305400,
}

// word prints an instruction; d is its result.
func (t *neon) word(op string, d, n, m int) {
	code, ok := neonWords[op]
	if !ok {
		panic("narrowgen: neon has no " + op)
	}
	t.p("WORD $0x%08x // V%d = %s V%d, V%d", code|uint32(m)<<16|uint32(n)<<5|uint32(d), d, op, n, m)
}

// word2 prints an instruction of one operand.
func (t *neon) word2(op string, d, n int) {
	t.p("WORD $0x%08x // V%d = %s V%d", neonWords[op]|uint32(n)<<5|uint32(d), d, op, n)
}

func (t *neon) copy(d, n int) {
	if d != n {
		t.p("VORR V%d.B16, V%d.B16, V%d.B16", n, n, d)
	}
}

func (t *neon) leaf(l leaf) {
	var size, frame int
	t.l, t.ptrs = l, map[string]int{}
	t.at, size = l.offsets()
	if l.fold != "" {
		frame = 256
	}
	t.function(l.name, frame, size)
	for i, s := range l.streams {
		t.ptrs[s] = i
		t.p("MOVD %s+%d(FP), R%d", s, t.at[s], i)
	}
	if l.masked {
		t.p("MOVD bits+%d(FP), R5", t.at["bits"])
		t.p("MOVD step+%d(FP), R6", t.at["step"])
		t.p("CMP $0, R6")
		t.p("CSETM NE, R6")
		t.p("MOVD $0x0000000200000001, R7")
		t.p("VMOV R7, V%d.D[0]", laneBits)
		t.p("MOVD $0x0000000800000004, R7")
		t.p("VMOV R7, V%d.D[1]", laneBits)
	}
	if l.coeffs > 0 {
		t.p("MOVD c+%d(FP), R12", t.at["c"])
	}
	if l.fold != "" {
		t.startParts()
	}
	var b body
	l.body(&b)
	regs := b.registers(laneBits, true)
	t.residents(b, regs)
	t.p("MOVD n+%d(FP), R9", t.at["n"])
	t.p("MOVD $0, R11")
	t.p("SUBS $4, R9, R9")
	t.p("BLT tail")
	t.label("loop")
	t.turn(b, regs, false)
	t.p("ADD $16, R11, R11")
	t.p("SUBS $4, R9, R9")
	t.p("BGE loop")
	t.label("tail")
	t.p("ADDS $4, R9, R9")
	t.p("BEQ done")
	t.label("single")
	t.turn(b, regs, true)
	t.p("ADD $4, R11, R11")
	t.p("SUBS $1, R9, R9")
	t.p("BNE single")
	t.label("done")
	if l.fold != "" {
		t.foldParts()
	}
	t.p("RET")
}

// residents loads constants and arguments.
func (t *neon) residents(b body, regs []int) {
	for i, n := range b.nodes {
		switch {
		case n.op == "const":
			t.p("MOVD $0x%08x, R7", n.bits)
			t.p("VDUP R7, V%d.S4", regs[i])
		case n.op == "arg" && t.l.coeffs > 0:
			t.p("FMOVS %d(R12), F%d", 4*(n.name[1]-'0'), regs[i])
			t.p("VDUP V%d.S[0], V%d.S4", regs[i], regs[i])
		case n.op == "arg":
			t.p("FMOVS %s+%d(FP), F%d", n.name, t.at[n.name], regs[i])
			t.p("VDUP V%d.S[0], V%d.S4", regs[i], regs[i])
		}
	}
}

// startParts fills the 64 partial results.
func (t *neon) startParts() {
	t.p("MOVD $parts-256(SP), R10")
	t.p("MOVD $0x%08x, R7", map[string]uint32{"add": 0, "max": 0xff800000}[t.l.fold])
	t.p("VDUP R7, V0.S4")
	t.p("MOVD R10, R7")
	for range 16 {
		t.p("VST1.P [V0.S4], 16(R7)")
	}
}

// fold sets register d to the partial results of d and n together.
func (t *neon) fold(d, n int) {
	if t.l.fold == "add" {
		t.word("add", d, d, n)
	} else {
		t.larger(d, d, n)
	}
}

// foldParts folds the partial results by halves, as partials.sum does, and returns the one.
func (t *neon) foldParts() {
	t.p("MOVD R10, R7")
	for i := range 4 {
		t.p("VLD1.P 64(R7), [V%d.S4, V%d.S4, V%d.S4, V%d.S4]", 4*i, 4*i+1, 4*i+2, 4*i+3)
	}
	for l := range 4 {
		t.fold(l, 4+l)
		t.fold(8+l, 12+l)
		t.fold(l, 8+l)
	}
	t.fold(0, 2)
	t.fold(1, 3)
	t.fold(0, 1)
	for _, bytes := range []int{8, 4} {
		t.p("VEXT $%d, V0.B16, V0.B16, V1.B16", bytes)
		t.fold(0, 1)
	}
	t.p("FMOVS F0, ret+%d(FP)", t.at["ret"])
}

// larger sets d to a where it is larger than b and to b elsewhere.
func (t *neon) larger(d, a, b int) {
	t.word("greater", scratch, a, b)
	t.word("choose", scratch, a, b)
	t.copy(d, scratch)
}

// address sets R7 to where this turn's elements of a stream are.
func (t *neon) address(stream string) { t.p("ADD R11, R%d, R7", t.ptrs[stream]) }

// load and store move 4 lanes, or the first, from and to R7.
func (t *neon) load(one bool, reg int) {
	if one {
		t.p("FMOVS (R7), F%d", reg)
	} else {
		t.p("VLD1 (R7), [V%d.S4]", reg)
	}
}

func (t *neon) store(one bool, reg int) {
	if one {
		t.p("FMOVS F%d, (R7)", reg)
	} else {
		t.p("VST1 [V%d.S4], (R7)", reg)
	}
}

// turn prints the body on 4 elements, or on one.
func (t *neon) turn(b body, regs []int, one bool) {
	for i, n := range b.nodes {
		d := regs[i]
		var in [3]int
		for j, v := range n.in {
			in[j] = regs[v]
		}
		switch n.op {
		case "const", "arg":
		case "load":
			t.address(n.name)
			t.load(one, d)
		case "store":
			t.address(n.name)
			t.store(one, in[0])
		case "part":
			t.p("AND $255, R11, R7")
			t.p("ADD R10, R7, R7")
			t.load(one, d)
		case "setPart":
			t.p("AND $255, R11, R7")
			t.p("ADD R10, R7, R7")
			t.store(one, in[0])
		case "allow":
			t.allow(d)
		case "larger":
			t.larger(d, in[0], in[1])
		case "smaller":
			t.word("greater", scratch, in[1], in[0])
			t.word("choose", scratch, in[0], in[1])
			t.copy(d, scratch)
		case "fma", "fnma", "choose":
			t.copy(d, in[0])
			t.word(n.op, d, in[1], in[2])
		case "sqrt", "round", "integer", "halve":
			t.word2(n.op, d, in[0])
		case "power":
			t.word("plus", d, in[0], in[1])
			t.word2("shift23", d, d)
		default:
			t.word(n.op, d, in[0], in[1])
		}
	}
}

// allow makes all ones of the mask's bits of these elements.
func (t *neon) allow(d int) {
	t.p("LSR $5, R11, R7")
	t.p("AND R6, R7, R7")
	t.p("ADD R5, R7, R7")
	t.p("MOVBU (R7), R8")
	t.p("LSR $2, R11, R7")
	t.p("AND $7, R7, R7")
	t.p("LSR R7, R8, R8")
	t.p("VDUP R8, V%d.S4", d)
	t.word("test", d, d, laneBits)
}
