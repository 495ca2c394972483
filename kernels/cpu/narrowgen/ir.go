package main

import "math"

// A value is the number of an operation whose result it is.
type value int

// A node is one operation on vectors.
type node struct {
	op   string
	in   []value
	bits uint32 // of a constant
	name string // of a stream or an argument
}

// A body is the operations on the elements of one turn, in order.
type body struct {
	nodes []node
	known map[node2]value
}

// node2 identifies a constant or an argument, which are made once.
type node2 struct {
	op, name string
	bits     uint32
}

func (b *body) put(op string, in ...value) value {
	b.nodes = append(b.nodes, node{op: op, in: in})
	return value(len(b.nodes) - 1)
}

func (b *body) once(op, name string, bits uint32) value {
	key := node2{op, name, bits}
	if v, ok := b.known[key]; ok {
		return v
	}
	if b.known == nil {
		b.known = map[node2]value{}
	}
	b.nodes = append(b.nodes, node{op: op, name: name, bits: bits})
	b.known[key] = value(len(b.nodes) - 1)
	return b.known[key]
}

// load reads the elements of a stream, and store writes them.
func (b *body) load(stream string) value {
	v := b.put("load")
	b.nodes[v].name = stream
	return v
}

func (b *body) store(stream string, v value) { b.nodes[b.put("store", v)].name = stream }

// part reads the partial results that the elements of this turn belong to, and setPart writes them.
func (b *body) part() value     { return b.put("part") }
func (b *body) setPart(v value) { b.put("setPart", v) }

func (b *body) arg(name string) value    { return b.once("arg", name, 0) }
func (b *body) integer(n uint32) value   { return b.once("const", "", n) }
func (b *body) number(x float64) value   { return b.integer(math.Float32bits(float32(x))) }
func (b *body) mul(x, y value) value     { return b.put("mul", x, y) }
func (b *body) add(x, y value) value     { return b.put("add", x, y) }
func (b *body) sub(x, y value) value     { return b.put("sub", x, y) }
func (b *body) div(x, y value) value     { return b.put("div", x, y) }
func (b *body) sqrt(x value) value       { return b.put("sqrt", x) }
func (b *body) neg(x value) value        { return b.put("xor", x, b.integer(1<<31)) }
func (b *body) fma(x, y, z value) value  { return b.put("fma", z, x, y) }  // x·y + z
func (b *body) fnma(x, y, z value) value { return b.put("fnma", z, x, y) } // z - x·y
func (b *body) larger(x, y value) value  { return b.put("larger", x, y) }  // y when neither is larger
func (b *body) smaller(x, y value) value { return b.put("smaller", x, y) }

// allow is all ones in the lanes whose ids the mask allows; keep is zero in the others.
func (b *body) allow() value                  { return b.put("allow") }
func (b *body) keep(mask, x value) value      { return b.put("and", x, mask) }
func (b *body) choose(mask, x, y value) value { return b.put("choose", mask, x, y) }

// exp is exp32 of exp.go. The power of two is multiplied in two halves, of which only the last can round.
func (b *body) exp(x value) value {
	x = b.larger(b.number(-104), x) // a NaN is the second and stays
	x = b.smaller(b.number(89), x)
	n := b.put("round", b.mul(x, b.number(1.44269504088896341)))
	r := b.fma(n, b.number(-0.693359375), x)
	r = b.fma(n, b.number(2.12194440e-4), r)
	p := b.number(1.9875691500e-4)
	for _, c := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		p = b.fma(p, r, b.number(c))
	}
	p = b.add(b.fma(p, b.mul(r, r), r), b.number(1))
	i := b.put("integer", n)
	half := b.put("halve", i)
	bias := b.integer(127)
	p = b.mul(p, b.put("power", half, bias))
	return b.mul(p, b.put("power", b.put("less", i, half), bias))
}

// resident reports whether a target may keep the node in a register over all turns.
func (n node) resident() bool { return n.op == "const" || n.op == "arg" }

// registers gives each value a register of first … first+count-1. A value is free after its last use; a
// result may take the register of an operand that ends with it. Where hold is set, constants and
// arguments get the registers from the top down and keep them.
func (b *body) registers(count int, hold bool) []int {
	last := make([]int, len(b.nodes))
	for i, n := range b.nodes {
		for _, v := range n.in {
			last[v] = i
		}
	}
	regs := make([]int, len(b.nodes))
	free := make([]bool, count)
	for i := range free {
		free[i] = true
	}
	if hold {
		for i, n := range b.nodes {
			if n.resident() {
				count--
				regs[i], free[count] = count, false
			}
		}
	}
	for i, n := range b.nodes {
		if hold && n.resident() {
			continue
		}
		for j, v := range n.in {
			// The first operand's register is the result's where it ends; the others are free only after.
			if last[v] == i && !(hold && b.nodes[v].resident()) && j == 0 {
				free[regs[v]] = true
			}
		}
		if n.op == "store" || n.op == "setPart" {
			continue
		}
		regs[i] = -1
		if len(n.in) > 0 && free[regs[n.in[0]]] && last[n.in[0]] == i {
			regs[i] = regs[n.in[0]]
		}
		for r := 0; regs[i] < 0 && r < count; r++ {
			if free[r] {
				regs[i] = r
			}
		}
		if regs[i] < 0 {
			panic("narrowgen: out of registers")
		}
		free[regs[i]] = false
		for _, v := range n.in {
			if last[v] == i && regs[v] != regs[i] && !(hold && b.nodes[v].resident()) {
				free[regs[v]] = true
			}
		}
		if !hold && n.resident() {
			continue
		}
	}
	return regs
}
