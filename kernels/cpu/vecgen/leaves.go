package main

import "math"

var (
	infinity     = math.Inf(1)
	negativeZero = math.Copysign(0, -1)
)

func elementwise() {
	text("addAVX", 32, "out DI", "a SI", "b DX", "n CX")
	each(func(l lane) {
		l.load("SI", 0)
		l.load("DX", 1)
		p("VADDPS Z1, Z0, Z0")
		l.store(0, "DI")
	})
	ret()

	text("scaleAVX", 28, "out DI", "x SI", "n CX")
	scalar("a", 24, 31)
	each(func(l lane) {
		l.load("SI", 0)
		p("VMULPS Z31, Z0, Z0")
		l.store(0, "DI")
	})
	ret()

	text("mulScaleAVX", 36, "out DI", "x SI", "w DX", "n CX")
	scalar("a", 32, 31)
	each(func(l lane) {
		l.load("SI", 0)
		l.load("DX", 1)
		p("VMULPS Z31, Z0, Z0")
		p("VMULPS Z1, Z0, Z0")
		l.store(0, "DI")
	})
	ret()

	text("rotateAVX", 44, "x DI", "y SI", "cos DX", "sin R8", "n CX")
	scalar("sign", 40, 31)
	each(func(l lane) {
		l.load("DI", 0)
		l.load("SI", 1)
		l.load("DX", 2)
		l.load("R8", 3)
		p("VMULPS Z31, Z3, Z3")
		p("VMULPS Z3, Z1, Z4") // y·sin
		p("VMULPS Z3, Z0, Z5") // x·sin
		p("VFMSUB213PS Z4, Z2, Z0")
		p("VFMADD213PS Z5, Z2, Z1")
		l.store(0, "DI")
		l.store(1, "SI")
	})
	ret()
}

// Constants of exp live in Z16 to Z26; see exp.go for what they are.
func expConstants() {
	for i, v := range []float64{-104, 89, 1.44269504088896341, -0.693359375, 2.12194440e-4,
		1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		constant(v, 16+i)
	}
	constant(1, 27)
}

// exp replaces Z0 by its exponential, through Z4 to Z6.
func exp() {
	p("VMAXPS Z0, Z16, Z0") // a NaN is the second source and stays
	p("VMINPS Z0, Z17, Z0")
	p("VMULPS Z18, Z0, Z4")
	p("VRNDSCALEPS $8, Z4, Z4")
	p("VFMADD231PS Z19, Z4, Z0")
	p("VFMADD231PS Z20, Z4, Z0")
	p("VMOVAPS Z21, Z5")
	for i := 22; i <= 26; i++ {
		p("VFMADD213PS Z%d, Z0, Z5", i)
	}
	p("VMULPS Z0, Z0, Z6")
	p("VFMADD213PS Z0, Z6, Z5")
	p("VADDPS Z27, Z5, Z5")
	p("VSCALEFPS Z4, Z5, Z0")
}

// allow sets K1 (K2 in the last turn, within K1) to the allowed ones of 16 elements and steps to the next
// 16 bits of the mask at R9; R10 is 2, or 0 when all are allowed.
func (l lane) allow() string {
	if l.masked {
		p("KMOVW (R9), K2")
		p("KANDW K1, K2, K2")
	} else {
		p("KMOVW (R9), K2")
	}
	p("ADDQ R10, R9")
	return "K2"
}

func exponentials() {
	text("expAVX", 24, "out DI", "x SI", "n CX")
	expConstants()
	each(func(l lane) {
		l.load("SI", 0)
		exp()
		l.store(0, "DI")
	})
	ret()

	text("maxScaledAVX", 44, "x SI", "bits R9", "step R10", "n CX")
	scalar("a", 32, 31)
	constant(-infinity, 0)
	for v := 1; v < 4; v++ {
		p("VMOVAPS Z0, Z%d", v)
	}
	fold(func(l lane, v int) {
		k := l.allow()
		p("VMOVUPS.Z %s, %s, Z5", l.at("SI"), k)
		p("VMULPS Z31, Z5, Z5")
		p("VMAXPS Z%d, Z5, %s, Z%d", v, k, v) // a NaN is skipped
	})
	tree("MAX")
	returnSum(40)

	sumExp := func(name string, store bool) {
		if store {
			text(name, 36, "p DI", "x SI", "n CX")
			scalar("a", 24, 31)
			scalar("m", 28, 30)
		} else {
			text(name, 44, "x SI", "bits R9", "step R10", "n CX")
			scalar("a", 32, 31)
			scalar("m", 36, 30)
		}
		expConstants()
		for v := 10; v < 14; v++ {
			p("VPXORD Z%d, Z%d, Z%d", v, v, v)
		}
		fold(func(l lane, v int) {
			k := "K1"
			if !store {
				k = l.allow()
				p("VMOVUPS.Z %s, %s, Z0", l.at("SI"), k)
			} else {
				l.load("SI", 0)
			}
			p("VFMSUB213PS Z30, Z31, Z0")
			exp()
			if store {
				l.store(0, "DI")
			}
			if !store || l.masked {
				p("VADDPS Z0, Z%d, %s, Z%d", 10+v, k, 10+v)
			} else {
				p("VADDPS Z0, Z%d, Z%d", 10+v, 10+v)
			}
		})
		for v := range 4 {
			p("VMOVAPS Z%d, Z%d", 10+v, v)
		}
		tree("ADD")
		if store {
			returnSum(32)
		} else {
			returnSum(40)
		}
	}
	sumExp("softmaxAVX", true)
	sumExp("sumExpAVX", false)

	text("expScaledAVX", 52, "out DI", "x SI", "bits R9", "step R10", "n CX")
	scalar("a", 40, 31)
	scalar("m", 44, 30)
	scalar("c", 48, 29)
	expConstants()
	each(func(l lane) {
		k := l.allow()
		p("VMOVUPS.Z %s, %s, Z0", l.at("SI"), k)
		p("VFMSUB213PS Z30, Z31, Z0")
		exp()
		p("VMULPS.Z Z29, Z0, %s, Z0", k)
		l.store(0, "DI")
	})
	ret()

}

// gates are the leaves of SwiGLU.
func gates() {
	text("swigluAVX", 32, "out DI", "gate SI", "up DX", "n CX")
	expConstants()
	constant(negativeZero, 28)
	each(func(l lane) {
		l.load("SI", 1)
		l.load("DX", 2)
		p("VPXORD Z28, Z1, Z0")
		exp()
		p("VADDPS Z27, Z0, Z0")
		p("VDIVPS Z0, Z1, Z0")
		p("VMULPS Z2, Z0, Z0")
		l.store(0, "DI")
	})
	ret()

	text("swigluGradAVX", 48, "dgate DI", "dup SI", "dy DX", "gate R8", "up R9", "n CX")
	expConstants()
	constant(negativeZero, 28)
	each(func(l lane) {
		l.load("DX", 1)
		l.load("R8", 2)
		l.load("R9", 3)
		p("VPXORD Z28, Z2, Z0")
		exp()
		p("VADDPS Z27, Z0, Z0")
		p("VDIVPS Z0, Z27, Z0") // s = sigmoid(gate)
		p("VMULPS Z0, Z2, Z4")  // silu
		l.load("SI", 5)
		p("VFMADD231PS Z4, Z1, Z5")
		l.store(5, "SI")
		p("VSUBPS Z0, Z27, Z6")      // 1 - s
		p("VFMADD213PS Z27, Z2, Z6") // 1 + gate(1-s)
		p("VMULPS Z0, Z6, Z6")
		p("VMULPS Z3, Z1, Z1")
		l.load("DI", 5)
		p("VFMADD231PS Z6, Z1, Z5")
		l.store(5, "DI")
	})
	ret()
}

// prefetch asks for the cache lines of n > 0 rows, step bytes apart, of so many bytes each.
func prefetch() {
	text("prefetchAVX", 32, "x SI", "step DX", "bytes R8", "n CX")
	label("row")
	p("XORQ BX, BX")
	label("line")
	p("PREFETCHT1 (SI)(BX*1)")
	p("ADDQ $64, BX")
	p("CMPQ BX, R8")
	p("JLT line")
	p("ADDQ DX, SI")
	p("DECQ CX")
	p("JNZ row")
	p("RET")
}

func reductions() {
	text("dotAVX", 28, "x SI", "y DX", "n CX")
	zero()
	fold(func(l lane, v int) {
		l.load("SI", 8+v)
		l.load("DX", 12+v)
		p("VFMADD231PS Z%d, Z%d, %sZ%d", 8+v, 12+v, l.mask(), v)
	})
	tree("ADD")
	returnSum(24)

	text("dot3AVX", 36, "x SI", "y DX", "z R8", "n CX")
	zero()
	fold(func(l lane, v int) {
		l.load("SI", 8+v)
		l.load("DX", 12+v)
		l.load("R8", 16+v)
		p("VMULPS Z%d, Z%d, Z%d", 12+v, 8+v, 8+v)
		p("VFMADD231PS Z%d, Z%d, %sZ%d", 16+v, 8+v, l.mask(), v)
	})
	tree("ADD")
	returnSum(32)
}

func (l lane) mask() string {
	if l.masked {
		return "K1, "
	}
	return ""
}

func training() {
	text("normGradAVX", 48, "dx DI", "dy SI", "x DX", "w R8", "n CX")
	scalar("r", 40, 31)
	scalar("k", 44, 30)
	each(func(l lane) {
		l.load("SI", 0)
		l.load("DX", 1)
		l.load("R8", 2)
		l.load("DI", 3)
		p("VMULPS Z2, Z0, Z0")
		p("VMULPS Z31, Z0, Z0")
		p("VFNMADD231PS Z30, Z1, Z0")
		p("VADDPS Z0, Z3, Z3")
		l.store(3, "DI")
	})
	ret()

	text("normWeightGradAVX", 36, "dw DI", "dy SI", "x DX", "n CX")
	scalar("r", 32, 31)
	each(func(l lane) {
		l.load("SI", 0)
		l.load("DX", 1)
		l.load("DI", 2)
		p("VMULPS Z31, Z1, Z1")
		p("VFMADD231PS Z1, Z0, Z2")
		l.store(2, "DI")
	})
	ret()

	// The coefficients are those of type adam: see adamw.go.
	text("adamAVX", 48, "w DI", "m SI", "v DX", "grad R8", "n CX", "c R9")
	for i := range 8 {
		p("VBROADCASTSS %d(R9), Z%d", i*4, 16+i)
	}
	each(func(l lane) {
		l.load("DI", 0)
		l.load("SI", 1)
		l.load("DX", 2)
		l.load("R8", 3)
		p("VMULPS Z16, Z3, Z3") // g·scale
		p("VMULPS Z17, Z0, Z0") // w·(1 - lr·decay)
		p("VSUBPS Z1, Z3, Z4")
		p("VFMADD231PS Z18, Z4, Z1") // m + (1-β₁)(g-m)
		p("VMULPS Z20, Z3, Z5")
		p("VMULPS Z3, Z5, Z5")
		p("VFMADD213PS Z5, Z19, Z2") // β₂v + (1-β₂)g²
		p("VSQRTPS Z2, Z6")
		p("VDIVPS Z21, Z6, Z6")
		p("VADDPS Z22, Z6, Z6")
		p("VDIVPS Z6, Z1, Z6")
		p("VFMADD231PS Z23, Z6, Z0")
		l.store(0, "DI")
		l.store(1, "SI")
		l.store(2, "DX")
	})
	ret()

	text("scoreGradAVX", 32, "ds DI", "p SI", "n CX")
	scalar("dot", 24, 31)
	scalar("scale", 28, 30)
	each(func(l lane) {
		l.load("DI", 0)
		l.load("SI", 1)
		p("VSUBPS Z31, Z0, Z0")
		p("VMULPS Z1, Z0, Z0")
		p("VMULPS Z30, Z0, Z0")
		l.store(0, "DI")
	})
	ret()
}
