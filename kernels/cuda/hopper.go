package cuda

import (
	"fmt"
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
	mostShare    = 4       // blocks of a cluster
	threads90    = 384
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
	d.linear90By(d.plan90(x.Rows, w.Rows, wide, tokens90[:]), out, x, w, bias, k.Ending{})
}

// linear90By multiplies as a plan says, and does what follows.
func (d *Device) linear90By(p clusters90, out, x k.Tensor, w k.Weight, bias k.Tensor, e k.Ending) {
	wide, gated := ceil(w.Cols, tileCols), 0
	box := tiling{bytes: tileBytes, wide: wide, high: ceil(w.Rows, 32) * 4, halves: 1, boxWide: stepTiles, boxHigh: boxOutputs / tileRows / p.of.high}
	if e.Gated {
		gated, box.high, box.halves, box.boxHigh = 1, w.Rows/2/tileRows, 2, boxOutputs/2/tileRows/p.of.high
	}
	tiles := ceil(x.Rows, tileRows) * wide * d.pieces * tileBytes
	d.space(tiles + p.parts) // so that pack's is the first part of it
	packed := d.pack(opLinear, x, 2)
	stage := stepTiles * tileBytes * (boxOutputs + p.tokens*d.pieces) / tileRows
	if d.err == nil {
		box.at = d.memoryOf("Linear", ofWeight(w)).at
	}
	d.op(opLinear, names90[p.tokens][d.pieces]).out(out).row(bias).ints(x.Rows, w.Rows).in(e.Plus).ints(gated).
		tiles(box).tiles(tiling{bytes: tileBytes, at: packed, wide: wide * d.pieces, high: ceil(x.Rows, tileRows),
		boxWide: stepTiles * d.pieces, boxHigh: p.tokens / tileRows / p.of.wide}).
		ints(wide, p.each).address(packed+uint64(tiles)).address(d.meetings).expands(e.Expands).
		shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)+groupWords+8*expandWords*mostExpands).
		together(p.of).run(plane(p.blocks*p.of.wide, p.of.high), threads90)
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
// tiles that one copy brings. With halves there are so many times as many, and the box has a row of each in turn.
type tiling struct {
	at         uint64
	bytes      int // of a tile
	wide, high int
	halves     int // 0: the map has three dimensions
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
	elements, apart := t.bytes/2, uint64(t.bytes)
	row := uint64(t.wide) * apart
	tile := driver.Tile{Type: driver.TileBF16, Address: t.at, Promote: driver.Promote256,
		Dims:    []uint64{uint64(elements), uint64(t.wide), uint64(t.high)},
		Strides: []uint64{apart, row},
		Box:     []uint32{uint32(elements), uint32(t.boxWide), uint32(t.boxHigh)}}
	if t.halves > 0 {
		tile.Dims = []uint64{uint64(elements), uint64(t.wide), uint64(t.halves), uint64(t.high)}
		tile.Strides = []uint64{apart, uint64(t.high) * row, row}
		tile.Box = []uint32{uint32(elements), uint32(t.boxWide), uint32(t.halves), uint32(t.boxHigh)}
	}
	m, err := d.gpu.Encode(tile)
	if err != nil {
		return m, fmt.Errorf("of %d × %d tiles of %d bytes at %#x: %w", t.high, t.wide, t.bytes, t.at, err)
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
