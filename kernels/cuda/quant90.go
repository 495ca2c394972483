package cuda

import (
	"fmt"
	"math"
	"slices"

	k "github.com/r2-reasoner/r2/kernels"
)

// A quantKind is what quant90.cu takes activations as: in pieces, or as integers; its kernels are by the tokens of a tile.
type quantKind struct {
	pieces int
	ints   bool
	tokens []int
	names  []string
}

var quantKinds = func() []quantKind {
	all := []quantKind{{pieces: 1, tokens: []int{8, 16, 32, 64, 96}}, {pieces: 3, tokens: []int{8, 16, 32, 64}}, {pieces: 1, ints: true, tokens: []int{8, 16, 32, 64, 96}}}
	for i := range all {
		q := &all[i]
		for _, n := range q.tokens {
			name := fmt.Sprintf("quant90_%d_%d", n, q.pieces)
			if q.ints {
				name = fmt.Sprintf("quant90_%d_int", n)
			}
			q.names = append(q.names, name)
		}
	}
	return all
}()

// quantKind is the kind of kernels for a weight.
func (d *Device) quantKind(w k.Weight) *quantKind {
	ints := w.Acts == k.I8
	for i := range quantKinds {
		if q := &quantKinds[i]; q.ints == ints && (ints || q.pieces == d.pieces) {
			return q
		}
	}
	panic(fmt.Sprintf("cuda: no kernels for %d pieces", d.pieces))
}

// quant90 is quantProduct by the matrix units of compute capability 9.0.
func (d *Device) quant90(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	wide := w.Cols / tileCols
	if d.naive || wide == 0 {
		packed, scales, pieces := d.packFor(x, w, 2)
		d.op(opLinear, "quant90_v1").out(out).row(bias).ints(x.Rows, w.Rows).weight(w).address(packed).address(scales).ints(wide, pieces).
			run(plane(ceil(w.Rows, 64), ceil(x.Rows, tileRows)), 128)
		return
	}
	q := d.quantKind(w)
	d.quant90By(d.quantPlan(x.Rows, w.Rows, wide, q.pieces, q.tokens), out, x, w, bias, k.Ending{})
}

// quant90By multiplies as a plan says, and does what follows.
func (d *Device) quant90By(p plan90, out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) {
	wide, high, gated, q := w.Cols/tileCols, ceil(x.Rows, tileRows), 0, d.quantKind(w)
	box := tiling{wide: wide, high: ceil(w.Rows, tileRows), halves: 1, boxWide: stepTiles, boxHigh: boxOutputs / tileRows,
		bytes: quantBytes}
	if e.Gated {
		gated, box.high, box.halves, box.boxHigh = 1, w.Rows/2/tileRows, 2, boxOutputs/2/tileRows
	}
	size := d.packedSize(x.Rows, w)
	d.space(size + p.parts) // so that what is packed is the first part of it
	packed, scales, _ := d.packFor(x, w, 2)
	of := p.tokens / tileRows
	tokens := tiling{at: packed, bytes: tileBytes, wide: wide * q.pieces, high: high, boxWide: q.pieces, boxHigh: of}
	stage := stepTiles * (boxOutputs/tileRows*quantBytes + of*q.pieces*tileBytes)
	var by tiling
	if q.ints {
		by = tiling{at: scales, bytes: tokenBytes, wide: wide, high: high, boxWide: stepTiles, boxHigh: of}
		stage += ceil(stepTiles*of*tokenBytes, tileBytes) * tileBytes
	}
	if d.err == nil {
		box.at = d.memoryOf("Linear", ofWeight(w)).at
	}
	d.op(opLinear, q.names[slices.Index(q.tokens, p.tokens)]).out(out).row(bias).ints(x.Rows, w.Rows).in(e.Plus).ints(gated).
		tiles(box).tiles(tokens).tiles(by).ints(wide, p.each).address(packed+uint64(size)).address(d.meetings).expands(e.Expands).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)+groupWords+8*expandWords*mostExpands).
		run(line(p.blocks), 384)
}

// quantFused is Fused with a weight in blocks.
func (d *Device) quantFused(out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) bool {
	q := d.quantKind(w)
	tokens := q.tokens
	if len(e.Expands) > 0 {
		if x.Rows > fewTokens {
			return false
		}
		tokens = tokens[:slices.Index(tokens, fewTokens)+1]
	}
	d.quant90By(d.quantPlan(x.Rows, w.Rows, w.Cols/tileCols, q.pieces, tokens), out, x, w, bias, e)
	return true
}

// quantPlan chooses the plan whose time, as predicted, is the least, as plan90 does: for 16 terms a block brings 2176 bytes of
// the weight and 32 of each token's piece, and its schedulers turn the weight's bytes into numbers and add each token's sums,
// which takes about as long as the products of the other warpgroup.
func (d *Device) quantPlan(rows, outputs, wide, pieces int, tokens []int) plan90 {
	tall, segments, sm := ceil(outputs, boxOutputs), ceil(wide, quantSegment), d.processors
	memory := tall * segments * 2176 / (14 * sm)
	var best plan90
	least := math.MaxInt
	take := func(p plan90, time int) {
		if time = max(time, memory); time < least {
			best, least = p, time
		}
	}
	for _, n := range tokens {
		tiles, clocks := tall*ceil(rows, n), 72+n*(pieces+1)
		take(plan90{n, segments, min(tiles, sm), 0}, ceil(tiles, sm)*segments*clocks)
		each, parts := ceil(tiles*segments, sm), 4*boxOutputs*n*tiles*segments
		if tiles <= mostMeetings && parts <= mostParts {
			take(plan90{n, each, ceil(tiles*segments, each), parts}, each*(clocks+n))
		}
		if n >= rows {
			break
		}
	}
	return best
}
