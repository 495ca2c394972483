package cuda

import (
	"math"
	"strconv"

	k "github.com/r2-reasoner/r2/kernels"
)

// quantTokens are the tokens of a tile that quant90.cu has kernels for, by pieces.
var quantTokens = map[int][]int{1: {8, 16, 32, 96}, 3: {8, 16, 32, 64}}

// quantNames are the kernels' names, by pieces and tokens.
var quantNames = func() map[int]map[int]string {
	all := map[int]map[int]string{}
	for pieces, tokens := range quantTokens {
		all[pieces] = map[int]string{}
		for _, n := range tokens {
			all[pieces][n] = "quant90_" + strconv.Itoa(n) + "_" + strconv.Itoa(pieces)
		}
	}
	return all
}()

// quant90 is quantProduct by the matrix units of compute capability 9.0.
func (d *Device) quant90(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	wide := w.Cols / tileCols
	if d.naive || wide == 0 {
		packed := d.pack(opLinear, x, 2)
		d.op(opLinear, "quant90_v1").out(out).row(bias).ints(x.Rows, w.Rows).weight(w).address(packed).ints(wide, d.pieces).
			run(plane(ceil(w.Rows, 64), ceil(x.Rows, tileRows)), 128)
		return
	}
	d.quant90By(d.quantPlan(x.Rows, w.Rows, wide, quantTokens[d.pieces]), out, x, w, bias, k.Ending{})
}

// quant90By multiplies as a plan says, and does what follows.
func (d *Device) quant90By(p plan90, out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) {
	wide, gated := w.Cols/tileCols, 0
	box := tiling{wide: wide, high: ceil(w.Rows, tileRows), halves: 1, boxWide: stepTiles, boxHigh: boxOutputs / tileRows,
		bytes: quantBytes}
	if e.Gated {
		gated, box.high, box.halves, box.boxHigh = 1, w.Rows/2/tileRows, 2, boxOutputs/2/tileRows
	}
	tiles := ceil(x.Rows, tileRows) * wide * d.pieces * tileBytes
	d.space(tiles + p.parts) // so that pack's is the first part of it
	packed := d.pack(opLinear, x, 2)
	stage := stepTiles * (boxOutputs/tileRows*quantBytes + p.tokens/tileRows*d.pieces*tileBytes)
	if d.err == nil {
		box.at = d.memoryOf("Linear", ofWeight(w)).at
	}
	d.op(opLinear, quantNames[d.pieces][p.tokens]).out(out).row(bias).ints(x.Rows, w.Rows).in(e.Plus).ints(gated).
		tiles(box).tiles(tiling{at: packed, bytes: tileBytes, wide: wide * d.pieces, high: ceil(x.Rows, tileRows), boxWide: d.pieces, boxHigh: p.tokens / tileRows}).
		ints(wide, p.each).address(packed+uint64(tiles)).address(d.meetings).expands(e.Expands).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)+groupWords+8*expandWords*mostExpands).
		run(line(p.blocks), 384)
}

// quantFused is Fused with a weight in blocks.
func (d *Device) quantFused(out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) bool {
	tokens := quantTokens[d.pieces]
	if len(e.Expands) > 0 {
		if x.Rows > fewTokens {
			return false
		}
		if n := len(tokens) - 1; tokens[n] > fewTokens {
			tokens = tokens[:n]
		}
	}
	d.quant90By(d.quantPlan(x.Rows, w.Rows, w.Cols/tileCols, tokens), out, x, w, bias, e)
	return true
}

// quantPlan chooses the plan whose time, as predicted, is the least, as plan90 does: for 16 terms a block brings 2176 bytes of
// the weight and 32 of each token's piece, and its schedulers turn the weight's bytes into numbers and add each token's sums,
// which takes about as long as the products of the other warpgroup.
func (d *Device) quantPlan(rows, outputs, wide int, tokens []int) plan90 {
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
		tiles, clocks := tall*ceil(rows, n), 72+n*(d.pieces+1)
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
