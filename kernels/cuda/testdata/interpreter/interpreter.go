// Package interpreter runs the kernels' PTX on the processor, for the tests of kernels/cuda: every access is
// checked for bounds and alignment, shared memory and unfinished asynchronous copies read as NaN, and with
// Race two accesses of shared memory that nothing orders, one of them a write, are an error. Each error names
// the kernel, the line of its PTX, the lane and the warp. 32 lanes of a warp have a pc each and those with the
// lowest run, so that they meet again by themselves; warps run in turn from barrier to barrier.
package interpreter

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
)

type lanes = [32]uint64
type Inst struct {
	op       string
	pred     int
	neg      bool
	kind     byte // 0 alu, 'b' bra, 's' bar, 'r' ret, 'w' warp-collective
	target   int
	label    string
	exec     func(w *Warp, m uint32)
	line     int
	operands []opnd
}
type opnd struct {
	reg  int // register index (constants and specials are registers too)
	off  int64
	addr bool
	vec  []int
}
type Kernel struct {
	name    string
	params  []param
	nreg    int
	consts  map[int]uint64
	insts   []Inst
	regs    map[string]int
	special map[string]int
	shsize  int
	shsym   map[string]int
	dynsym  string
}
type param struct {
	name string
	off  int
	size int
}
type Buf struct {
	b  []byte
	sh []cell
}
type cell struct {
	wep, rep   uint32
	wthr, rthr int16
	wwe, rwe   uint32
	multi      bool
	init       bool
	wblk, rblk uint32
}
type Device struct {
	bufs []*Buf
	Errs []string
	Race bool
	// LastFirst lets the last warp run first, to each barrier; otherwise the first does.
	LastFirst bool
	Nerr      int
	LaneOp    int64
}
type Block struct {
	d     *Device
	k     *Kernel
	sh    Buf
	warps []*Warp
	epoch uint32
	blk   uint32
	param []byte
}
type Warp struct {
	b      *Block
	R      []lanes
	pc     [32]int
	alive  uint32
	id     int
	wait   bool
	wep    uint32
	cp     [32][]cpa
	groups [32][]int
	wq     []wgop
	wgrp   []int
	stash  map[int]lanes
	proxy  uint32
	cur    *Inst
}
type wgop struct {
	d, n   int
	dr     []int
	da, db uint64
}
type cpa struct {
	s, g uint64
	n, t int
}

func (d *Device) Alloc(n int) uint64 {
	d.bufs = append(d.bufs, &Buf{b: make([]byte, n)})
	return uint64(len(d.bufs)) << 36
}
func (d *Device) B(a uint64) []byte { return d.bufs[a>>36-1].b }
func (w *Warp) fail(f string, a ...any) {
	w.b.d.Nerr++
	if len(w.b.d.Errs) < 4 {
		w.b.d.Errs = append(w.b.d.Errs, fmt.Sprintf("%s line %d (%s) warp %d block %d: ", w.b.k.name, w.cur.line, w.cur.op, w.id, w.b.blk)+fmt.Sprintf(f, a...))
	}
}

const shBase = uint64(1) << 60

func (w *Warp) mem(a uint64, n int, shared, wr bool, lane int) []byte {
	var bf *Buf
	off := a
	if shared || a >= shBase {
		bf = &w.b.sh
		off = a &^ shBase
		if shared {
			off = uint64(uint32(a))
		}
	} else {
		id := int(a >> 36)
		if id < 1 || id > len(w.b.d.bufs) {
			w.fail("lane %d wild %d-byte access at %#x", lane, n, a)
			return make([]byte, n)
		}
		bf = w.b.d.bufs[id-1]
		off = a & (1<<36 - 1)
	}
	if off+uint64(n) > uint64(len(bf.b)) {
		w.fail("lane %d OUT OF BOUNDS %d-byte %s at offset %d of %d (shared=%v)", lane, n, rw(wr), off, len(bf.b), bf == &w.b.sh)
		return make([]byte, n)
	}
	if off%uint64(n) != 0 {
		w.fail("lane %d MISALIGNED %d-byte access at offset %d", lane, n, off)
	}
	if w.b.d.Race && bf == &w.b.sh {
		w.shadow(bf, off, n, wr, lane)
	}
	return bf.b[off : off+uint64(n)]
}
func rw(w bool) string {
	if w {
		return "write"
	}
	return "read"
}
func (w *Warp) shadow(bf *Buf, off uint64, n int, wr bool, lane int) {
	t := int16(w.id*32 + lane)
	ordered := func(o int16, ep, we uint32) bool {
		return o == t || ep != w.b.epoch || (int(o)>>5 == w.id && we != w.wep)
	}
	for i := uint64(0); i < uint64(n); i++ {
		c := &bf.sh[off+i]
		if wr {
			if c.init && !ordered(c.wthr, c.wep, c.wwe) {
				w.fail("RACE write/write thread %d vs %d shared+%d", c.wthr, t, off+i)
				return
			}
			if c.rep == w.b.epoch && c.rthr >= 0 && (!ordered(c.rthr, c.rep, c.rwe) || (c.multi && int(c.rthr)>>5 == w.id && c.rwe == w.wep)) {
				w.fail("RACE write after unordered read: thread %d read, %d writes shared+%d", c.rthr, t, off+i)
				return
			}
			c.init, c.wep, c.wthr, c.wwe = true, w.b.epoch, t, w.wep
		} else {
			if !c.init {
				w.fail("UNINITIALISED shared read by thread %d at shared+%d", t, off+i)
				return
			}
			if !ordered(c.wthr, c.wep, c.wwe) {
				w.fail("RACE read of unordered write: thread %d wrote, %d reads shared+%d", c.wthr, t, off+i)
				return
			}
			if !(c.rep == w.b.epoch && c.rthr >= 0 && int(c.rthr)>>5 != w.id) { // keep a foreign-warp reader if there is one
				c.multi = c.rthr >= 0 && c.rep == w.b.epoch && c.rthr != t
				c.rep, c.rthr, c.rwe = w.b.epoch, t, w.wep
			}
		}
	}
}

var reReg = regexp.MustCompile(`\.reg \.(\w+)\s+(.*)`)
var reVar = regexp.MustCompile(`\.(?:align (\d+) )?\.?b8 ([\w$]+)\[(\d*)\]`)

func Parse(src string) map[string]*Kernel {
	ks := map[string]*Kernel{}
	lines := strings.Split(src, "\n")
	var k *Kernel
	labels := map[string]int{}
	dyn := ""
	for ln := 0; ln < len(lines); ln++ {
		l := lines[ln]
		if i := strings.Index(l, "//"); i >= 0 {
			l = l[:i]
		}
		l = strings.TrimSpace(l)
		if l == "" {
			continue
		}
		if strings.HasPrefix(l, ".extern .shared") {
			f := strings.Fields(strings.TrimSuffix(l, ";"))
			dyn = strings.TrimSuffix(f[len(f)-1], "[]")
			continue
		}
		if i := strings.Index(l, ".entry "); i >= 0 {
			k = &Kernel{name: strings.TrimSuffix(strings.TrimSpace(l[i+7:]), "("), consts: map[int]uint64{}, regs: map[string]int{}, special: map[string]int{}, shsym: map[string]int{}, dynsym: dyn}
			ks[k.name] = k
			labels = map[string]int{}
			off := 0
			for ln++; !strings.HasPrefix(strings.TrimSpace(lines[ln]), ")"); ln++ {
				f := strings.Fields(strings.TrimSuffix(strings.TrimSpace(lines[ln]), ","))
				sz := 4
				if strings.HasSuffix(f[1], "64") {
					sz = 8
				}
				off = (off + sz - 1) / sz * sz
				k.params = append(k.params, param{f[len(f)-1], off, sz})
				off += sz
			}
			continue
		}
		if k == nil || strings.HasPrefix(l, ".pragma") || strings.HasPrefix(l, ".maxntid") || strings.HasPrefix(l, ".minn") || strings.HasPrefix(l, ".version") {
			continue
		}
		if strings.HasPrefix(l, "$") && strings.HasSuffix(l, ":") {
			labels[strings.TrimSuffix(l, ":")] = len(k.insts)
			continue
		}
		if strings.HasPrefix(l, ".shared") {
			m := reVar.FindStringSubmatch(strings.Replace(l, ".shared ", "", 1))
			if m == nil {
				f := strings.Fields(strings.TrimSuffix(l, ";"))
				sz := map[string]string{".u32": "4", ".f64": "8", ".f32": "4"}[f[3]]
				m = []string{"", f[2], f[4], sz}
			}
			n, _ := strconv.Atoi(m[3])
			al, _ := strconv.Atoi(m[1])
			if al < 16 {
				al = 16
			}
			k.shsize = (k.shsize + al - 1) / al * al
			k.shsym[m[2]] = k.shsize
			k.shsize += n
			continue
		}
		if l == "{" || strings.HasPrefix(l, "}") && !strings.Contains(l, ";") {
			if l == "}" {
				for i := range k.insts {
					if k.insts[i].label != "" {
						k.insts[i].target = labels[k.insts[i].label]
					}
				}
				if ln+1 >= len(lines) || strings.TrimSpace(lines[ln+1]) == "" {
				}
			}
			continue
		}
		// possibly several statements on a line (inline asm in braces)
		depth, start := 0, 0
		if strings.HasPrefix(l, "{") {
			l = strings.TrimSpace(l[1:])
		}
		for i := 0; i < len(l); i++ {
			switch l[i] {
			case '{':
				depth++
			case '}':
				depth--
			case ';':
				s := strings.TrimSpace(l[start:i])
				start = i + 1
				if s == "" || s[0] == '.' || s == "}" {
					continue
				}
				k.insts = append(k.insts, k.parseInst(s, ln+1))
			}
		}
	}
	return ks
}
func (k *Kernel) reg(n string) int {
	if i, ok := k.regs[n]; ok {
		return i
	}
	k.regs[n] = k.nreg
	k.nreg++
	return k.nreg - 1
}
func (k *Kernel) cnst(v uint64) int { i := k.reg(fmt.Sprintf("#%x", v)); k.consts[i] = v; return i }
func (k *Kernel) val(s string) int {
	s = strings.TrimSpace(s)
	switch {
	case strings.HasPrefix(s, "%tid.") || strings.HasPrefix(s, "%ntid.") || strings.HasPrefix(s, "%ctaid.") || strings.HasPrefix(s, "%nctaid.") || s == "%laneid":
		i := k.reg(s)
		k.special[s] = i
		return i
	case strings.HasPrefix(s, "%"):
		return k.reg(s)
	case strings.HasPrefix(s, "0f"):
		v, _ := strconv.ParseUint(s[2:], 16, 32)
		return k.cnst(v)
	case strings.HasPrefix(s, "0d"):
		v, _ := strconv.ParseUint(s[2:], 16, 64)
		return k.cnst(v)
	}
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		return k.cnst(uint64(v))
	}
	if v, err := strconv.ParseUint(s, 0, 64); err == nil {
		return k.cnst(v)
	}
	if o, ok := k.shsym[s]; ok {
		return k.cnst(uint64(o))
	}
	if s == k.dynsym {
		return k.reg("#dyn")
	}
	for _, p := range k.params {
		if p.name == s {
			return k.cnst(uint64(p.off))
		}
	}
	return k.reg(s) // names declared inside inline-asm scopes
}
func split(s string) []string {
	var r []string
	d, st := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '[':
			d++
		case '}', ']':
			d--
		case ',':
			if d == 0 {
				r = append(r, strings.TrimSpace(s[st:i]))
				st = i + 1
			}
		}
	}
	return append(r, strings.TrimSpace(s[st:]))
}
func (k *Kernel) parseInst(s string, ln int) Inst {
	in := Inst{pred: -1, line: ln}
	if s[0] == '@' {
		i := strings.IndexAny(s, " \t")
		p := s[1:i]
		if p[0] == '!' {
			in.neg = true
			p = p[1:]
		}
		in.pred = k.reg(p)
		s = strings.TrimSpace(s[i:])
	}
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		i = len(s)
	}
	in.op = s[:i]
	args := []string{}
	if i < len(s) {
		args = split(strings.TrimSpace(s[i:]))
	}
	var o []opnd
	if !strings.HasPrefix(in.op, "bra") {
		for _, a := range args {
			switch {
			case a[0] == '[':
				a = a[1 : len(a)-1]
				off := int64(0)
				if j := strings.IndexByte(a, '+'); j > 0 {
					off, _ = strconv.ParseInt(a[j+1:], 0, 64)
					a = a[:j]
				}
				o = append(o, opnd{reg: k.val(a), off: off, addr: true})
			case a[0] == '{':
				v := opnd{}
				for _, x := range strings.Split(a[1:len(a)-1], ",") {
					v.vec = append(v.vec, k.val(x))
				}
				o = append(o, v)
			case strings.Contains(a, "|"):
				j := strings.IndexByte(a, '|')
				o = append(o, opnd{reg: k.val(a[:j]), vec: []int{k.val(a[j+1:])}})
			default:
				o = append(o, opnd{reg: k.val(a)})
			}
		}
	} else {
		in.kind, in.label = 'b', args[0]
	}
	in.operands = o
	k.compile(&in, o)
	return in
}
func f64(x uint64) float64 { return math.Float64frombits(x) }
func b64(f float64) uint64 { return math.Float64bits(f) }
func f32(x uint64) float32 { return math.Float32frombits(uint32(x)) }
func b32(f float32) uint64 { return uint64(math.Float32bits(f)) }

// fma32 is a*b + c, rounded once: the product is exact in float64, the sum is rounded there to odd, which
// leaves the last rounding nothing to tie with that was no tie.
func fma32(a, b, c float32) float32 {
	p, q := float64(a)*float64(b), float64(c)
	s := p + q
	bv := s - p
	rest := (p - (s - bv)) + (q - bv) // what s leaves out, exactly
	u := math.Float64bits(s)
	if rest != 0 && u&1 == 0 && !math.IsNaN(rest) && !math.IsInf(s, 0) {
		if (rest > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}
func tw(t string) int {
	n, _ := strconv.Atoi(strings.TrimLeft(t, "abcdefghijklmnopqrstuvwxyz"))
	return n
}
func bfhi(u uint64, h int) float32 {
	if h == 1 {
		return math.Float32frombits(uint32(u) & 0xffff0000)
	}
	return math.Float32frombits(uint32(u) << 16)
}

func (k *Kernel) compile(in *Inst, o []opnd) {
	p := strings.Split(in.op, ".")
	ty := p[len(p)-1]
	un := func(f func(a uint64) uint64) {
		d, a := o[0].reg, o[1].reg
		in.exec = func(w *Warp, m uint32) {
			D, A := &w.R[d], &w.R[a]
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				D[l] = f(A[l])
			}
		}
	}
	bin := func(f func(a, b uint64) uint64) {
		d, a, b := o[0].reg, o[1].reg, o[2].reg
		in.exec = func(w *Warp, m uint32) {
			D, A, B := &w.R[d], &w.R[a], &w.R[b]
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				D[l] = f(A[l], B[l])
			}
		}
	}
	tri := func(f func(a, b, c uint64) uint64) {
		d, a, b, c := o[0].reg, o[1].reg, o[2].reg, o[3].reg
		in.exec = func(w *Warp, m uint32) {
			D, A, B, C := &w.R[d], &w.R[a], &w.R[b], &w.R[c]
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				D[l] = f(A[l], B[l], C[l])
			}
		}
	}
	tr := func(v uint64) uint64 { return v }
	switch tw(ty) {
	case 32:
		tr = func(v uint64) uint64 { return uint64(uint32(v)) }
	case 16:
		tr = func(v uint64) uint64 { return uint64(uint16(v)) }
	}
	sx := func(v uint64) int64 { return int64(v) }
	if tw(ty) == 32 {
		sx = func(v uint64) int64 { return int64(int32(v)) }
	}
	if tw(ty) == 16 {
		sx = func(v uint64) int64 { return int64(int16(v)) }
	}
	signed := ty[0] == 's'
	switch p[0] {
	case "ret", "exit":
		in.kind = 'r'
	case "bra":
	case "bar", "barrier":
		in.kind = 's'
	case "mov":
		if len(o[0].vec) > 0 && o[1].vec == nil { // unpack
			dv, a := o[0].vec, o[1].reg
			sh := uint(tw(ty) / len(dv))
			in.exec = func(w *Warp, m uint32) {
				for l := 0; l < 32; l++ {
					if m>>l&1 == 1 {
						v := w.R[a][l]
						for i, d := range dv {
							w.R[d][l] = v >> (uint(i) * sh) & (1<<sh - 1)
						}
					}
				}
			}
		} else if len(o[1].vec) > 0 {
			d, av := o[0].reg, o[1].vec
			sh := uint(tw(ty) / len(av))
			in.exec = func(w *Warp, m uint32) {
				for l := 0; l < 32; l++ {
					if m>>l&1 == 1 {
						v := uint64(0)
						for i, a := range av {
							v |= (w.R[a][l] & (1<<sh - 1)) << (uint(i) * sh)
						}
						w.R[d][l] = v
					}
				}
			}
		} else {
			un(tr)
		}
	case "cvta":
		if strings.Contains(in.op, "shared") {
			if p[1] == "to" {
				un(func(a uint64) uint64 { return a &^ shBase })
			} else {
				un(func(a uint64) uint64 { return a | shBase })
			}
		} else {
			un(func(a uint64) uint64 { return a })
		}
	case "add":
		if ty == "f32" {
			bin(func(a, b uint64) uint64 { return b32(f32(a) + f32(b)) })
		} else if ty == "f64" {
			bin(func(a, b uint64) uint64 { return b64(f64(a) + f64(b)) })
		} else {
			bin(func(a, b uint64) uint64 { return tr(a + b) })
		}
	case "sub":
		if ty == "f32" {
			bin(func(a, b uint64) uint64 { return b32(f32(a) - f32(b)) })
		} else if ty == "f64" {
			bin(func(a, b uint64) uint64 { return b64(f64(a) - f64(b)) })
		} else {
			bin(func(a, b uint64) uint64 { return tr(a - b) })
		}
	case "mul":
		switch {
		case ty == "f32":
			bin(func(a, b uint64) uint64 { return b32(f32(a) * f32(b)) })
		case ty == "f64":
			bin(func(a, b uint64) uint64 { return b64(f64(a) * f64(b)) })
		case p[1] == "wide" && signed:
			bin(func(a, b uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) })
		case p[1] == "wide":
			bin(func(a, b uint64) uint64 { return uint64(uint32(a)) * uint64(uint32(b)) })
		case p[1] == "lo":
			bin(func(a, b uint64) uint64 { return tr(a * b) })
		case p[1] == "hi" && signed:
			bin(func(a, b uint64) uint64 { return uint64(uint32((int64(int32(a)) * int64(int32(b))) >> 32)) })
		case p[1] == "hi":
			bin(func(a, b uint64) uint64 { return (uint64(uint32(a)) * uint64(uint32(b))) >> 32 })
		}
	case "mad":
		if p[1] == "lo" {
			tri(func(a, b, c uint64) uint64 { return tr(a*b + c) })
		} else if p[1] == "wide" {
			tri(func(a, b, c uint64) uint64 { return uint64(int64(int32(a))*int64(int32(b))) + c })
		}
	case "fma":
		if ty == "f64" {
			tri(func(a, b, c uint64) uint64 { return b64(math.FMA(f64(a), f64(b), f64(c))) })
			break
		}
		tri(func(a, b, c uint64) uint64 {
			return b32(fma32(f32(a), f32(b), f32(c)))
		})
	case "div":
		switch {
		case ty == "f32":
			bin(func(a, b uint64) uint64 { return b32(f32(a) / f32(b)) })
		case ty == "f64":
			bin(func(a, b uint64) uint64 { return b64(f64(a) / f64(b)) })
		case signed:
			bin(func(a, b uint64) uint64 { return tr(uint64(sx(a) / sx(b))) })
		default:
			bin(func(a, b uint64) uint64 { return tr(a) / tr(b) })
		}
	case "rem":
		if signed {
			bin(func(a, b uint64) uint64 { return tr(uint64(sx(a) % sx(b))) })
		} else {
			bin(func(a, b uint64) uint64 { return tr(a) % tr(b) })
		}
	case "and":
		bin(func(a, b uint64) uint64 { return a & b })
	case "or":
		bin(func(a, b uint64) uint64 { return a | b })
	case "xor":
		bin(func(a, b uint64) uint64 { return a ^ b })
	case "not":
		if ty == "pred" {
			un(func(a uint64) uint64 { return a ^ 1 })
		} else {
			un(func(a uint64) uint64 { return tr(^a) })
		}
	case "neg":
		if ty == "f32" {
			un(func(a uint64) uint64 { return a ^ 0x80000000 })
		} else {
			un(func(a uint64) uint64 { return tr(-a) })
		}
	case "shl":
		bin(func(a, b uint64) uint64 { return tr(a << b) })
	case "shr":
		if signed {
			bin(func(a, b uint64) uint64 { return tr(uint64(sx(a) >> b)) })
		} else {
			bin(func(a, b uint64) uint64 { return tr(a) >> b })
		}
	case "max", "min":
		mx := p[0] == "max"
		if ty == "f32" {
			bin(func(a, b uint64) uint64 {
				if f32(a) != f32(a) {
					return b
				}
				if f32(b) != f32(b) {
					return a
				}
				if mx {
					return b32(max(f32(a), f32(b)))
				}
				return b32(min(f32(a), f32(b)))
			})
		} else {
			bin(func(a, b uint64) uint64 {
				lt := tr(a) < tr(b)
				if signed {
					lt = sx(a) < sx(b)
				}
				if lt == mx {
					return b
				}
				return a
			})
		}
	case "bfi":
		d, a, b, c, e := o[0].reg, o[1].reg, o[2].reg, o[3].reg, o[4].reg
		in.exec = func(w *Warp, m uint32) {
			for l := 0; l < 32; l++ {
				if m>>l&1 == 1 {
					msk := (uint64(1)<<w.R[e][l] - 1) << w.R[c][l]
					w.R[d][l] = w.R[b][l]&^msk | (w.R[a][l]<<w.R[c][l])&msk
				}
			}
		}
	case "abs":
		un(func(a uint64) uint64 { return a &^ 0x80000000 })
	case "red":
		a, v := o[0], o[1].reg
		in.exec = func(w *Warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				b := w.mem(w.R[a.reg][l]+uint64(a.off), 8, false, true, l)
				binary.LittleEndian.PutUint64(b, min(binary.LittleEndian.Uint64(b), w.R[v][l]))
			}
		}
	case "ex2":
		un(func(a uint64) uint64 { return b32(float32(math.Exp2(float64(f32(a))))) })
	case "lg2":
		un(func(a uint64) uint64 { return b32(float32(math.Log2(float64(f32(a))))) })
	case "rsqrt":
		un(func(a uint64) uint64 { return b32(float32(1 / math.Sqrt(float64(f32(a))))) })
	case "sqrt":
		un(func(a uint64) uint64 { return b32(float32(math.Sqrt(float64(f32(a))))) })
	case "rcp":
		un(func(a uint64) uint64 { return b32(1 / f32(a)) })
	case "cvt":
		dt, st := p[len(p)-2], ty
		switch {
		case dt == "f32" && st == "f32":
			un(func(a uint64) uint64 { return b32(float32(math.RoundToEven(float64(f32(a))))) })
		case dt == "f64" && st == "f32":
			un(func(a uint64) uint64 { return b64(float64(f32(a))) })
		case dt == "f32" && st == "f64":
			un(func(a uint64) uint64 { return b32(float32(f64(a))) })
		case dt == "f64" && st == "s32":
			un(func(a uint64) uint64 { return b64(float64(int32(a))) })
		case dt == "s32" && st == "f32":
			un(func(a uint64) uint64 { return uint64(uint32(int32(f32(a)))) })
		case dt == "f32" && st == "s32":
			un(func(a uint64) uint64 { return b32(float32(int32(a))) })
		case dt == "f32" && st == "u32":
			un(func(a uint64) uint64 { return b32(float32(uint32(a))) })
		case dt == "s64" && st == "s32":
			un(func(a uint64) uint64 { return uint64(int64(int32(a))) })
		case dt == "f32" && st == "bf16":
			un(func(a uint64) uint64 { return uint64(uint32(uint16(a)) << 16) })
		case dt == "bf16" && st == "f32":
			un(func(a uint64) uint64 {
				u := uint32(a)
				if f := f32(a); f != f {
					return 0x7fff
				}
				return uint64(uint16((u + 0x7fff + u>>16&1) >> 16))
			})
		case dt[0] != 'f' && st[0] != 'f' && tw(dt) >= tw(st) && st[0] == 'u', dt[0] != 'f' && st[0] != 'f' && tw(dt) < tw(st):
			n := min(tw(dt), tw(st))
			un(func(a uint64) uint64 { return a & (1<<uint(n) - 1) })
		default:
			panic("cvt " + in.op)
		}
	case "setp":
		cmp := p[1]
		isf := ty == "f32" || ty == "f64"
		d, a, b := o[0].reg, o[1].reg, o[2].reg
		in.exec = func(w *Warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				x, y := w.R[a][l], w.R[b][l]
				var c int
				un := false
				if isf {
					fx, fy := float64(f32(x)), float64(f32(y))
					if ty == "f64" {
						fx, fy = f64(x), f64(y)
					}
					un = fx != fx || fy != fy
					if fx < fy {
						c = -1
					} else if fx > fy {
						c = 1
					}
				} else if signed {
					if sx(x) < sx(y) {
						c = -1
					} else if sx(x) > sx(y) {
						c = 1
					}
				} else {
					if tr(x) < tr(y) {
						c = -1
					} else if tr(x) > tr(y) {
						c = 1
					}
				}
				r := false
				switch cmp {
				case "lt":
					r = c < 0
				case "le":
					r = c <= 0
				case "gt":
					r = c > 0
				case "ge":
					r = c >= 0
				case "eq":
					r = c == 0
				case "ne":
					r = c != 0
				case "leu", "geu", "ltu", "gtu", "neu", "nan":
					r = un || (cmp == "leu" && c <= 0) || (cmp == "geu" && c >= 0) || (cmp == "ltu" && c < 0) || (cmp == "gtu" && c > 0) || (cmp == "neu" && c != 0)
				default:
					panic(cmp)
				}
				if un && len(cmp) == 2 {
					r = cmp == "ne" && false
				}
				w.R[d][l] = 0
				if r {
					w.R[d][l] = 1
				}
			}
		}
	case "selp":
		tri(func(a, b, c uint64) uint64 {
			if c&1 == 1 {
				return a
			}
			return b
		})
	case "ld", "st":
		space := p[1]
		if space == "relaxed" {
			space = "global"
		}
		n := tw(ty) / 8
		sgn := signed
		st := p[0] == "st"
		ao, vo := o[1], o[0]
		if st {
			ao, vo = o[0], o[1]
		}
		regs := vo.vec
		if regs == nil {
			regs = []int{vo.reg}
		}
		tot := n * len(regs)
		in.exec = func(w *Warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros32(m)
				a := w.R[ao.reg][l] + uint64(ao.off)
				var b []byte
				if space == "param" {
					b = w.b.param[a : a+uint64(n)]
				} else {
					b = w.mem(a, tot, space == "shared", st, l)
				}
				for i, r := range regs {
					q := b[i*n:]
					if st {
						v := w.R[r][l]
						switch n {
						case 1:
							q[0] = byte(v)
						case 2:
							binary.LittleEndian.PutUint16(q, uint16(v))
						case 4:
							binary.LittleEndian.PutUint32(q, uint32(v))
						case 8:
							binary.LittleEndian.PutUint64(q, v)
						}
					} else {
						var v uint64
						switch n {
						case 1:
							v = uint64(q[0])
						case 2:
							v = uint64(binary.LittleEndian.Uint16(q))
						case 4:
							v = uint64(binary.LittleEndian.Uint32(q))
						case 8:
							v = binary.LittleEndian.Uint64(q)
						}
						if sgn && n == 4 {
							v = uint64(int64(int32(v)))
						}
						w.R[r][l] = v
					}
				}
			}
		}
	case "shfl":
		in.kind = 'w'
		mode := p[2]
		d, a, b, c, mk := o[0], o[1].reg, o[2].reg, o[3].reg, o[4].reg
		in.exec = func(w *Warp, m uint32) {
			if want := uint32(w.R[mk][bits.TrailingZeros32(m)]); m&want != want {
				w.fail("shfl.sync: lanes %08x of mask %08x are not here", want&^m, want)
			}
			A := w.R[a]
			for l := 0; l < 32; l++ {
				if m>>l&1 == 0 {
					continue
				}
				bv, cv := int(w.R[b][l]&31), int(w.R[c][l])
				seg := cv >> 8 & 31
				cl := cv & 31
				maxl := (l & seg) | (cl &^ seg)
				minl := l & seg
				j, ok := l, true
				switch mode {
				case "bfly":
					j = l ^ bv
					ok = j <= maxl
				case "down":
					j = l + bv
					ok = j <= maxl
				case "up":
					j = l - bv
					ok = j >= (l&seg | (cl &^ seg))
				case "idx":
					j = minl | (bv &^ seg)
					ok = j <= maxl
				}
				if !ok {
					j = l
				}
				w.R[d.reg][l] = A[j]
				if d.vec != nil {
					w.R[d.vec[0]][l] = map[bool]uint64{true: 1}[ok]
				}
			}
			w.wep++
		}
	case "ldmatrix":
		in.kind = 'w'
		dv, ao := o[0].vec, o[1]
		in.exec = func(w *Warp, m uint32) {
			if m != ^uint32(0) {
				w.fail("ldmatrix needs the whole warp, has %08x", m)
			}
			if strings.Contains(in.op, ".trans") {
				for i := range dv {
					for r := 0; r < 8; r++ {
						b := w.mem(w.R[ao.reg][i*8+r]+uint64(ao.off), 16, true, false, i*8+r)
						for c := 0; c < 8; c++ {
							l, sh := c*4+r/2, uint(r%2)*16
							v := uint64(binary.LittleEndian.Uint16(b[c*2:]))
							w.R[dv[i]][l] = w.R[dv[i]][l]&^(0xffff<<sh) | v<<sh
						}
					}
				}
				return
			}
			for i := range dv {
				for r := 0; r < 8; r++ {
					b := w.mem(w.R[ao.reg][i*8+r]+uint64(ao.off), 16, true, false, i*8+r)
					for t := 0; t < 4; t++ {
						w.R[dv[i]][r*4+t] = uint64(binary.LittleEndian.Uint32(b[t*4:]))
					}
				}
			}
			w.wep++
		}
	case "mma":
		if !strings.Contains(in.op, "m16n8k16.row.col.f32.bf16.bf16.f32") {
			panic(in.op)
		}
		in.kind = 'w'
		D, A, B, C := o[0].vec, o[1].vec, o[2].vec, o[3].vec
		in.exec = func(w *Warp, m uint32) {
			if m != ^uint32(0) {
				w.fail("mma needs the whole warp, has %08x", m)
			}
			var a [16][16]float32
			var b [16][8]float32
			var c [16][8]float32
			for l := 0; l < 32; l++ {
				g, t := l>>2, l&3
				for i := 0; i < 4; i++ {
					v := w.R[A[i]][l]
					for h := 0; h < 2; h++ {
						a[g+(i&1)*8][t*2+h+(i>>1)*8] = bfhi(v, h)
					}
					c[g+(i>>1)*8][t*2+i&1+(t*2)*0] = 0
				}
				for i := 0; i < 2; i++ {
					for h := 0; h < 2; h++ {
						b[t*2+h+i*8][g] = bfhi(w.R[B[i]][l], h)
					}
				}
			}
			for l := 0; l < 32; l++ {
				for i := 0; i < 4; i++ {
					c[l>>2+(i>>1)*8][(l&3)*2+i&1] = f32(w.R[C[i]][l])
				}
			}
			for i := 0; i < 16; i++ {
				for kk := 0; kk < 16; kk++ {
					av := a[i][kk]
					br, cr := &b[kk], &c[i]
					for j := 0; j < 8; j++ {
						cr[j] += av * br[j]
					}
				}
			}
			for l := 0; l < 32; l++ {
				for i := 0; i < 4; i++ {
					w.R[D[i]][l] = b32(c[l>>2+(i>>1)*8][(l&3)*2+i&1])
				}
			}
			w.wep++
		}
	case "fence", "membar":
		in.exec = func(w *Warp, m uint32) {
			if strings.Contains(in.op, "proxy.async") {
				w.proxy = w.b.epoch + 1
			}
		}
	case "wgmma":
		in.kind = 'w'
		switch p[1] {
		case "fence":
			in.exec = func(w *Warp, m uint32) {}
		case "commit_group":
			in.exec = func(w *Warp, m uint32) { w.wgrp = append(w.wgrp, len(w.wq)) }
		case "wait_group":
			n := int(k.consts[o[0].reg])
			in.exec = func(w *Warp, m uint32) { w.wgwait(n) }
		case "mma_async":
			if p[4][:4] != "m64n" || !strings.HasSuffix(p[4], "k16") || !strings.HasSuffix(in.op, "f32.bf16.bf16") {
				panic(in.op)
			}
			dr, a, b := o[0].vec, o[1].reg, o[2].reg
			in.exec = func(w *Warp, m uint32) { // asynchronous: registers are NaN until wait_group, operands are read at the wait
				if m != ^uint32(0) {
					w.fail("wgmma needs the whole warp, has %08x", m)
				}
				if w.stash == nil {
					w.stash = map[int]lanes{}
				}
				for _, r := range dr {
					if _, ok := w.stash[r]; !ok {
						w.stash[r] = w.R[r]
					}
					for l := range w.R[r] {
						w.R[r][l] = 0x7fc0dead
					}
				}
				w.wq = append(w.wq, wgop{n: len(dr) * 2, dr: dr, da: w.R[a][0], db: w.R[b][0]})
			}
		}
	case "cp": // cp.async
		if p[2] == "commit_group" {
			in.exec = func(w *Warp, m uint32) {
				for l := 0; l < 32; l++ {
					if m>>l&1 == 1 {
						w.groups[l] = append(w.groups[l], len(w.cp[l]))
					}
				}
			}
		} else if p[2] == "wait_group" || p[2] == "wait_all" {
			n := 0
			if len(o) > 0 {
				n = int(k.consts[o[0].reg])
			}
			in.exec = func(w *Warp, m uint32) {
				for l := 0; l < 32; l++ {
					if m>>l&1 == 0 || len(w.groups[l]) <= n {
						continue
					}
					q := len(w.groups[l]) - n
					upto := w.groups[l][q-1]
					for _, c := range w.cp[l][:upto] {
						s := w.mem(c.s, c.t, true, true, l)
						clear(s)
						if c.n > 0 {
							copy(s, w.mem(c.g, c.n, false, false, l))
						}
					}
					w.cp[l] = w.cp[l][upto:]
					w.groups[l] = w.groups[l][q:]
					for i := range w.groups[l] {
						w.groups[l][i] -= upto
					}
				}
			}
		} else {
			s, g := o[0], o[1]
			T := int(k.consts[o[2].reg])
			in.exec = func(w *Warp, m uint32) {
				for l := 0; l < 32; l++ {
					if m>>l&1 == 0 {
						continue
					}
					n := T
					if len(o) > 3 {
						n = int(w.R[o[3].reg][l])
					}
					sa, ga := w.R[s.reg][l]+uint64(s.off), w.R[g.reg][l]+uint64(g.off)
					b := w.mem(sa, T, true, true, l)
					for i := range b {
						b[i] = 0xff // poison until waited for
					}
					if n > 0 {
						w.mem(ga, n, false, false, l)
					}
					w.cp[l] = append(w.cp[l], cpa{sa, ga, n, T})
				}
			}
		}
	default:
		panic(fmt.Sprintf("line %d: opcode not implemented: %s", in.line, in.op))
	}
	if in.exec == nil && in.kind == 0 {
		panic("no exec for " + in.op)
	}
}

// run until bar.sync or exit; returns false if nothing could run
func (w *Warp) step() {
	for {
		if w.alive == 0 {
			return
		}
		pc := int(^uint(0) >> 1)
		for m := w.alive; m != 0; m &= m - 1 {
			if q := w.pc[bits.TrailingZeros32(m)]; q < pc {
				pc = q
			}
		}
		var m uint32
		for q := w.alive; q != 0; q &= q - 1 {
			l := bits.TrailingZeros32(q)
			if w.pc[l] == pc {
				m |= 1 << l
			}
		}
		// straight-line run while nobody branches: all lanes in m move together
		for {
			in := &w.b.k.insts[pc]
			w.cur = in
			em := m
			if in.pred >= 0 {
				P := &w.R[in.pred]
				for q := m; q != 0; q &= q - 1 {
					l := bits.TrailingZeros32(q)
					if (P[l]&1 == 1) == in.neg {
						em &^= 1 << l
					}
				}
			}
			w.b.d.LaneOp += int64(bits.OnesCount32(em))
			if in.kind == 0 || in.kind == 'w' {
				if em != 0 {
					in.exec(w, em)
				}
				pc++
				if m == w.alive {
					continue
				}
				for q := m; q != 0; q &= q - 1 {
					w.pc[bits.TrailingZeros32(q)] = pc
				}
				break
			}
			for q := m; q != 0; q &= q - 1 {
				l := bits.TrailingZeros32(q)
				w.pc[l] = pc + 1
				if em>>l&1 == 1 && in.kind == 'b' {
					w.pc[l] = in.target
				}
			}
			if in.kind == 'r' {
				w.alive &^= em
			}
			if in.kind == 's' {
				if em != w.alive {
					w.fail("bar.sync in divergent code: lanes %08x of %08x", em, w.alive)
				}
				w.wait = true
				return
			}
			break
		}
	}
}

func (d *Device) Launch(k *Kernel, grid, block [3]int, smem int, args ...any) {
	pb := make([]byte, 0, 128)
	for i, a := range args {
		for len(pb) < k.params[i].off {
			pb = append(pb, 0)
		}
		switch v := a.(type) {
		case uint64:
			if k.params[i].size == 4 {
				pb = binary.LittleEndian.AppendUint32(pb, uint32(v))
				break
			}
			pb = binary.LittleEndian.AppendUint64(pb, v)
		case int:
			pb = binary.LittleEndian.AppendUint32(pb, uint32(v))
		case float32:
			pb = binary.LittleEndian.AppendUint32(pb, math.Float32bits(v))
		}
	}
	nth := block[0] * block[1] * block[2]
	nw := (nth + 31) / 32
	ws := make([]*Warp, nw)
	dynoff := (k.shsize + 15) / 16 * 16
	b := &Block{d: d, k: k, param: pb}
	b.sh.b = make([]byte, dynoff+smem)
	if d.Race {
		b.sh.sh = make([]cell, dynoff+smem)
	}
	for i := range ws {
		ws[i] = &Warp{b: b, id: i, R: make([]lanes, k.nreg)}
	}
	for z := 0; z < grid[2]; z++ {
		for y := 0; y < grid[1]; y++ {
			for x := 0; x < grid[0]; x++ {
				b.blk++
				b.epoch = 0
				for i := range b.sh.b {
					b.sh.b[i] = 0xff
				}
				for i := range b.sh.sh {
					b.sh.sh[i] = cell{rthr: -1}
				}
				for i, w := range ws {
					w.alive, w.wait, w.wep = 0, false, 0
					w.wq, w.wgrp, w.stash = nil, nil, nil
					for l := 0; l < 32 && i*32+l < nth; l++ {
						w.alive |= 1 << l
						w.pc[l] = 0
						w.cp[l], w.groups[l] = w.cp[l][:0], w.groups[l][:0]
					}
					if b.blk == 1 {
						for r, v := range k.consts {
							for l := range w.R[r] {
								w.R[r][l] = v
							}
						}
					}
					set := func(s string, f func(l int) int) {
						if r, ok := k.special[s]; ok {
							for l := range w.R[r] {
								w.R[r][l] = uint64(uint32(f(l)))
							}
						}
					}
					if r, ok := k.regs["#dyn"]; ok {
						for l := range w.R[r] {
							w.R[r][l] = uint64(dynoff)
						}
					}
					t := func(l int) int { return i*32 + l }
					set("%tid.x", func(l int) int { return t(l) % block[0] })
					set("%tid.y", func(l int) int { return t(l) / block[0] % block[1] })
					set("%tid.z", func(l int) int { return t(l) / block[0] / block[1] })
					set("%laneid", func(l int) int { return l })
					for j, c := range []string{"x", "y", "z"} {
						set("%ntid."+c, func(int) int { return block[j] })
						set("%nctaid."+c, func(int) int { return grid[j] })
						set("%ctaid."+c, func(int) int { return [3]int{x, y, z}[j] })
					}
				}
				for {
					live, waiting := 0, 0
					for i := range ws {
						w := ws[i]
						if d.LastFirst {
							w = ws[len(ws)-1-i]
						}
						if w.alive != 0 && !w.wait {
							w.step()
						}
						if w.alive != 0 {
							live++
							if w.wait {
								waiting++
							}
						}
					}
					if live == 0 {
						break
					}
					if waiting == live {
						for _, w := range ws {
							w.wait = false
						}
						b.epoch++
					}
				}
			}
		}
	}
}

// element (row, k) of a K-major bf16 operand tile behind a wgmma shared-memory descriptor
func (w *Warp) wgel(desc uint64, row, k, lane int) float32 {
	a := (desc & 0x3fff) << 4
	sbo := (desc >> 32 & 0x3fff) << 4
	mode := desc >> 62
	off := a + uint64(row/8)*sbo
	switch mode {
	case 1:
		off += uint64(row%8)*128 + uint64(k)*2
		off ^= (off >> 7 & 7) << 4
	case 2:
		off += uint64(row%8)*64 + uint64(k)*2
		off ^= (off >> 7 & 3) << 4
	case 3:
		off += uint64(row%8)*32 + uint64(k)*2
		off ^= (off >> 7 & 1) << 4
	default:
		lbo := (desc >> 16 & 0x3fff) << 4
		off += uint64(k/8)*lbo + uint64(row%8)*16 + uint64(k%8)*2
	}
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(w.mem(off, 2, true, false, lane))) << 16)
}
func (w *Warp) wgwait(n int) {
	if len(w.wgrp) <= n {
		return
	}
	upto := w.wgrp[len(w.wgrp)-n-1]
	for _, q := range w.wq[:upto] {
		N := q.n
		var A [16][16]float32
		B := make([][16]float32, N)
		for r := range A {
			for k := range A[r] {
				A[r][k] = w.wgel(q.da, (w.id&3)*16+r, k, r)
			}
		}
		for c := range B {
			for k := range B[c] {
				B[c][k] = w.wgel(q.db, c, k, c&31)
			}
		}
		for i, r := range q.dr {
			d := w.stash[r]
			for l := range d {
				row, col := l>>2+(i>>1&1)*8, (i>>2)*8+(l&3)*2+i&1
				s := f32(d[l])
				for k := 0; k < 16; k++ {
					s += A[row][k] * B[col][k]
				}
				d[l] = b32(s)
			}
			w.stash[r] = d
		}
	}
	w.wq = w.wq[upto:]
	w.wgrp = w.wgrp[len(w.wgrp)-n:]
	for i := range w.wgrp {
		w.wgrp[i] -= upto
	}
	if len(w.wq) == 0 {
		for r, d := range w.stash {
			w.R[r] = d
		}
		clear(w.stash)
	}
	w.wep++
}

// Mem is the memory from address a on.
func (d *Device) Mem(a uint64) []byte { return d.bufs[a>>36-1].b[a&(1<<36-1):] }
