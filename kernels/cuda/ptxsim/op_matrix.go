package ptxsim

import "encoding/binary"

// matrices is the x1, x2 or x4 of ldmatrix and stmatrix, with the registers for it.
func (c *compiler) matrices(o operand) (regs []int, trans bool) {
	c.need("sync")
	c.need("aligned")
	c.need("m8n8")
	n := map[string]int{"x1": 1, "x2": 2, "x4": 4}[c.need("x1", "x2", "x4")]
	trans = c.has("trans")
	c.need("shared", "shared::cta")
	if t := c.typ(); t.name != "b16" {
		c.bad("type .%s is not simulated", t.name)
	}
	if o.kind != '{' || len(o.list) != n {
		c.bad("want %d registers in braces", n)
		return nil, false
	}
	for _, x := range o.list {
		regs = append(regs, c.target(x, 32))
	}
	c.accessed(shared, 16)
	c.count(2, 2)
	return regs, trans
}

// loadMatrix is ldmatrix. Lane 8i+r has the address of the 16 bytes of row r of matrix i. Lane 4g+t gets elements 2t and 2t+1
// of row g, or with trans of rows 2t and 2t+1 the element g.
func loadMatrix(c *compiler) {
	ds, trans := c.matrices(c.op(0))
	a := c.address(c.op(1), shared)
	c.meteredRows(a, len(ds))
	c.collective(everyLane, func(w *warp, lanes uint32) {
		for i, d := range ds {
			var m [8][8]uint16
			for r := range 8 {
				b := w.reach(a.of(w, 8*i+r), 16, shared, reading, 8*i+r)
				if b == nil {
					return
				}
				for k := range 8 {
					m[r][k] = binary.LittleEndian.Uint16(b[2*k:])
				}
			}
			for l := range 32 {
				g, t := l>>2, l&3*2
				if trans {
					w.r32[d][l] = uint32(m[t][g]) | uint32(m[t+1][g])<<16
				} else {
					w.r32[d][l] = uint32(m[g][t]) | uint32(m[g][t+1])<<16
				}
			}
		}
	})
}

// storeMatrix is stmatrix, ldmatrix the other way (sm_90).
func storeMatrix(c *compiler) {
	vs, trans := c.matrices(c.op(1))
	a := c.address(c.op(0), shared)
	c.meteredRows(a, len(vs))
	c.collective(everyLane, func(w *warp, lanes uint32) {
		for i, v := range vs {
			for r := range 8 {
				b := w.reach(a.of(w, 8*i+r), 16, shared, writing, 8*i+r)
				if b == nil {
					return
				}
				for k := range 8 {
					l, part := r<<2|k>>1, k&1
					if trans {
						l, part = k<<2|r>>1, r&1
					}
					binary.LittleEndian.PutUint16(b[2*k:], uint16(w.r32[v][l]>>(16*part)))
				}
			}
		}
	})
}

// meteredRows makes what counts n matrices of eight rows of 16 bytes, whose addresses are those of the first lanes.
func (c *compiler) meteredRows(a address, n int) {
	c.in.meter = func(t *tally, w *warp, lanes uint32) { t.access(w, uint32(uint64(1)<<(8*n)-1), a, 16, reading) }
}

// fragment is the registers of a matrix in braces.
func (c *compiler) fragment(o operand, n int) (regs [4]int) {
	if o.kind != '{' || len(o.list) != n {
		c.bad("want %d registers in braces", n)
		return regs
	}
	for i, x := range o.list {
		regs[i] = c.source32(x)
	}
	return regs
}

// multiplyMatrices is mma.sync of bf16 or f16 with f32: D = A·B + C for a 16×16 A, a 16×8 B. Here the products, which are exact, are added
// to C in the order of k, and each sum is rounded; a GPU's order and rounding are not documented.
//
// With g = lane/4 and t = 2·(lane%4), a lane holds columns t, t+1, and t+8, t+9 of rows g and g+8 of A; rows t, t+1, and t+8, t+9 of
// column g of B; and columns t, t+1 of rows g and g+8 of C and D.
func multiplyMatrices(c *compiler) {
	for _, m := range []string{"sync", "aligned", "m16n8k16", "row", "col"} {
		c.need(m)
	}
	var types [4]string
	for i := range types {
		types[3-i] = c.typ().name
	}
	s := bfloat
	switch types {
	case [4]string{"f32", "bf16", "bf16", "f32"}:
	case [4]string{"f32", "f16", "f16", "f32"}:
		s = half
	default:
		c.bad("types %q are not simulated", types)
	}
	A, B, C, D := c.fragment(c.op(1), 4), c.fragment(c.op(2), 2), c.fragment(c.op(3), 4), [4]int{}
	if o := c.op(0); o.kind == '{' && len(o.list) == 4 {
		for i, x := range o.list {
			D[i] = c.target(x, 32)
		}
	} else {
		c.bad("want 4 registers in braces")
	}
	c.count(4, 4)
	c.in.meter = func(t *tally, w *warp, lanes uint32) {
		t.Products.Warp++
		t.Products.Flops += 2 * 16 * 8 * 16
	}
	c.collective(everyLane, func(w *warp, lanes uint32) {
		if !w.block.survey {
			w.multiply(s, D, A, B, C)
		}
	})
}

func (w *warp) multiply(s small, D, A, B, C [4]int) {
	var a [16][16]float32
	var b [16][8]float32
	for l := range 32 {
		g, t := l>>2, l&3*2
		for i := range 4 {
			v := w.r32[A[i]][l]
			row, col := g+i&1*8, t+i>>1*8
			a[row][col], a[row][col+1] = s.widen(uint16(v)), s.widen(uint16(v>>16))
		}
		for i := range 2 {
			v := w.r32[B[i]][l]
			b[t+i*8][g], b[t+1+i*8][g] = s.widen(uint16(v)), s.widen(uint16(v>>16))
		}
	}
	var d [16][8]float32
	for l := range 32 {
		for i := range 4 {
			d[l>>2+i>>1*8][l&3*2+i&1] = float(w.r32[C[i]][l])
		}
	}
	for i := range d {
		r, x := &d[i], &a[i]
		d0, d1, d2, d3, d4, d5, d6, d7 := r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]
		for k, v := range x {
			y := &b[k]
			d0 += float32(v * y[0])
			d1 += float32(v * y[1])
			d2 += float32(v * y[2])
			d3 += float32(v * y[3])
			d4 += float32(v * y[4])
			d5 += float32(v * y[5])
			d6 += float32(v * y[6])
			d7 += float32(v * y[7])
		}
		*r = [8]float32{d0, d1, d2, d3, d4, d5, d6, d7}
	}
	for l := range 32 {
		for i := range 4 {
			w.r32[D[i]][l] = bits32(d[l>>2+i>>1*8][l&3*2+i&1])
		}
	}
}
