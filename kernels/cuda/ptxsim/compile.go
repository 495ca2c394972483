package ptxsim

import (
	"fmt"
	"slices"
)

// A compiler makes one instruction of its opcode and operands. The first thing that is wrong is kept.
type compiler struct {
	p    *parser
	in   *instruction
	name string   // of the opcode, without modifiers
	mods []string // modifiers that nothing has asked for yet
	ops  []operand
	text []string // of a branch
	err  error
}

// opcodes are the instructions that are simulated, by the name before the first point. Each takes its
// modifiers and operands from the compiler, and leaves what the instruction does.
var opcodes map[string]func(c *compiler)

func init() { // not above: branches refer to it
	opcodes = map[string]func(c *compiler){
		"ret": leave, "exit": leave, "bra": branch,
		"mov": move, "cvta": toAddress, "mapa": mapAddress, "selp": choose, "isspacep": inSpace,
		"add": add, "sub": subtract, "mul": multiply, "mad": multiplyAdd, "fma": fusedMultiplyAdd, "div": divide, "rem": remainder,
		"abs": absolute, "neg": negate, "min": extreme, "max": extreme,
		"and": logic, "or": logic, "xor": logic, "not": invert, "cnot": logicalNot, "shl": shift, "shr": shift, "shf": funnel, "lop3": anyLogic,
		"prmt": permute, "bfe": extractField, "bfi": insertField, "popc": countBits, "clz": countBits, "brev": countBits, "bfind": countBits,
		"sqrt": root, "rsqrt": approximate, "rcp": reciprocal, "ex2": approximate, "lg2": approximate, "sin": approximate, "cos": approximate,
		"tanh": approximate, "copysign": copySign,
		"cvt": convert, "setp": compare,
		"ld": load, "ldu": load, "st": store, "prefetch": prefetch, "prefetchu": prefetch, "atom": atomic, "red": atomic,
		"shfl": shuffle, "vote": vote, "match": match, "activemask": activeMask, "redux": reduce, "elect": elect,
		"ldmatrix": loadMatrix, "stmatrix": storeMatrix, "mma": multiplyMatrices,
		"cp": copyAsync, "mbarrier": mbarriers, "wgmma": warpgroup, "bar": barrier, "barrier": barrier, "membar": fence, "fence": fence,
		"griddepcontrol": dependency, "nanosleep": pause, "setmaxnreg": registersAllowed, "trap": trap,
	}
}

func (c *compiler) bad(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// has takes a modifier, where it is there.
func (c *compiler) has(mod string) bool {
	i := slices.Index(c.mods, mod)
	if i < 0 {
		return false
	}
	c.mods = slices.Delete(c.mods, i, i+1)
	return true
}

// oneOf takes the first of the modifiers that is there, "" if none is.
func (c *compiler) oneOf(mods ...string) string {
	for _, m := range mods {
		if c.has(m) {
			return m
		}
	}
	return ""
}

// need takes a modifier that must be there.
func (c *compiler) need(mods ...string) string {
	m := c.oneOf(mods...)
	if m == "" {
		c.bad("one of %q is missing or not simulated", mods)
	}
	return m
}

// typ takes the last modifier, which is a type.
func (c *compiler) typ() scalar {
	if n := len(c.mods); n > 0 {
		if t, ok := scalars[c.mods[n-1]]; ok {
			c.mods = c.mods[:n-1]
			return t
		}
	}
	c.bad("a type is missing")
	return scalar{name: "b32", bits: 32, kind: 'b'}
}

// count says how many operands there must be, at least and at most.
func (c *compiler) count(least, most int) bool {
	if len(c.ops) < least || len(c.ops) > most {
		c.bad("%d operands, want %d", len(c.ops), least)
	}
	return c.err == nil
}

// op is an operand, or none where there are too few.
func (c *compiler) op(i int) operand {
	if i >= len(c.ops) {
		c.bad("operand %d is missing", i+1)
		return operand{kind: '_'}
	}
	return c.ops[i]
}

// target is the register that operand o names as a destination of a bank.
func (c *compiler) target(o operand, bank int) int {
	if o.kind == '_' {
		return c.p.place(bank) // written and not read
	}
	if o.kind != 'r' || o.reg.bank != bank {
		c.bad("%s is no register of %d bits", o.name, bank)
		return 0
	}
	return o.reg.index
}

// source32 is the register of bank 32 that holds operand o: a register, or one made for a constant.
func (c *compiler) source32(o operand) int {
	switch {
	case (o.kind == 'r' || o.kind == 's') && o.reg.bank == 32 && !o.not:
		return o.reg.index
	case o.kind == 'd':
		if c.p.k.dynamic32 < 0 {
			c.p.k.dynamic32 = c.p.place(32)
		}
		return c.p.k.dynamic32
	case o.kind == 'i' && o.float != 64 || o.kind == 'v':
		v := uint32(o.value)
		i, ok := c.p.const32[v]
		if !ok {
			i = c.p.place(32)
			c.p.const32[v] = i
		}
		return i
	}
	c.bad("%s is no value of up to 32 bits", o.name)
	return 0
}

func (c *compiler) source64(o operand) int {
	switch {
	case o.kind == 'r' && o.reg.bank == 64 && !o.not:
		return o.reg.index
	case o.kind == 'd':
		if c.p.k.dynamic64 < 0 {
			c.p.k.dynamic64 = c.p.place(64)
		}
		return c.p.k.dynamic64
	case o.kind == 'i' && o.float != 32 || o.kind == 'v':
		i, ok := c.p.const64[o.value]
		if !ok {
			i = c.p.place(64)
			c.p.const64[o.value] = i
		}
		return i
	}
	c.bad("%s is no value of 64 bits", o.name)
	return 0
}

// predicate is the register of a predicate, and whether its opposite is meant.
func (c *compiler) predicate(o operand) (reg int, not uint32) {
	if o.kind != 'r' || o.reg.bank != 1 {
		c.bad("%s is no predicate", o.name)
		return 0, 0
	}
	if o.not {
		return o.reg.index, ^uint32(0)
	}
	return o.reg.index, 0
}

// constant is the value of an immediate operand.
func (c *compiler) constant(o operand) uint64 {
	if o.kind != 'i' || o.float != 0 {
		c.bad("%s must be a constant", o.name)
	}
	return o.value
}

// A value of up to 64 bits in either bank.
type value struct {
	reg  int
	wide bool
}

func (v value) get(w *warp, lane int) uint64 {
	if v.wide {
		return w.r64[v.reg][lane&31]
	}
	return uint64(w.r32[v.reg][lane&31])
}

func (v value) set(w *warp, lane int, x uint64) {
	if v.wide {
		w.r64[v.reg][lane&31] = x
	} else {
		w.r32[v.reg][lane&31] = uint32(x)
	}
}

// source is operand o as a value of so many bits.
func (c *compiler) source(o operand, bits int) value {
	if bits == 64 {
		return value{c.source64(o), true}
	}
	return value{c.source32(o), false}
}

// destination is operand o, a register of at least so many bits.
func (c *compiler) destination(o operand, bits int) value {
	if o.kind == '_' {
		return value{c.p.place(64), true}
	}
	if o.kind != 'r' || o.reg.bits < bits {
		c.bad("%s is no register of %d bits", o.name, bits)
	}
	return value{o.reg.index, o.reg.bank == 64}
}

// unary, binary and ternary make the instruction of a function of the operands, in a bank.
func (c *compiler) unary32(f func(a uint32) uint32) {
	d, a := c.target(c.op(0), 32), c.source32(c.op(1))
	c.count(2, 2)
	c.in.run = func(w *warp, lanes uint32) {
		D, A := &w.r32[d], &w.r32[a]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l])
			}
		}
	}
}

func (c *compiler) unary64(f func(a uint64) uint64) {
	d, a := c.target(c.op(0), 64), c.source64(c.op(1))
	c.count(2, 2)
	c.in.run = func(w *warp, lanes uint32) {
		D, A := &w.r64[d], &w.r64[a]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l])
			}
		}
	}
}

func (c *compiler) binary32(f func(a, b uint32) uint32) {
	d, a, b := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2))
	c.count(3, 3)
	c.in.run = func(w *warp, lanes uint32) {
		D, A, B := &w.r32[d], &w.r32[a], &w.r32[b]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l], B[l])
			}
		}
	}
}

func (c *compiler) binary64(f func(a, b uint64) uint64) {
	d, a, b := c.target(c.op(0), 64), c.source64(c.op(1)), c.source64(c.op(2))
	c.count(3, 3)
	c.in.run = func(w *warp, lanes uint32) {
		D, A, B := &w.r64[d], &w.r64[a], &w.r64[b]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l], B[l])
			}
		}
	}
}

func (c *compiler) ternary32(f func(x, y, z uint32) uint32) {
	d, a, b, e := c.target(c.op(0), 32), c.source32(c.op(1)), c.source32(c.op(2)), c.source32(c.op(3))
	c.count(4, 4)
	c.in.run = func(w *warp, lanes uint32) {
		D, A, B, E := &w.r32[d], &w.r32[a], &w.r32[b], &w.r32[e]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l], B[l], E[l])
			}
		}
	}
}

func (c *compiler) ternary64(f func(x, y, z uint64) uint64) {
	d, a, b, e := c.target(c.op(0), 64), c.source64(c.op(1)), c.source64(c.op(2)), c.source64(c.op(3))
	c.count(4, 4)
	c.in.run = func(w *warp, lanes uint32) {
		D, A, B, E := &w.r64[d], &w.r64[a], &w.r64[b], &w.r64[e]
		for l := range 32 {
			if lanes>>l&1 != 0 {
				D[l] = f(A[l], B[l], E[l])
			}
		}
	}
}

// integer makes a function of two integers of type t, given and taken as whole words.
func (c *compiler) integer(t scalar, f func(a, b uint64) uint64) {
	if !t.integer() {
		c.bad("type .%s is not simulated", t.name)
		return
	}
	if t.bits == 64 {
		c.binary64(f)
		return
	}
	mask := uint32(t.mask())
	c.binary32(func(a, b uint32) uint32 { return uint32(f(t.extend(uint64(a)), t.extend(uint64(b)))) & mask })
}
