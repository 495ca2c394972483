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
	if steps := ceil(w.Rows, tileCols); d.naive || steps == 0 {
		packed := d.pack(opLinearGrad, dout, 2)
		d.op(opLinearGrad, "gradient90_v1").out(dx).ints(dx.Rows, dx.Cols, steps).weight(w).address(packed).ints(d.pieces).
			run(plane(ceil(dx.Cols, 64), ceil(dx.Rows, tileRows)), 128)
		return
	}
	d.gradient90By(d.gradPlan(dx.Rows, dx.Cols), dx, dout, w)
}

// A gradPlan says how a product is shared out: it changes no bit of it.
type gradPlan struct {
	tokens int // of a tile
	blocks int // or clusters
	of     sharing
}

func (d *Device) gradient90By(p gradPlan, dx, dout k.Tensor, w k.Weight) {
	steps, packed := ceil(w.Rows, tileCols), d.pack(opLinearGrad, dout, 2)
	box := tiling{bytes: tileBytes, wide: ceil(dx.Cols, tileCols), high: gradDeep * steps, boxWide: gradAcross, boxHigh: gradDeep / p.of.high}
	if d.err == nil {
		box.at = d.memoryOf("LinearGrad", ofWeight(w)).at
	}
	stage := tileBytes * (gradAcross*gradDeep + p.tokens/tileRows*d.pieces)
	d.op(opLinearGrad, gradNames[p.tokens][d.pieces]).out(dx).ints(dx.Rows, dx.Cols, steps).
		tiles(box).tiles(tiling{bytes: tileBytes, at: packed, wide: steps * d.pieces, high: ceil(dx.Rows, tileRows),
		boxWide: d.pieces, boxHigh: p.tokens / tileRows / p.of.wide}).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)).together(p.of).run(plane(p.blocks*p.of.wide, p.of.high), threads90)
}

// gradShares are the clusters that are chosen from.
var gradShares = [...]sharing{alone, {2, 1}, {1, 2}, {2, 2}}

// gradPlan chooses the plan whose time, as predicted, is the least: a step's products take 4 clocks for each of a tile's tokens' pieces; it
// brings 16 KB of the weight and 64 bytes of each of those, less where blocks share them.
func (d *Device) gradPlan(rows, cols int) (best gradPlan) {
	least := 0
	for _, n := range gradTokens {
		for _, of := range gradShares {
			room := d.clusters[of.blocks()]
			if room == 0 || n/tileRows%of.wide != 0 {
				continue
			}
			tiles := ceil(cols, gradColumns*of.wide) * ceil(rows, n*of.high)
			clocks := max(4*n*d.pieces, (gradAcross*gradDeep*tileBytes/of.high+64*n*d.pieces/of.wide)/cacheClock)
			time := ceil(tiles, room) * clocks * (32 + of.blocks()) / 32 // for waiting for each other: a guess
			if least == 0 || time < least {
				best, least = gradPlan{n, min(tiles, room), of}, time
			}
		}
		if n >= rows {
			break
		}
	}
	return best
}
