package ptxsim

import "math/bits"

// permute picks four of the eight bytes of two words; a nibble's high bit asks for the byte's sign.
func permute(c *compiler) {
	if t := c.typ(); t.name != "b32" {
		c.bad("type .%s is not simulated", t.name)
	}
	c.ternary32(func(a, b, pick uint32) (v uint32) {
		both := uint64(b)<<32 | uint64(a)
		for i := range 4 {
			n := pick >> (4 * i)
			x := uint8(both >> (8 * (n & 7)))
			if n&8 != 0 {
				x = uint8(int8(x) >> 7)
			}
			v |= uint32(x) << (8 * i)
		}
		return v
	})
}

// extractField takes bits pos … pos+len-1; a field that reaches beyond the word is filled with its sign.
func extractField(c *compiler) {
	t := c.typ()
	d, a := c.destination(c.op(0), t.bits), c.source(c.op(1), t.bits)
	p, n := c.source32(c.op(2)), c.source32(c.op(3))
	c.count(4, 4)
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			v, pos, length := a.get(w, l), int(w.r32[p][l]&255), int(w.r32[n][l]&255)
			sign := uint64(0)
			if t.signed() && length > 0 {
				sign = v >> min(pos+length-1, t.bits-1) & 1
			}
			field := v >> pos & (1<<length - 1)
			if kept := min(length, max(t.bits-pos, 0)); sign != 0 {
				field |= ^uint64(0) << kept
			}
			d.set(w, l, field&t.mask())
		}
	}
}

// insertField puts the low len bits of a over b's, from pos on.
func insertField(c *compiler) {
	t := c.typ()
	d, a, b := c.destination(c.op(0), t.bits), c.source(c.op(1), t.bits), c.source(c.op(2), t.bits)
	p, n := c.source32(c.op(3)), c.source32(c.op(4))
	c.count(5, 5)
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			pos, length := w.r32[p][l]&255, w.r32[n][l]&255
			mask := (uint64(1)<<length - 1) << pos & t.mask()
			d.set(w, l, b.get(w, l)&^mask|a.get(w, l)<<pos&mask)
		}
	}
}

// countBits are popc, clz, brev and bfind.
func countBits(c *compiler) {
	t, name := c.typ(), c.name
	a := c.source(c.op(1), t.bits)
	d := c.destination(c.op(0), 32)
	if name == "brev" {
		d = c.destination(c.op(0), t.bits)
	}
	c.count(2, 2)
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			v := t.extend(a.get(w, l))
			var n int
			switch name {
			case "popc":
				n = bits.OnesCount64(v)
			case "clz":
				n = t.bits - bits.Len64(v)
			case "brev":
				d.set(w, l, bits.Reverse64(v)>>(64-t.bits))
				continue
			case "bfind": // the highest bit that is not the sign's
				if t.signed() && int64(v) < 0 {
					v = ^v
				}
				n = bits.Len64(v&t.mask()) - 1
			}
			d.set(w, l, uint64(uint32(n)))
		}
	}
}

// anyLogic is lop3: a function of three bits by its table.
func anyLogic(c *compiler) {
	c.typ()
	table := c.constant(c.op(4))
	c.count(5, 5)
	if c.err == nil {
		c.ops = c.ops[:4]
	}
	c.ternary32(func(x, y, z uint32) (v uint32) {
		for i := range 8 {
			if table>>i&1 == 0 {
				continue
			}
			m := ^uint32(0)
			for j, in := range [3]uint32{z, y, x} {
				if i>>j&1 == 0 {
					in = ^in
				}
				m &= in
			}
			v |= m
		}
		return v
	})
}
