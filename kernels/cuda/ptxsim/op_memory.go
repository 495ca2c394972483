package ptxsim

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
)

// An address is operand o of ld, st and the like: a register, or a constant, and bytes from there.
type address struct {
	value
	offset uint64
	space
}

func (c *compiler) address(o operand, in space) address {
	if o.kind != 'a' || len(o.list) != 1 {
		c.bad("%s is no address", o.name)
		return address{}
	}
	at := o.list[0]
	a := address{offset: uint64(o.offset), space: in}
	if at.kind == 'r' && at.reg.bank == 64 || at.kind == 'i' {
		a.value = value{c.source64(at), true}
		return a
	}
	if in == global {
		c.bad("%s is no address of 64 bits", at.name)
	}
	a.value = value{c.source32(at), false}
	return a
}

func (a address) of(w *warp, lane int) uint64 { return a.get(w, lane) + a.offset }

// accessed puts down how many bytes an instruction accesses at a time: the smallest is a shadow's grain.
func (c *compiler) accessed(in space, bytes int) {
	n := uint(bits.TrailingZeros(uint(bytes)))
	if in != global {
		c.p.k.grainShared = min(c.p.k.grainShared, n)
	}
	if in != shared {
		c.p.k.grainGlobal = min(c.p.k.grainGlobal, n)
	}
}

// metered makes what counts an access of n bytes a lane.
func (c *compiler) metered(a address, n int, how access) {
	c.in.meter = func(t *tally, w *warp, lanes uint32) { t.access(w, lanes, a, n, how) }
}

// cached takes the modifiers that are for caches alone, and says how an access is ordered.
func (c *compiler) cached() (how access) {
	switch c.oneOf("relaxed", "acquire", "release", "volatile", "weak") {
	case "relaxed":
		c.need("cta", "gpu", "sys", "cluster")
		how = strong
	case "acquire", "release":
		c.bad("acquire and release are not simulated: order comes of barriers here")
	}
	c.oneOf("ca", "cg", "cs", "lu", "cv", "wb", "wt")
	kept := c.mods[:0]
	for _, m := range c.mods {
		if !strings.HasPrefix(m, "L1::") && !strings.HasPrefix(m, "L2::") {
			kept = append(kept, m)
		}
	}
	c.mods = kept
	c.has("nc")
	return how
}

// space takes the state space.
func (c *compiler) space() space {
	switch c.oneOf("global", "shared", "shared::cta") {
	case "global":
		return global
	case "":
		return generic
	}
	return shared
}

// vector is the elements of operand o, one or as many as the modifier says.
func (c *compiler) vector(o operand) []operand {
	n := map[string]int{"": 1, "v2": 2, "v4": 4, "v8": 8}[c.oneOf("v2", "v4", "v8")]
	if n == 1 && o.kind != '{' {
		return []operand{o}
	}
	if o.kind != '{' || len(o.list) != n {
		c.bad("want %d registers in braces", n)
	}
	return o.list
}

func load(c *compiler) {
	t := c.typ()
	if c.has("param") {
		c.loadParam(t)
		return
	}
	how := c.cached()
	in := c.space()
	var ds []value
	for _, o := range c.vector(c.op(0)) {
		ds = append(ds, c.destination(o, t.bits))
	}
	a, size := c.address(c.op(1), in), t.bytes()
	c.count(2, 2)
	total := size * len(ds)
	c.accessed(in, total)
	c.metered(a, total, how)
	if len(ds) == 1 && size == 4 && !ds[0].wide {
		d := ds[0].reg
		c.in.run = func(w *warp, lanes uint32) {
			D := &w.r32[d]
			for m := lanes; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m) & 31
				b := w.reach(a.of(w, l), 4, in, how, l)
				if b == nil {
					return
				}
				D[l] = uint32(element(b, 4))
			}
		}
		return
	}
	words := size == 4 && !slices.ContainsFunc(ds, func(d value) bool { return d.wide })
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			b := w.reach(a.of(w, l), total, in, how, l)
			if b == nil {
				return
			}
			if words {
				for _, d := range ds {
					w.r32[d.reg][l], b = binary.LittleEndian.Uint32(b), b[4:]
				}
				continue
			}
			for i, d := range ds {
				d.set(w, l, t.extend(element(b[i*size:], size)))
			}
		}
	}
}

// loadParam reads the kernel's arguments.
func (c *compiler) loadParam(t scalar) {
	var ds []value
	for _, o := range c.vector(c.op(0)) {
		ds = append(ds, c.destination(o, t.bits))
	}
	o := c.op(1)
	if o.kind == 'a' && !o.param && len(o.list) == 1 && o.list[0].kind == 'r' {
		c.loadParamAt(t, ds, o)
		return
	}
	if o.kind != 'a' || !o.param {
		c.bad("%s is no parameter", o.name)
		return
	}
	at, size := int(o.list[0].value)+int(o.offset), t.bytes()
	if at < 0 || at+size*len(ds) > c.p.k.paramSize {
		c.bad("%s is outside the parameters", o.name)
	}
	c.in.run = func(w *warp, lanes uint32) {
		for i, d := range ds {
			v := t.extend(element(w.block.params[at+i*size:], size))
			for l := range 32 {
				if lanes>>l&1 != 0 {
					d.set(w, l, v)
				}
			}
		}
	}
}

// loadParamAt does so at an address that a register holds: an offset, as mov gives it.
func (c *compiler) loadParamAt(t scalar, ds []value, o operand) {
	reg, size := c.source64(o.list[0]), t.bytes()
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			at, n := w.r64[reg][l]+uint64(o.offset), uint64(size*len(ds))
			if all := uint64(w.block.kernel.paramSize); at > all || n > all-at || at%n != 0 {
				w.fault(codeAddress, l, "reads %d bytes at %d of %d of parameters", n, at, all)
				return
			}
			for i, d := range ds {
				d.set(w, l, t.extend(element(w.block.params[at+uint64(i*size):], size)))
			}
		}
	}
}

func store(c *compiler) {
	t := c.typ()
	how := c.cached() | writing
	in := c.space()
	a, size := c.address(c.op(0), in), t.bytes()
	var vs []value
	for _, o := range c.vector(c.op(1)) {
		if o.kind == 'r' && o.reg.bank == 64 && t.bits < 64 {
			vs = append(vs, value{c.source64(o), true})
			continue
		}
		vs = append(vs, c.source(o, t.bits))
	}
	c.count(2, 2)
	total := size * len(vs)
	c.accessed(in, total)
	c.metered(a, total, how)
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			b := w.reach(a.of(w, l), total, in, how, l)
			if b == nil {
				return
			}
			for i, v := range vs {
				putElement(b[i*size:], size, v.get(w, l))
			}
		}
	}
}

// prefetch changes nothing, and checks nothing: the instruction does not fault either.
func prefetch(c *compiler) {
	c.mods = nil
	c.in.run = func(w *warp, lanes uint32) {}
}

// atomic is atom, and red without the old value.
func atomic(c *compiler) {
	t, old := c.typ(), value{reg: -1}
	c.oneOf("relaxed")
	c.oneOf("gpu", "cta", "sys")
	in := c.space()
	op := c.need("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
	at := 0
	if c.name == "atom" {
		old, at = c.destination(c.op(0), t.bits), 1
	}
	a, v, swap := c.address(c.op(at), in), c.source(c.op(at+1), t.bits), value{}
	if op == "cas" {
		swap = c.source(c.op(at+2), t.bits)
		c.count(at+3, at+3)
	} else {
		c.count(at+2, at+2)
	}
	if !t.integer() || t.bits < 32 {
		c.bad("type .%s is not simulated: sums of floating point in any order have no one answer", t.name)
	}
	size := t.bytes()
	c.accessed(in, size)
	c.in.meter = func(t *tally, w *warp, lanes uint32) { // read and written
		t.access(w, lanes, a, size, reading)
		if a.space != shared {
			t.access(w, lanes, a, size, writing)
		}
	}
	c.in.run = func(w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			b := w.reach(a.of(w, l), size, in, writing|strong, l)
			if b == nil {
				return
			}
			if in != shared {
				w.message(a.of(w, l), l)
			}
			was := t.extend(element(b, size))
			x := t.extend(v.get(w, l))
			if op == "cas" {
				if was == x {
					putElement(b, size, swap.get(w, l))
				}
			} else {
				putElement(b, size, combined(op, t, was, x))
			}
			if old.reg >= 0 {
				old.set(w, l, was&t.mask())
			}
		}
	}
}

// combined is what an atomic operation leaves.
func combined(op string, t scalar, was, x uint64) uint64 {
	less := was < x
	if t.signed() {
		less = int64(was) < int64(x)
	}
	switch op {
	case "add":
		return was + x
	case "min":
		if less {
			return was
		}
		return x
	case "max":
		if less {
			return x
		}
		return was
	case "and":
		return was & x
	case "or":
		return was | x
	case "xor":
		return was ^ x
	case "inc":
		if was >= x {
			return 0
		}
		return was + 1
	case "dec":
		if was == 0 || was > x {
			return x
		}
		return was - 1
	}
	return x
}

// toAddress is cvta: shared addresses have a window of the generic ones, global ones are the same.
func toAddress(c *compiler) {
	back := c.has("to")
	in := c.need("global", "shared", "shared::cta", "param")
	c.typ()
	switch {
	case in == "global":
		c.unary64(func(a uint64) uint64 { return a })
	case in == "param": // of a tensor map
		c.unary64(func(a uint64) uint64 { return a + paramWindow })
	case back:
		c.unary64(func(a uint64) uint64 { return a - sharedWindow })
	default:
		c.unary64(func(a uint64) uint64 { return a + sharedWindow })
	}
}

func inSpace(c *compiler) {
	in := c.need("global", "shared")
	d, a := c.target(c.op(0), 1), c.source64(c.op(1))
	c.count(2, 2)
	c.in.run = func(w *warp, lanes uint32) {
		v := uint32(0)
		for l := range 32 {
			if (w.r64[a][l] >= sharedWindow) == (in == "shared") {
				v |= 1 << l
			}
		}
		w.pred[d] = w.pred[d]&^lanes | v&lanes
	}
}
