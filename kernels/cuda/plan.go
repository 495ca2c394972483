package cuda

import "math"

// A plan90 says how a product is shared out: it changes no bit of it.
type plan90 struct {
	tokens int // of a tile
	each   int // segments that a block takes in a row
	blocks int
	parts  int // bytes of scratch memory in which parts of tiles meet
}

// plan90 chooses the plan whose time, as predicted, is the least. For the 16 terms that the matrix unit takes at a
// time, a block brings 4096 bytes of a weight and 32 of each token's piece from the L2 cache, at 32 a clock: longer than
// the products take. Where tiles are cut, the sums of 8 steps are written and read again besides: 32 bytes a
// token. And together the blocks bring the weight from memory, at 14 bytes a clock each. (Rates of an H100's datasheet and
// of published measurements; no GPU was at hand.) tokens are those of the tiles to choose from.
func (d *Device) plan90(rows, outputs, wide int, tokens []int) plan90 {
	tall, segments, sm := ceil(outputs, boxOutputs), ceil(ceil(wide, stepTiles), segmentSteps), d.processors
	memory := tall * segments * 4096 / (14 * sm)
	var best plan90
	least := math.MaxInt
	take := func(p plan90, time int) {
		if time = max(time, memory); time < least {
			best, least = p, time
		}
	}
	for _, n := range tokens {
		tiles, clocks := tall*ceil(rows, n), 128+n*d.pieces
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
