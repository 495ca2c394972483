package cuda

import (
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A plan90 says how a product is shared out: it changes no bit of it.
type plan90 struct {
	tokens int // of a tile
	each   int // segments that a block, or a cluster of them, takes in a row
	blocks int // or clusters
	parts  int // bytes of scratch memory in which parts of tiles meet
}

// A clusters90 is one for clusters of blocks.
type clusters90 struct {
	plan90
	of sharing
}

// A sharing is a cluster of blocks whose tiles are wide beside each other in the outputs and high in the tokens: blocks that need
// the same tile bring a part of it each, for all.
type sharing struct{ wide, high int }

func (s sharing) blocks() int { return s.wide * s.high }

func (s sharing) cluster() driver.Dim {
	if s.blocks() == 1 {
		return driver.Dim{}
	}
	return driver.Dim{X: s.wide, Y: s.high, Z: 1}
}

// alone is a block without others; shares are those that are chosen from.
var (
	alone  = sharing{1, 1}
	shares = [...]sharing{alone, {2, 1}, {4, 1}, {2, 2}}
)

// Rates of an H100, a clock and a multiprocessor, as bench/predict has them: no GPU was at hand.
const (
	cacheClock  = 23 // bytes from the L2 cache, of tiles that several blocks share once
	memoryClock = 13 // bytes
)

// plan90 chooses the plan whose time, as predicted, is the least. For the 16 terms that the matrix unit takes in as many clocks as
// there are tokens' pieces, a block brings 4096 bytes of a weight and 32 of each token's piece from the L2 cache, less where it
// shares them. Where tiles are cut, the sums of 8 steps are written and read again besides: 32 bytes a
// token. And together the blocks bring the weight from memory. tokens are those of the tiles to choose from.
func (d *Device) plan90(rows, outputs, wide int, tokens []int) clusters90 {
	segments := ceil(ceil(wide, stepTiles), segmentSteps)
	memory := ceil(outputs, boxOutputs) * segments * 4096 / (memoryClock * d.processors)
	var best clusters90
	least := math.MaxInt
	take := func(p clusters90, time int) {
		time = max(time, memory)
		for n := p.of.blocks(); n > 1; n /= 2 {
			time += time / 32 // for waiting for each other: a guess
		}
		if time < least {
			best, least = p, time
		}
	}
	for _, n := range tokens {
		for _, of := range shares {
			room := d.clusters[of.blocks()]
			if room == 0 || n/tileRows%of.wide != 0 {
				continue
			}
			tiles := ceil(outputs, boxOutputs*of.wide) * ceil(rows, n*of.high)
			clocks := max(n*d.pieces, (4096/of.high+32*n*d.pieces/of.wide)/cacheClock)
			take(clusters90{plan90{n, segments, min(tiles, room), 0}, of}, ceil(tiles, room)*segments*clocks)
			each, parts := ceil(tiles*segments, room), 4*boxOutputs*n*tiles*of.blocks()*segments
			if tiles*of.blocks() <= mostMeetings && parts <= mostParts {
				take(clusters90{plan90{n, each, ceil(tiles*segments, each), parts}, of}, each*(clocks+32*n/cacheClock))
			}
		}
		if n >= rows {
			break
		}
	}
	return best
}

// openPlans asks how many clusters of each size there is room for.
func (d *Device) openPlans() error {
	d.clusters = [mostShare + 1]int{1: d.processors}
	kn := d.kernels[names90[tokens90[len(tokens90)-1]][1]]
	for _, of := range shares[1:] {
		if d.clusters[of.blocks()] > 0 {
			continue
		}
		if err := d.allow(kn, ringBytes); err != nil {
			return err
		}
		n, err := d.gpu.Clusters(kn.at, driver.Launch{Grid: of.cluster(), Block: driver.Dim{X: threads90, Y: 1, Z: 1}, Cluster: of.cluster(), Shared: ringBytes})
		if err != nil {
			return fmt.Errorf("clusters of %d blocks: %w", of.blocks(), err)
		}
		d.clusters[of.blocks()] = n
	}
	return nil
}
