package cuda

import (
	"strconv"

	k "github.com/r2-reasoner/r2/kernels"
)

// What gradient90.cu has: tiles of a weight's columns by a step of its rows, a tile's columns, and stages.
const (
	gradAcross  = 8
	gradDeep    = 4
	gradColumns = gradAcross * tileCols
)

// gradTokens are the tokens of a tile that there are kernels for.
var gradTokens = [...]int{8, 64, 128}

// gradNames are the kernels' names, by tokens and pieces.
var gradNames = func() map[int]map[int]string {
	all := map[int]map[int]string{}
	for _, n := range gradTokens {
		all[n] = map[int]string{}
		for _, pieces := range []int{1, 3} {
			all[n][pieces] = "gradient90_" + strconv.Itoa(n) + "_" + strconv.Itoa(pieces)
		}
	}
	return all
}()

// gradient90 is LinearGrad by the matrix units of compute capability 9.0.
func (d *Device) gradient90(dx, dout k.Tensor, w k.Weight) {
	steps, packed := ceil(w.Rows, tileCols), d.pack(opLinearGrad, dout, 2)
	if d.naive || steps == 0 {
		d.op(opLinearGrad, "gradient90_v1").out(dx).ints(dx.Rows, dx.Cols, steps).weight(w).address(packed).ints(d.pieces).
			run(plane(ceil(dx.Cols, 64), ceil(dx.Rows, tileRows)), 128)
		return
	}
	tokens, blocks := d.gradPlan(dx.Rows, dx.Cols)
	box := tiling{bytes: tileBytes, wide: ceil(dx.Cols, tileCols), high: gradDeep * steps, boxWide: gradAcross, boxHigh: gradDeep}
	if d.err == nil {
		box.at = d.memoryOf("LinearGrad", ofWeight(w)).at
	}
	stage := tileBytes * (gradAcross*gradDeep + tokens/tileRows*d.pieces)
	d.op(opLinearGrad, gradNames[tokens][d.pieces]).out(dx).ints(dx.Rows, dx.Cols, steps).
		tiles(box).tiles(tiling{bytes: tileBytes, at: packed, wide: steps * d.pieces, high: ceil(dx.Rows, tileRows),
		boxWide: d.pieces, boxHigh: tokens / tileRows}).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)).run(line(blocks), 384)
}

// gradPlan chooses the tokens of a tile whose time, as predicted, is the least: a step brings 64 bytes for each of a tile's columns
// and of its tokens' pieces, and how many tiles the busiest block has.
func (d *Device) gradPlan(rows, cols int) (tokens, blocks int) {
	least := 0
	for _, n := range gradTokens {
		tiles := ceil(cols, gradColumns) * ceil(rows, n)
		if time := ceil(tiles, d.processors) * (gradColumns + n*d.pieces); tokens == 0 || time < least {
			tokens, blocks, least = n, min(tiles, d.processors), time
		}
		if n >= rows {
			break
		}
	}
	return tokens, blocks
}
