package ptxsim

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// products are what a warp has asked of its warpgroup's matrix unit: each warp computes the 16 rows of D that it
// holds. queue[:ends[0]] is the oldest group.
type products struct {
	queue  []product
	ends   []int
	time   uint32              // groups ended
	sums   map[int]*[32]uint32 // what registers hold in truth while products are under way, and they read as NaN
	left   map[int]*[32]uint32 // what they held when they were waited for, until the next wgmma.fence
	fenced bool                // there was a wgmma.fence
	used   []operandOf         // in the group that is not ended
}

// A product is D = A·B, or D + A·B, of 64×16 and 16×n.
type product struct {
	d            []int
	a, b         descriptor
	fromLanes    bool // A is in registers
	aLanes       [4][32]uint32
	add          bool
	signA, signB float32
	half         small
}

// A descriptor says where an operand of wgmma is in shared memory, in bytes.
type descriptor struct {
	base            uint64
	leading, stride uint64
	swizzle         uint64 // bytes of a swizzled line, 0: none
	across          bool   // a line goes along M or N, not along K
}

// describe reads the 64 bits of a descriptor.
func (w *warp) describe(bits uint64, across bool) (descriptor, bool) {
	if bits>>49&7 != 0 || bits&^(0x3fff|0x3fff<<16|0x3fff<<32|7<<49|3<<62) != 0 {
		w.fault(codeLaunch, 0, "a matrix descriptor of %#x: its base offset must be 0 here, and bits that have no meaning", bits)
		return descriptor{}, false
	}
	return descriptor{base: bits & 0x3fff << 4, leading: bits >> 16 & 0x3fff << 4, stride: bits >> 32 & 0x3fff << 4,
		swizzle: [4]uint64{0, 128, 64, 32}[bits>>62], across: across}, true
}

// piece is where the 16 bytes are that begin with element (mn, k): eight along K, or along M or N.
func (d descriptor) piece(mn, k int) uint64 {
	m, c := uint64(mn), uint64(k)
	var off uint64
	switch {
	case !d.across && d.swizzle == 0:
		off = m/8*d.stride + m%8*16 + c/8*d.leading
	case !d.across:
		off = m/8*d.stride + m%8*d.swizzle + c*2
	case d.swizzle == 0:
		off = m/8*d.stride + c%8*16 + c/8*d.leading
	default:
		line := d.swizzle / 2
		off = m/line*d.leading + m%line*2 + c/8*d.stride + c%8*d.swizzle
	}
	at := d.base + off
	if d.swizzle != 0 {
		at ^= at >> 7 & (d.swizzle/16 - 1) << 4
	}
	return at
}

// matrix reads rows × 16 elements from row first on; f takes each.
func (w *warp) matrix(d descriptor, first, rows int, s small, f func(row, k int, v float32)) {
	b := w.block.shared.bytes
	if d.across {
		for r := 0; r < rows; r += 8 {
			for k := range 16 {
				at := d.piece(first+r, k)
				for i := range 8 {
					f(r+i, k, s.widen(binary.LittleEndian.Uint16(b[at+uint64(2*i):])))
				}
			}
		}
		return
	}
	for r := range rows {
		for k := 0; k < 16; k += 8 {
			at := d.piece(first+r, k)
			for i := range 8 {
				f(r, k+i, s.widen(binary.LittleEndian.Uint16(b[at+uint64(2*i):])))
			}
		}
	}
}

// uses puts down that the matrix unit reads an operand.
func (w *warp) uses(d descriptor, first, rows, agent int) bool {
	o := operandOf{d, first, rows}
	if slices.Contains(w.products.used, o) {
		return true // and nobody may have written since
	}
	w.products.used = append(w.products.used, o)
	stepR, stepK := 1, 8
	if d.across {
		stepR, stepK = 8, 1
	}
	for r := 0; r < rows; r += stepR {
		for k := 0; k < 16; k += stepK {
			at := d.piece(first+r, k)
			if b, _ := w.locate(at, 16, shared, reading, 0); b == nil || !w.observeUnit(w.block, at, 16, reading, 0, agent, w.products.time+1) {
				return false
			}
		}
	}
	return true
}

// warpgroup is wgmma: fence, commit_group, wait_group and mma_async.
func warpgroup(c *compiler) {
	c.p.k.agents = true
	kind := c.need("fence", "commit_group", "wait_group", "mma_async")
	c.need("sync")
	c.need("aligned")
	var run func(w *warp, lanes uint32)
	switch kind {
	case "fence":
		c.count(0, 0)
		run = func(w *warp, lanes uint32) { w.products.fenced, w.products.left = true, nil }
	case "commit_group":
		c.count(0, 0)
		run = func(w *warp, lanes uint32) {
			s := &w.products
			s.ends, s.time, s.used = append(s.ends, len(s.queue)), s.time+1, s.used[:0]
		}
	case "wait_group":
		n := int(c.constant(c.op(0)))
		c.count(1, 1)
		run = func(w *warp, lanes uint32) { w.waitProducts(n) }
	default:
		run = c.beginProduct()
	}
	c.collective(everyLane, run)
}

// productAgent names the matrix unit of a warp.
type productAgent int

// beginProduct is wgmma.mma_async {d}, a, b, scale-d, imm-scale-a, imm-scale-b[, trans-a], [trans-b].
func (c *compiler) beginProduct() func(w *warp, lanes uint32) {
	shape := ""
	for i, m := range c.mods {
		if strings.HasPrefix(m, "m64n") && strings.HasSuffix(m, "k16") {
			shape, c.mods = m, append(c.mods[:i:i], c.mods[i+1:]...)
			break
		}
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(shape, "m64n"), "k16"))
	b, a, d := c.typ(), c.typ(), c.typ()
	if err != nil || n < 8 || n > 256 || n%8 != 0 || d.name != "f32" || a != b || a.bits != 16 {
		c.bad("the shape or the types are not simulated: m64nNk16 of bf16 or f16 with f32 are")
		return nil
	}
	p := product{half: smallOf(a)}
	if o := c.op(0); o.kind != '{' || len(o.list) != n/2 {
		c.bad("want %d registers in braces", n/2)
	}
	for _, o := range c.op(0).list {
		p.d = append(p.d, c.target(o, 32))
	}
	var aRegs [4]int
	aDesc := 0
	if p.fromLanes = c.op(1).kind == '{'; p.fromLanes {
		aRegs = c.fragment(c.op(1), 4)
	} else {
		aDesc = c.source64(c.op(1))
	}
	bDesc, trans := c.source64(c.op(2)), []bool{false, false}
	adds, not, always := 0, uint32(0), c.op(3).kind == 'i'
	if !always {
		adds, not = c.predicate(c.op(3))
	}
	p.signA, p.signB = float32(int64(c.constant(c.op(4)))), float32(int64(c.constant(c.op(5))))
	if p.fromLanes {
		c.count(7, 7)
		trans[1] = c.constant(c.op(6)) != 0
	} else {
		c.count(8, 8)
		trans[0], trans[1] = c.constant(c.op(6)) != 0, c.constant(c.op(7)) != 0
	}
	if p.signA*p.signA != 1 || p.signB*p.signB != 1 {
		c.bad("a scale is 1 or -1")
	}
	c.in.meter = func(t *tally, w *warp, lanes uint32) {
		t.Products.Flops += 2 * 16 * n * 16 // a warp's quarter
		if !p.fromLanes {
			if a, ok := w.describe(w.r64[aDesc][0], trans[0]); ok {
				t.operand(a, w.id%4*16, 16)
			}
		}
		if w.id%4 == 0 {
			t.Products.Group++
			if b, ok := w.describe(w.r64[bDesc][0], trans[1]); ok {
				t.operand(b, 0, n)
			}
		}
	}
	immediate := always && c.op(3).value != 0
	c.accessed(shared, 16)
	return func(w *warp, lanes uint32) {
		q := p
		if q.add = immediate; !always {
			q.add = (w.pred[adds]^not)&1 != 0
		}
		q.b.base = w.r64[bDesc][0]
		if q.fromLanes {
			for i, r := range aRegs {
				q.aLanes[i] = w.r32[r]
			}
		} else {
			q.a.base = w.r64[aDesc][0]
		}
		w.start(q, n, trans)
	}
}

// start checks a product and lets it begin: its registers are NaN until it has been waited for.
func (w *warp) start(p product, n int, trans []bool) {
	s := &w.products
	if len(w.block.warps)%4 != 0 {
		w.fault(codeLaunch, 0, "a warpgroup is four warps, and the block has %d", len(w.block.warps))
		return
	}
	for _, r := range p.d {
		if was := s.left[r]; !s.fenced || was != nil && *was != w.r32[r] {
			w.fault(codeLaunch, 0, "wgmma.fence is missing between what wrote the sum's registers and this")
			return
		}
	}
	if w.block.survey {
		s.time++
		return
	}
	agent, ok := w.agent(productAgent(w.id), 0)
	if !ok {
		return
	}
	if p.b, ok = w.describe(p.b.base, trans[1]); !ok || !w.uses(p.b, 0, n, agent) {
		return
	}
	if !p.fromLanes {
		if p.a, ok = w.describe(p.a.base, trans[0]); !ok || !w.uses(p.a, w.id%4*16, 16, agent) {
			return
		}
	}
	if s.sums == nil {
		s.sums = map[int]*[32]uint32{}
	}
	for _, r := range p.d {
		if s.sums[r] == nil {
			was := w.r32[r]
			s.sums[r] = &was
		}
		for l := range 32 {
			w.r32[r][l] = nan32
		}
	}
	s.queue = append(s.queue, p)
}

// waitProducts ends products until at most n groups are under way. Only now are their operands read.
func (w *warp) waitProducts(n int) {
	s := &w.products
	done := len(s.ends) - n
	if done <= 0 {
		return
	}
	upto := s.ends[done-1]
	for i := range s.queue[:upto] {
		w.compute(&s.queue[i])
	}
	s.queue = append(s.queue[:0], s.queue[upto:]...)
	s.ends = append(s.ends[:0], s.ends[done:]...)
	for i := range s.ends {
		s.ends[i] -= upto
	}
	busy := map[int]bool{}
	for _, p := range s.queue {
		for _, r := range p.d {
			busy[r] = true
		}
	}
	if s.left == nil {
		s.left = map[int]*[32]uint32{}
	}
	for r, v := range s.sums {
		if !busy[r] {
			w.r32[r], s.left[r] = *v, v
			delete(s.sums, r)
		}
	}
	if upto > 0 {
		agent, _ := w.agent(productAgent(w.id), 0)
		w.learn(allBits, agent, s.time-uint32(len(s.ends)))
	}
}

// compute adds a product to its sums, in the order of k.
func (w *warp) compute(p *product) {
	n := 2 * len(p.d)
	var a [16][16]float32
	b := make([][16]float32, n)
	if p.fromLanes {
		for l := range 32 {
			for i := range 4 {
				v, row, col := p.aLanes[i][l], l>>2+i&1*8, l&3*2+i>>1*8
				a[row][col], a[row][col+1] = p.half.widen(uint16(v)), p.half.widen(uint16(v>>16))
			}
		}
	} else {
		w.matrix(p.a, w.id%4*16, 16, p.half, func(row, k int, v float32) { a[row][k] = v })
	}
	w.matrix(p.b, 0, n, p.half, func(col, k int, v float32) { b[col][k] = v })
	sign := p.signA * p.signB
	for i, r := range p.d {
		sums := w.products.sums[r]
		for l := range 32 {
			x, y := &a[l>>2+i>>1&1*8], &b[i>>2*8+l&3*2+i&1]
			var v float32
			if p.add {
				v = float(sums[l])
			}
			for k := range 16 {
				v += float32(sign * x[k] * y[k])
			}
			sums[l] = bits32(v)
		}
	}
}
