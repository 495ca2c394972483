package cuda

import (
	"fmt"
	"math"
	"strconv"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// What linear90.cu has: boxes of rows of tiles by a step of K, and stages of both operands' boxes.
const (
	stepTiles    = 2
	segmentSteps = 8
	boxOutputs   = 128
	ringBytes    = 220 << 10
	mostStages   = 8
	stageSigns   = 16      // bytes of a stage's two mbarriers
	groupWords   = 8       // bytes of two warpgroups' words
	mostMeetings = 1 << 12 // tiles whose parts can meet in a launch
	mostParts    = 64 << 20
)

// tokens90 are the tokens of a tile that there are kernels for.
var tokens90 = [...]int{8, 16, 32, 64, 128, 192}

// names90 are the kernels' names, by tokens and pieces.
var names90 = func() map[int]map[int]string {
	all := map[int]map[int]string{}
	for _, n := range tokens90 {
		all[n] = map[int]string{}
		for _, pieces := range []int{1, 3} {
			all[n][pieces] = "linear90_" + strconv.Itoa(n) + "_" + strconv.Itoa(pieces)
		}
	}
	return all
}()

// linear90 is linear by the matrix units of compute capability 9.0.
func (d *Device) linear90(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	wide := ceil(w.Cols, tileCols)
	if d.naive || wide == 0 {
		packed := d.pack(opLinear, x, 2)
		d.op(opLinear, "linear90_v1").out(out).row(bias).ints(x.Rows, w.Rows).weight(w).address(packed).ints(wide, d.pieces).
			run(plane(ceil(w.Rows, 64), ceil(x.Rows, tileRows)), 128)
		return
	}
	d.linear90By(d.plan90(x.Rows, w.Rows, wide), out, x, w, bias)
}

// linear90By multiplies as a plan says.
func (d *Device) linear90By(p plan90, out, x k.Tensor, w k.Weight, bias k.Tensor) {
	wide := ceil(w.Cols, tileCols)
	tiles := ceil(x.Rows, tileRows) * wide * d.pieces * tileBytes
	d.space(tiles + p.parts) // so that pack's is the first part of it
	packed := d.pack(opLinear, x, 2)
	stage := stepTiles * tileBytes * (boxOutputs + p.tokens*d.pieces) / tileRows
	var at uint64
	if d.err == nil {
		at = d.memoryOf("Linear", ofWeight(w)).at
	}
	d.op(opLinear, names90[p.tokens][d.pieces]).out(out).row(bias).ints(x.Rows, w.Rows).
		tiles(tiling{at, wide, ceil(w.Rows, 32) * 4, stepTiles, boxOutputs / tileRows}).
		tiles(tiling{packed, wide * d.pieces, ceil(x.Rows, tileRows), stepTiles * d.pieces, p.tokens / tileRows}).
		ints(wide, p.each).address(packed+uint64(tiles)).address(d.meetings).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)+groupWords).
		run(line(p.blocks), 384)
}

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
// of published measurements; no GPU was at hand.)
func (d *Device) plan90(rows, outputs, wide int) plan90 {
	tall, segments, sm := ceil(outputs, boxOutputs), ceil(ceil(wide, stepTiles), segmentSteps), d.processors
	memory := tall * segments * 4096 / (14 * sm)
	var best plan90
	least := math.MaxInt
	take := func(p plan90, time int) {
		if time = max(time, memory); time < least {
			best, least = p, time
		}
	}
	for _, n := range tokens90 {
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

// openMeetings makes what plans need.
func (d *Device) openMeetings() (err error) {
	const bytes = mostMeetings * 2 * 4 // a count for each warpgroup
	if d.processors, err = d.gpu.Attribute(driver.Multiprocessors); err != nil {
		return err
	}
	d.processors = max(d.processors, 1)
	if d.meetings, err = d.gpu.Alloc(bytes); err != nil {
		return fmt.Errorf("no memory for %d counts%s: %w", mostMeetings, d.room(), err)
	}
	return d.gpu.Set(d.meetings, 0, bytes)
}

// A tiling says what a tensor map describes: high rows of tiles, wide each, that stand end to end, and the box of
// tiles that one copy brings.
type tiling struct {
	at         uint64
	wide, high int
	boxWide    int
	boxHigh    int
}

// mostMaps is how many tensor maps are kept.
const mostMaps = 1 << 12

// mapOf returns t's tensor map. It depends on t alone, so that one that is kept is never stale.
func (d *Device) mapOf(t tiling) (driver.TensorMap, error) {
	if m, ok := d.maps[t]; ok {
		return m, nil
	}
	const elements = tileBytes / 2
	m, err := d.gpu.Encode(driver.Tile{Type: driver.TileBF16, Address: t.at, Promote: driver.Promote256,
		Dims:    []uint64{elements, uint64(t.wide), uint64(t.high)},
		Strides: []uint64{tileBytes, uint64(t.wide) * tileBytes},
		Box:     []uint32{elements, uint32(t.boxWide), uint32(t.boxHigh)}})
	if err != nil {
		return m, fmt.Errorf("of %d × %d tiles at %#x: %w", t.high, t.wide, t.at, err)
	}
	if len(d.maps) == mostMaps {
		clear(d.maps)
	}
	d.maps[t] = m
	return m, nil
}

// tiles puts a tensor map.
func (c *call) tiles(t tiling) *call {
	c.kinds = append(c.kinds, 'M')
	var m driver.TensorMap
	if !c.skip && !c.d.dry && t.wide > 0 && t.high > 0 {
		var err error
		if m, err = c.d.mapOf(t); err != nil {
			c.d.fail(fmt.Errorf("cuda: %v: %w", c.op, err))
			c.skip = true
		}
	}
	c.args.AddMap(&m)
	return c
}

// capability asks a GPU for its compute capability, such as 90.
func capability(gpu driver.Device) (int, error) {
	major, err := gpu.Attribute(driver.CapabilityMajor)
	if err != nil {
		return 0, err
	}
	minor, err := gpu.Attribute(driver.CapabilityMinor)
	return 10*major + minor, err
}
