//go:build (amd64 || arm64) && !purego

package cpu

import (
	"math/bits"
	"unsafe"
)

//go:generate go run ./narrowgen

// The leaves for vectors of 8 or 4 lanes: AVX2 with FMA where a processor has no AVX-512, and NEON. They give the
// bits of their twins too.

func ptr(x []float32) *float32 { return unsafe.SliceData(x) }

// everyID is the mask of a row without one: it is read again and again.
var everyID = ^uint32(0)

// mask gives the address of the bits and the bytes from 16 of them to the next.
func mask(bits []uint32) (*uint32, int) {
	if bits == nil {
		return &everyID, 0
	}
	return unsafe.SliceData(bits), 2
}

//go:noescape
func addLanes(out, a, b *float32, n int)

//go:noescape
func scaleLanes(out, x *float32, n int, a float32)

//go:noescape
func mulScaleLanes(out, x, w *float32, n int, a float32)

//go:noescape
func rotateLanes(x, y, cos, sin *float32, n int, sign float32)

//go:noescape
func expLanes(out, x *float32, n int)

//go:noescape
func maxScaledLanes(x *float32, bits *uint32, step, n int, a float32) float32

//go:noescape
func softmaxLanes(p, x *float32, n int, a, m float32) float32

//go:noescape
func sumExpLanes(x *float32, bits *uint32, step, n int, a, m float32) float32

//go:noescape
func expScaledLanes(out, x *float32, bits *uint32, step, n int, a, m, c float32)

//go:noescape
func swigluLanes(out, gate, up *float32, n int)

//go:noescape
func swigluGradLanes(dgate, dup, dy, gate, up *float32, n int)

//go:noescape
func dotLanes(x, y *float32, n int) float32

//go:noescape
func dot3Lanes(x, y, z *float32, n int) float32

//go:noescape
func normGradLanes(dx, dy, x, w *float32, n int, r, k float32)

//go:noescape
func normWeightGradLanes(dw, dy, x *float32, n int, r float32)

//go:noescape
func adamLanes(w, m, v, grad *float32, n int, c *adam)

//go:noescape
func scoreGradLanes(ds, p *float32, n int, dot, scale float32)

//go:noescape
func tileF32Lanes16(t *tile, rows int)

//go:noescape
func tileF32Lanes4(t *tile, rows int)

//go:noescape
func tileF32Lanes1(t *tile, rows int)

//go:noescape
func tileLowLanes16(t *tile, rows int)

//go:noescape
func tileLowLanes4(t *tile, rows int)

//go:noescape
func tileLowLanes1(t *tile, rows int)

//go:noescape
func tileHighLanes16(t *tile, rows int)

//go:noescape
func tileHighLanes4(t *tile, rows int)

//go:noescape
func tileHighLanes1(t *tile, rows int)

//go:noescape
func roofLanes(n int)

// The roof's rounds: how many take some milliseconds, and the operations of one.
const (
	narrowRounds = 1_000_000
	narrowFlops  = 2 * 96
)

// narrowRows is the most rows of a narrow tile.
const narrowRows = 6

// narrow computes a tile in parts of up to 6 rows and of 16, 4 or 1 lanes, each element as its twin does.
func (t *tile) narrow(rows int, bf16 bool) {
	width, n := bits.Len32(t.mask), ceilDiv(rows, narrowRows)
	part := *t
	for i := range n {
		lo, hi := rows*i/n, rows*(i+1)/n
		part.x = unsafe.Add(t.x, lo*t.row)
		for l := 0; l < width; {
			lanes := lanesOf(width - l)
			part.out = unsafe.Add(t.out, lo*t.outRow+4*l)
			if t.bias != nil {
				part.bias = unsafe.Add(t.bias, 4*l)
			}
			if bf16 {
				part.panel = unsafe.Add(t.panel, l%16*4)
				part.narrowBF16(hi-lo, lanes, l >= 16)
			} else {
				part.panel = unsafe.Add(t.panel, 4*l)
				part.narrowF32(hi-lo, lanes)
			}
			l += lanes
		}
	}
}

// lanesOf is the widest part of a tile that n lanes have room for.
func lanesOf(n int) int {
	switch {
	case n >= 16:
		return 16
	case n >= 4:
		return 4
	}
	return 1
}

func (t *tile) narrowF32(rows, lanes int) {
	switch lanes {
	case 16:
		tileF32Lanes16(t, rows)
	case 4:
		tileF32Lanes4(t, rows)
	default:
		tileF32Lanes1(t, rows)
	}
}

func (t *tile) narrowBF16(rows, lanes int, high bool) {
	switch {
	case lanes == 16 && high:
		tileHighLanes16(t, rows)
	case lanes == 16:
		tileLowLanes16(t, rows)
	case lanes == 4 && high:
		tileHighLanes4(t, rows)
	case lanes == 4:
		tileLowLanes4(t, rows)
	case high:
		tileHighLanes1(t, rows)
	default:
		tileLowLanes1(t, rows)
	}
}

func addNarrow(out, a, b []float32) {
	if a, b = a[:len(out)], b[:len(out)]; useNarrow {
		addLanes(ptr(out), ptr(a), ptr(b), len(out))
		return
	}
	addGo(out, a, b)
}

func scaleNarrow(out, x []float32, a float32) {
	if x = x[:len(out)]; useNarrow {
		scaleLanes(ptr(out), ptr(x), len(out), a)
		return
	}
	scaleGo(out, x, a)
}

func mulScaleNarrow(out, x, w []float32, a float32) {
	if x, w = x[:len(out)], w[:len(out)]; useNarrow {
		mulScaleLanes(ptr(out), ptr(x), ptr(w), len(out), a)
		return
	}
	mulScaleGo(out, x, w, a)
}

func rotateNarrow(x, y, cos, sin []float32, sign float32) {
	if y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)]; useNarrow {
		rotateLanes(ptr(x), ptr(y), ptr(cos), ptr(sin), len(x), sign)
		return
	}
	rotateGo(x, y, cos, sin, sign)
}

func expNarrow(out, x []float32) {
	if x = x[:len(out)]; useNarrow {
		expLanes(ptr(out), ptr(x), len(out))
		return
	}
	expGo(out, x)
}

func maxScaledNarrow(x []float32, bits []uint32, a float32) float32 {
	if useNarrow {
		b, step := mask(bits)
		return maxScaledLanes(ptr(x), b, step, len(x), a)
	}
	return maxScaledGo(x, bits, a)
}

func softmaxNarrow(p, x []float32, a, m float32) float32 {
	if x = x[:len(p)]; useNarrow {
		return softmaxLanes(ptr(p), ptr(x), len(p), a, m)
	}
	return softmaxGo(p, x, a, m)
}

func sumExpNarrow(x []float32, bits []uint32, a, m float32) float32 {
	if useNarrow {
		b, step := mask(bits)
		return sumExpLanes(ptr(x), b, step, len(x), a, m)
	}
	return sumExpGo(x, bits, a, m)
}

func expScaledNarrow(out, x []float32, bits []uint32, a, m, c float32) {
	if x = x[:len(out)]; useNarrow {
		b, step := mask(bits)
		expScaledLanes(ptr(out), ptr(x), b, step, len(out), a, m, c)
		return
	}
	expScaledGo(out, x, bits, a, m, c)
}

func swigluNarrow(out, gate, up []float32) {
	if gate, up = gate[:len(out)], up[:len(out)]; useNarrow {
		swigluLanes(ptr(out), ptr(gate), ptr(up), len(out))
		return
	}
	swigluGo(out, gate, up)
}

func swigluGradNarrow(dgate, dup, dy, gate, up []float32) {
	n := len(dgate)
	if dup, dy, gate, up = dup[:n], dy[:n], gate[:n], up[:n]; useNarrow {
		swigluGradLanes(ptr(dgate), ptr(dup), ptr(dy), ptr(gate), ptr(up), n)
		return
	}
	swigluGradGo(dgate, dup, dy, gate, up)
}

func dotNarrow(x, y []float32) float32 {
	if y = y[:len(x)]; useNarrow {
		return dotLanes(ptr(x), ptr(y), len(x))
	}
	return dotGo(x, y)
}

func dot3Narrow(x, y, z []float32) float32 {
	if y, z = y[:len(x)], z[:len(x)]; useNarrow {
		return dot3Lanes(ptr(x), ptr(y), ptr(z), len(x))
	}
	return dot3Go(x, y, z)
}

func normGradNarrow(dx, dy, x, w []float32, r, k float32) {
	n := len(dx)
	if dy, x, w = dy[:n], x[:n], w[:n]; useNarrow {
		normGradLanes(ptr(dx), ptr(dy), ptr(x), ptr(w), n, r, k)
		return
	}
	normGradGo(dx, dy, x, w, r, k)
}

func normWeightGradNarrow(dw, dy, x []float32, r float32) {
	if dy, x = dy[:len(dw)], x[:len(dw)]; useNarrow {
		normWeightGradLanes(ptr(dw), ptr(dy), ptr(x), len(dw), r)
		return
	}
	normWeightGradGo(dw, dy, x, r)
}

func adamStepNarrow(w, m, v, g []float32, c *adam) {
	if m, v, g = m[:len(w)], v[:len(w)], g[:len(w)]; useNarrow {
		adamLanes(ptr(w), ptr(m), ptr(v), ptr(g), len(w), c)
		return
	}
	adamGo(w, m, v, g, c)
}

func scoreGradNarrow(ds, p []float32, dot, scale float32) {
	if p = p[:len(ds)]; useNarrow {
		scoreGradLanes(ptr(ds), ptr(p), len(ds), dot, scale)
		return
	}
	scoreGradGo(ds, p, dot, scale)
}
