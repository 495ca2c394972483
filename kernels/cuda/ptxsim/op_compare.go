package ptxsim

import "math"

// compare is setp.cmp[.bool].type p[|q], a, b[, c].
func compare(c *compiler) {
	t := c.typ()
	cond := c.need("eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
	join := c.oneOf("and", "or", "xor")
	with, withNot := -1, uint32(0)
	if join != "" {
		with, withNot = c.predicate(c.op(3))
		c.count(4, 4)
	} else {
		c.count(3, 3)
	}
	d, q := c.target(c.op(0), 1), -1
	if p := c.op(0).pair; p != nil {
		q = c.target(*p, 1)
	}
	order := c.order(t)
	if c.err != nil {
		return
	}
	c.in.run = func(w *warp, lanes uint32) {
		lt, eq, gt := order(w)
		v := hold(cond, lt, eq, gt)
		other := ^v
		if with >= 0 {
			x := w.pred[with] ^ withNot
			v, other = combine(join, v, x), combine(join, other, x)
		}
		w.pred[d] = w.pred[d]&^lanes | v&lanes
		if q >= 0 {
			w.pred[q] = w.pred[q]&^lanes | other&lanes
		}
	}
}

func combine(join string, a, b uint32) uint32 {
	switch join {
	case "and":
		return a & b
	case "or":
		return a | b
	}
	return a ^ b
}

// hold is where a condition holds, from where the first is less, equal and greater; elsewhere one is no number.
func hold(cond string, lt, eq, gt uint32) uint32 {
	unordered := ^(lt | eq | gt)
	switch cond {
	case "eq":
		return eq
	case "ne":
		return lt | gt
	case "lt", "lo":
		return lt
	case "le", "ls":
		return lt | eq
	case "gt", "hi":
		return gt
	case "ge", "hs":
		return gt | eq
	case "equ":
		return eq | unordered
	case "neu":
		return ^eq
	case "ltu":
		return lt | unordered
	case "leu":
		return lt | eq | unordered
	case "gtu":
		return gt | unordered
	case "geu":
		return gt | eq | unordered
	case "num":
		return ^unordered
	}
	return unordered
}

// order compares operands 1 and 2 in all lanes.
func (c *compiler) order(t scalar) func(w *warp) (lt, eq, gt uint32) {
	switch {
	case t.name == "f64":
		a, b := c.source64(c.op(1)), c.source64(c.op(2))
		return func(w *warp) (lt, eq, gt uint32) {
			A, B := &w.r64[a], &w.r64[b]
			for l := range 32 {
				lt, eq, gt = place(l, double(A[l]), double(B[l]), lt, eq, gt)
			}
			return lt, eq, gt
		}
	case t.name == "f32":
		a, b := c.source32(c.op(1)), c.source32(c.op(2))
		return func(w *warp) (lt, eq, gt uint32) {
			A, B := &w.r32[a], &w.r32[b]
			for l := range 32 {
				lt, eq, gt = place(l, float64(float(A[l])), float64(float(B[l])), lt, eq, gt)
			}
			return lt, eq, gt
		}
	case t.bits == 16 && !t.integer():
		a, b, s := c.source32(c.op(1)), c.source32(c.op(2)), smallOf(t)
		return func(w *warp) (lt, eq, gt uint32) {
			for l := range 32 {
				lt, eq, gt = place(l, float64(s.widen(uint16(w.r32[a][l]))), float64(s.widen(uint16(w.r32[b][l]))), lt, eq, gt)
			}
			return lt, eq, gt
		}
	case t.integer() && t.bits == 64:
		a, b := c.source64(c.op(1)), c.source64(c.op(2))
		flip := uint64(0)
		if t.signed() {
			flip = 1 << 63
		}
		return func(w *warp) (lt, eq, gt uint32) { return orderIntegers(&w.r64[a], &w.r64[b], flip, 0) }
	case t.integer():
		a, b := c.source32(c.op(1)), c.source32(c.op(2))
		flip := uint32(0)
		if t.signed() {
			flip = 1 << 31
		}
		return func(w *warp) (lt, eq, gt uint32) { return orderIntegers(&w.r32[a], &w.r32[b], flip, 32-t.bits) }
	}
	c.bad("type .%s is not simulated", t.name)
	return nil
}

func place(l int, a, b float64, lt, eq, gt uint32) (uint32, uint32, uint32) {
	switch {
	case a < b:
		lt |= 1 << l
	case a == b:
		eq |= 1 << l
	case a > b:
		gt |= 1 << l
	}
	return lt, eq, gt
}

// orderIntegers compares words, with the bit of the sign turned over and the bits above a narrow type left out.
func orderIntegers[T uint32 | uint64](a, b *[32]T, flip T, above int) (lt, eq, gt uint32) {
	for l := range 32 {
		x, y := a[l]<<above^flip, b[l]<<above^flip
		if x < y {
			lt |= 1 << l
		}
		if x == y {
			eq |= 1 << l
		}
	}
	return lt, eq, ^(lt | eq)
}

// choose is selp: a where the predicate is true, else b.
func choose(c *compiler) {
	t := c.typ()
	d, a, b := c.destination(c.op(0), t.bits), c.source(c.op(1), t.bits), c.source(c.op(2), t.bits)
	p, not := c.predicate(c.op(3))
	c.count(4, 4)
	c.in.run = func(w *warp, lanes uint32) {
		yes := w.pred[p] ^ not
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			from := b
			if yes>>l&1 != 0 {
				from = a
			}
			d.set(w, l, from.get(w, l))
		}
	}
}

// move copies, packs registers into a wider one, and takes it apart.
func move(c *compiler) {
	t := c.typ()
	to, from := c.op(0), c.op(1)
	c.count(2, 2)
	switch {
	case t.kind == 'p':
		d := c.target(to, 1)
		if from.kind == 'i' {
			v := uint32(0)
			if from.value != 0 {
				v = math.MaxUint32
			}
			c.in.run = func(w *warp, lanes uint32) { w.pred[d] = w.pred[d]&^lanes | v&lanes }
			return
		}
		a, not := c.predicate(from)
		c.in.run = func(w *warp, lanes uint32) { w.pred[d] = w.pred[d]&^lanes | (w.pred[a]^not)&lanes }
	case to.kind == '{':
		c.unpack(t)
	case from.kind == '{':
		c.pack(t)
	case t.bits == 64:
		d, a := c.target(to, 64), c.source64(from)
		c.in.run = func(w *warp, lanes uint32) {
			if lanes == allBits {
				w.r64[d] = w.r64[a]
				return
			}
			D, A := &w.r64[d], &w.r64[a]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l]
				}
			}
		}
	default:
		d, a := c.target(to, 32), c.source32(from)
		c.in.run = func(w *warp, lanes uint32) {
			if lanes == allBits {
				w.r32[d] = w.r32[a]
				return
			}
			D, A := &w.r32[d], &w.r32[a]
			for l := range 32 {
				if lanes>>l&1 != 0 {
					D[l] = A[l]
				}
			}
		}
	}
}

func (c *compiler) unpack(t scalar) {
	parts, a := c.op(0).list, c.source(c.op(1), t.bits)
	part := scalar{kind: 'b', bits: t.bits / max(len(parts), 1)}
	var ds []value
	for _, o := range parts {
		ds = append(ds, c.destination(o, part.bits))
	}
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			v := a.get(w, l)
			for i, d := range ds {
				d.set(w, l, part.extend(v>>(i*part.bits)))
			}
		}
	}
}

func (c *compiler) pack(t scalar) {
	parts, d := c.op(1).list, c.destination(c.op(0), t.bits)
	part := scalar{kind: 'b', bits: t.bits / max(len(parts), 1)}
	var as []value
	for _, o := range parts {
		as = append(as, c.source(o, part.bits))
	}
	c.in.run = func(w *warp, lanes uint32) {
		for l := range 32 {
			if lanes>>l&1 == 0 {
				continue
			}
			v := uint64(0)
			for i, a := range as {
				v |= part.extend(a.get(w, l)) << (i * part.bits)
			}
			d.set(w, l, v)
		}
	}
}
