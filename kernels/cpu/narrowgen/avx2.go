package main

import "fmt"

// avx2 prints AVX2 with FMA: 8 lanes, 16 registers. In a leaf DI … R9 hold the streams, BX the bytes gone,
// R13 the elements left, R10 the mask's bits, R11 all ones where there is a mask, AX the partial results;
// R12 and CX are for addresses and shifts.
type avx2 struct {
	writer
	l    leaf
	at   map[string]int
	ptrs map[string]string
}

func newAVX2() target {
	t := &avx2{writer: writer{constants: map[uint32]string{}}}
	t.WriteString(header)
	return t
}

func (t *avx2) text() string {
	t.data()
	return t.String()
}

func (t *avx2) leaf(l leaf) {
	var size, frame int
	t.l, t.ptrs = l, map[string]string{}
	t.at, size = l.offsets()
	if l.fold != "" {
		frame = 256
	}
	t.function(l.name, frame, size)
	streams := []string{"DI", "SI", "DX", "R8", "R9"}
	for i, s := range l.streams {
		t.ptrs[s] = streams[i]
		t.p("MOVQ %s+%d(FP), %s", s, t.at[s], streams[i])
	}
	if l.masked {
		t.p("MOVQ bits+%d(FP), R10", t.at["bits"])
		t.p("MOVQ step+%d(FP), R11", t.at["step"])
		t.p("NEGQ R11")
		t.p("SBBQ R11, R11") // all ones unless the step is 0
	}
	if l.coeffs > 0 {
		t.p("MOVQ c+%d(FP), R10", t.at["c"])
	}
	if l.fold != "" {
		t.startParts()
	}
	var b body
	l.body(&b)
	regs := b.registers(16, false)
	t.p("MOVQ n+%d(FP), R13", t.at["n"])
	t.p("XORQ BX, BX")
	t.p("SUBQ $8, R13")
	t.p("JLT tail")
	t.label("loop")
	t.turn(b, regs, false)
	t.p("ADDQ $32, BX")
	t.p("SUBQ $8, R13")
	t.p("JGE loop")
	t.label("tail")
	t.p("ADDQ $8, R13")
	t.p("JZ done")
	t.label("single")
	t.turn(b, regs, true)
	t.p("ADDQ $4, BX")
	t.p("DECQ R13")
	t.p("JNZ single")
	t.label("done")
	if l.fold != "" {
		t.foldParts()
	}
	t.p("VZEROUPPER")
	t.p("RET")
}

// startParts fills the 64 partial results.
func (t *avx2) startParts() {
	t.p("LEAQ parts-256(SP), AX")
	t.p("VXORPS Y0, Y0, Y0")
	if t.l.fold == "max" {
		t.p("VBROADCASTSS %s, Y0", t.constant(0xff800000))
	}
	for i := range 8 {
		t.p("VMOVUPS Y0, %d(AX)", 32*i)
	}
}

// foldParts folds the partial results by halves, as partials.sum does, and returns the one.
func (t *avx2) foldParts() {
	op := map[string]string{"add": "VADD", "max": "VMAX"}[t.l.fold]
	for h := range 2 {
		t.p("VMOVUPS %d(AX), Y%d", 32*h, h)
		t.p("%sPS %d(AX), Y%d, Y%d", op, 32*h+64, h, h)
		t.p("VMOVUPS %d(AX), Y%d", 32*h+128, 2+h)
		t.p("%sPS %d(AX), Y%d, Y%d", op, 32*h+192, 2+h, 2+h)
		t.p("%sPS Y%d, Y%d, Y%d", op, 2+h, h, h)
	}
	t.p("%sPS Y1, Y0, Y0", op)
	t.p("VEXTRACTF128 $1, Y0, X1")
	t.p("%sPS X1, X0, X0", op)
	t.p("VPERMILPS $0x4e, X0, X1")
	t.p("%sPS X1, X0, X0", op)
	t.p("VPERMILPS $0xb1, X0, X1")
	t.p("%sSS X1, X0, X0", op)
	t.p("VMOVSS X0, ret+%d(FP)", t.at["ret"])
}

// move prints a load or store of 8 lanes, or of the first.
func (t *avx2) move(format string, one bool, reg int) {
	name, op := fmt.Sprintf("Y%d", reg), "VMOVUPS"
	if one {
		name, op = fmt.Sprintf("X%d", reg), "VMOVSS"
	}
	t.p(op+" "+format, name)
}

// turn prints the body on 8 elements, or on one.
func (t *avx2) turn(b body, regs []int, one bool) {
	for i, n := range b.nodes {
		d := regs[i]
		var in [3]int
		for j, v := range n.in {
			in[j] = regs[v]
		}
		switch n.op {
		case "load":
			t.move("("+t.ptrs[n.name]+")(BX*1), %s", one, d)
		case "store":
			t.move("%s, ("+t.ptrs[n.name]+")(BX*1)", one, in[0])
		case "part", "setPart":
			t.p("MOVQ BX, R12")
			t.p("ANDQ $255, R12")
			if n.op == "part" {
				t.move("(AX)(R12*1), %s", one, d)
			} else {
				t.move("%s, (AX)(R12*1)", one, in[0])
			}
		case "const":
			t.p("VBROADCASTSS %s, Y%d", t.constant(n.bits), d)
		case "arg":
			if t.l.coeffs > 0 {
				t.p("VBROADCASTSS %d(R10), Y%d", 4*(n.name[1]-'0'), d)
			} else {
				t.p("VBROADCASTSS %s+%d(FP), Y%d", n.name, t.at[n.name], d)
			}
		case "allow":
			t.allow(d, one)
		case "fma", "fnma":
			if d != in[0] {
				t.p("VMOVAPS Y%d, Y%d", in[0], d)
			}
			t.p("VF%s231PS Y%d, Y%d, Y%d", map[string]string{"fma": "MADD", "fnma": "NMADD"}[n.op], in[2], in[1], d)
		case "choose":
			t.p("VBLENDVPS Y%d, Y%d, Y%d, Y%d", in[0], in[1], in[2], d)
		case "sqrt":
			t.p("VSQRTPS Y%d, Y%d", in[0], d)
		case "round":
			t.p("VROUNDPS $8, Y%d, Y%d", in[0], d)
		case "integer":
			t.p("VCVTPS2DQ Y%d, Y%d", in[0], d)
		case "halve":
			t.p("VPSRAD $1, Y%d, Y%d", in[0], d)
		case "power":
			t.p("VPADDD Y%d, Y%d, Y%d", in[1], in[0], d)
			t.p("VPSLLD $23, Y%d, Y%d", d, d)
		default:
			op, ok := avx2Ops[n.op]
			if !ok {
				panic("narrowgen: avx2 has no " + n.op)
			}
			t.p("%s Y%d, Y%d, Y%d", op, in[1], in[0], d)
		}
	}
}

var avx2Ops = map[string]string{"add": "VADDPS", "sub": "VSUBPS", "mul": "VMULPS", "div": "VDIVPS", "xor": "VXORPS",
	"and": "VANDPS", "larger": "VMAXPS", "smaller": "VMINPS", "less": "VPSUBD"}

// allow makes all ones of the mask's bits of 8 elements, or of one in the first lane.
func (t *avx2) allow(d int, one bool) {
	t.p("MOVQ BX, R12")
	t.p("SHRQ $5, R12")
	t.p("ANDQ R11, R12")
	t.p("MOVBLZX (R10)(R12*1), R12")
	if one {
		t.p("MOVQ BX, CX")
		t.p("SHRQ $2, CX")
		t.p("ANDL $7, CX")
		t.p("SHRL CX, R12")
	}
	t.p("VMOVD R12, X%d", d)
	t.p("VPBROADCASTD X%d, Y%d", d, d)
	t.p("VPAND narrowBits<>(SB), Y%d, Y%d", d, d)
	t.p("VPCMPEQD narrowBits<>(SB), Y%d, Y%d", d, d)
}
