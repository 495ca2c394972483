package main

import "math"

// A leaf is a function of slices of one length. Its arguments in memory: a pointer a stream, then the
// pointer to the mask's bits and a step that is 0 where every id is allowed, the length, and the scalars,
// or a pointer to float32 coefficients.
type leaf struct {
	name    string
	streams []string
	masked  bool
	scalars []string
	coeffs  int    // float32 behind the pointer c
	fold    string // "add" or "max" of the 64 partial results, where there is a result
	body    func(b *body)
}

// leaves are described as their twins of vec.go, exp.go and adamw.go compute them.
func leaves() []leaf {
	return []leaf{
		{name: "addLanes", streams: []string{"out", "a", "b"}, body: func(b *body) {
			b.store("out", b.add(b.load("a"), b.load("b")))
		}},
		{name: "scaleLanes", streams: []string{"out", "x"}, scalars: []string{"a"}, body: func(b *body) {
			b.store("out", b.mul(b.load("x"), b.arg("a")))
		}},
		{name: "mulScaleLanes", streams: []string{"out", "x", "w"}, scalars: []string{"a"}, body: func(b *body) {
			b.store("out", b.mul(b.mul(b.load("x"), b.arg("a")), b.load("w")))
		}},
		{name: "rotateLanes", streams: []string{"x", "y", "cos", "sin"}, scalars: []string{"sign"}, body: rotate},
		{name: "expLanes", streams: []string{"out", "x"}, body: func(b *body) { b.store("out", b.exp(b.load("x"))) }},
		{name: "maxScaledLanes", streams: []string{"x"}, masked: true, scalars: []string{"a"}, fold: "max", body: func(b *body) {
			x := b.choose(b.allow(), b.mul(b.load("x"), b.arg("a")), b.number(math.Inf(-1)))
			b.setPart(b.larger(x, b.part())) // a NaN is skipped
		}},
		{name: "softmaxLanes", streams: []string{"p", "x"}, scalars: []string{"a", "m"}, fold: "add", body: func(b *body) {
			e := b.exp(b.fma(b.load("x"), b.arg("a"), b.neg(b.arg("m"))))
			b.store("p", e)
			b.setPart(b.add(b.part(), e))
		}},
		{name: "sumExpLanes", streams: []string{"x"}, masked: true, scalars: []string{"a", "m"}, fold: "add", body: func(b *body) {
			e := b.exp(b.fma(b.load("x"), b.arg("a"), b.neg(b.arg("m"))))
			b.setPart(b.add(b.part(), b.keep(b.allow(), e)))
		}},
		{name: "expScaledLanes", streams: []string{"out", "x"}, masked: true, scalars: []string{"a", "m", "c"}, body: func(b *body) {
			e := b.exp(b.fma(b.load("x"), b.arg("a"), b.neg(b.arg("m"))))
			b.store("out", b.keep(b.allow(), b.mul(e, b.arg("c"))))
		}},
		{name: "swigluLanes", streams: []string{"out", "gate", "up"}, body: func(b *body) {
			g := b.load("gate")
			b.store("out", b.mul(b.div(g, b.add(b.exp(b.neg(g)), b.number(1))), b.load("up")))
		}},
		{name: "swigluGradLanes", streams: []string{"dgate", "dup", "dy", "gate", "up"}, body: swigluGrad},
		{name: "dotLanes", streams: []string{"x", "y"}, fold: "add", body: func(b *body) {
			b.setPart(b.fma(b.load("y"), b.load("x"), b.part()))
		}},
		{name: "dot3Lanes", streams: []string{"x", "y", "z"}, fold: "add", body: func(b *body) {
			b.setPart(b.fma(b.mul(b.load("x"), b.load("y")), b.load("z"), b.part()))
		}},
		{name: "normGradLanes", streams: []string{"dx", "dy", "x", "w"}, scalars: []string{"r", "k"}, body: func(b *body) {
			d := b.mul(b.mul(b.load("dy"), b.load("w")), b.arg("r"))
			b.store("dx", b.add(b.load("dx"), b.fnma(b.load("x"), b.arg("k"), d)))
		}},
		{name: "normWeightGradLanes", streams: []string{"dw", "dy", "x"}, scalars: []string{"r"}, body: func(b *body) {
			b.store("dw", b.fma(b.load("dy"), b.mul(b.load("x"), b.arg("r")), b.load("dw")))
		}},
		{name: "adamLanes", streams: []string{"w", "m", "v", "grad"}, coeffs: 8, body: adam},
		{name: "scoreGradLanes", streams: []string{"ds", "p"}, scalars: []string{"dot", "scale"}, body: func(b *body) {
			b.store("ds", b.mul(b.mul(b.sub(b.load("ds"), b.arg("dot")), b.load("p")), b.arg("scale")))
		}},
	}
}

func rotate(b *body) {
	x, y, cos := b.load("x"), b.load("y"), b.load("cos")
	s := b.mul(b.load("sin"), b.arg("sign"))
	b.store("x", b.fma(x, cos, b.neg(b.mul(y, s))))
	b.store("y", b.fma(y, cos, b.mul(x, s)))
}

func swigluGrad(b *body) {
	g, d, one := b.load("gate"), b.load("dy"), b.number(1)
	s := b.div(one, b.add(b.exp(b.neg(g)), one))
	b.store("dup", b.fma(d, b.mul(g, s), b.load("dup")))
	slope := b.mul(s, b.fma(b.sub(one, s), g, one))
	b.store("dgate", b.fma(b.mul(d, b.load("up")), slope, b.load("dgate")))
}

func adam(b *body) {
	scale, keep, first, beta2 := b.arg("c0"), b.arg("c1"), b.arg("c2"), b.arg("c3")
	second, root, eps, step := b.arg("c4"), b.arg("c5"), b.arg("c6"), b.arg("c7")
	d := b.mul(b.load("grad"), scale)
	m := b.load("m")
	m = b.fma(b.sub(d, m), first, m)
	b.store("m", m)
	v := b.fma(b.load("v"), beta2, b.mul(b.mul(d, second), d))
	b.store("v", v)
	den := b.add(b.div(b.sqrt(v), root), eps)
	b.store("w", b.fma(b.div(m, den), step, b.mul(b.load("w"), keep)))
}

// offsets are where a leaf's arguments lie, by name, and how many bytes they take.
func (l leaf) offsets() (at map[string]int, size int) {
	at = map[string]int{}
	put := func(name string, bytes int) {
		at[name] = size
		size += bytes
	}
	for _, s := range l.streams {
		put(s, 8)
	}
	if l.masked {
		put("bits", 8)
		put("step", 8)
	}
	put("n", 8)
	if l.coeffs > 0 {
		put("c", 8)
	}
	for _, s := range l.scalars {
		put(s, 4)
	}
	if l.fold != "" {
		size = (size + 7) &^ 7
		put("ret", 4)
	}
	return at, size
}
