package cuda

import (
	"fmt"
	"strconv"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// What linear90.cu has: boxes of rows of tiles by a step of K, and stages of both operands' boxes.
const (
	stepTiles  = 2
	boxOutputs = 128
	ringBytes  = 220 << 10
	mostStages = 8
	stageSigns = 16 // bytes of a stage's two mbarriers
)

// linear90 is linear by the matrix units of compute capability 9.0.
func (d *Device) linear90(out, x k.Tensor, w k.Weight, bias k.Tensor) {
	packed, wide := d.pack(opLinear, x, 2), ceil(w.Cols, tileCols)
	if d.naive {
		d.op(opLinear, "linear90_v1").out(out).row(bias).ints(x.Rows, w.Rows).weight(w).address(packed).ints(wide, d.pieces).
			run(plane(ceil(w.Rows, 64), ceil(x.Rows, tileRows)), 128)
		return
	}
	tokens := tokens90(x.Rows)
	stage := stepTiles * tileBytes * (boxOutputs + tokens*d.pieces) / tileRows
	var at uint64
	if d.err == nil {
		at = d.memoryOf("Linear", ofWeight(w)).at
	}
	d.op(opLinear, names90[tokens][d.pieces]).out(out).row(bias).ints(x.Rows, w.Rows).
		tiles(tiling{at, wide, ceil(w.Rows, 32) * 4, stepTiles, boxOutputs / tileRows}).
		tiles(tiling{packed, wide * d.pieces, ceil(x.Rows, tileRows), stepTiles * d.pieces, tokens / tileRows}).
		ints(wide).shared(min(ringBytes/stage, mostStages)*(stage+stageSigns)).
		run(plane(ceil(w.Rows, boxOutputs), ceil(x.Rows, tokens)), 384)
}

// tokens90 is how many tokens a block takes, of so many: the fewest that take all, up to 128.
func tokens90(rows int) int {
	n := 8
	for n < min(rows, 128) {
		n *= 2
	}
	return n
}

// names90 are the kernels' names, by tokens and pieces.
var names90 = func() map[int]map[int]string {
	all := map[int]map[int]string{}
	for n := 8; n <= 128; n *= 2 {
		all[n] = map[int]string{}
		for _, pieces := range []int{1, 3} {
			all[n][pieces] = "linear90_" + strconv.Itoa(n) + "_" + strconv.Itoa(pieces)
		}
	}
	return all
}()

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
