package ptxsim

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// mapMark is the first word of a tensor map, the second is the number of its tile.
const mapMark = 0x7074782073696d00

// paramWindow is where generic addresses of parameters begin.
const paramWindow = uint64(1) << 61

// Encode makes a tensor map: of compute capability 9.0.
func (d *Device) Encode(t driver.Tile) (m driver.TensorMap, err error) {
	if err := t.Check(); err != nil {
		return m, err
	}
	if d.capability < 90 {
		return m, refuse("cuTensorMapEncodeTiled", codeInvalid, "a simulated sm_%d has no tensor maps", d.capability)
	}
	t.Dims, t.Strides, t.Box = slices.Clone(t.Dims), slices.Clone(t.Strides), slices.Clone(t.Box)
	d.tiles = append(d.tiles, t)
	m[0], m[1] = mapMark, uint64(len(d.tiles))
	return m, nil
}

// tile is what the tensor map at a generic address describes.
func (w *warp) tile(at uint64, lane int) *driver.Tile {
	var raw []byte
	if off := at - paramWindow; at >= paramWindow && off+128 <= uint64(len(w.block.params)) {
		raw = w.block.params[off : off+128]
	} else if raw = w.reach(at, 128, global, reading, lane); raw == nil {
		return nil
	}
	n := binary.LittleEndian.Uint64(raw[8:])
	if at%64 != 0 || binary.LittleEndian.Uint64(raw) != mapMark || n < 1 || n > uint64(len(w.block.Device.tiles)) {
		w.fault(codeLaunch, lane, "there is no tensor map at %#x", at)
		return nil
	}
	return &w.block.Device.tiles[n-1]
}

// A moved tile: the box at coordinates of a tensor, and where it is in shared memory.
type moved struct {
	*driver.Tile
	at   [5]int64
	base uint64
}

// bytes is the size of a box.
func (m *moved) bytes() int {
	n := m.Type.Size()
	for _, b := range m.Box {
		n *= int(b)
	}
	return n
}

// pieces calls f for each 16 bytes of the box: where they are in shared memory, and in global memory, and how many of their
// bytes are within the tensor. It ends where f is false.
func (m *moved) pieces(f func(to, from uint64, inside int) bool) bool {
	size := m.Type.Size()
	row := int(m.Box[0]) * size
	rows := m.bytes() / row
	for r := range rows {
		from, ok, rest := m.Address, true, r
		for i := 1; i < len(m.Box); i++ {
			x := m.at[i] + int64(rest%int(m.Box[i]))
			rest /= int(m.Box[i])
			ok = ok && x >= 0 && x < int64(m.Dims[i])
			from += uint64(x) * m.Strides[i-1]
		}
		for c := 0; c < row; c += 16 {
			first := m.at[0] + int64(c/size)
			inside := 0
			if ok && first >= 0 {
				inside = int(min(max(int64(m.Dims[0])-first, 0)*int64(size), 16))
			}
			if !f(m.swizzled(m.base+uint64(r*row+c)), from+uint64(first)*uint64(size), inside) {
				return false
			}
		}
	}
	return true
}

// swizzled is where the bytes of an address stand: its 16-byte piece exchanged by the number of the 128-byte line.
func (m *moved) swizzled(at uint64) uint64 {
	return at ^ at>>7&(1<<m.Swizzle-1)<<4
}

// bulk is cp.async.bulk of tiles, and the groups of their stores.
func bulk(c *compiler) {
	c.p.k.agents = true
	switch {
	case c.has("commit_group"):
		c.count(0, 0)
		c.eachLane(func(w *warp, l int) { w.tiles[l].commit() })
		return
	case c.has("wait_group"):
		c.has("read")
		n := int(c.constant(c.op(0)))
		c.count(1, 1)
		c.eachLane(func(w *warp, l int) { w.waitStores(l, n) })
		return
	}
	c.need("tensor")
	rank := slices.Index([]string{"1d", "2d", "3d", "4d", "5d"}, c.need("1d", "2d", "3d", "4d", "5d")) + 1
	c.has("tile")
	c.need("global")
	c.need("shared::cluster", "shared::cta")
	c.accessed(shared, 16)
	c.accessed(global, 1)
	if c.has("bulk_group") {
		c.storeTile(rank)
		return
	}
	c.need("mbarrier::complete_tx::bytes")
	hint, many := c.has("L2::cache_hint"), c.has("multicast::cluster")
	a, tensor := c.address(c.op(0), shared), c.tensor(c.op(1), rank)
	bar, mask := c.address(c.op(2), shared), -1
	if c.count(3, 5); many {
		mask = c.source32(c.op(3))
	}
	if hint {
		c.source64(c.op(len(c.ops) - 1))
	}
	c.meteredTile(tensor, mask, reading)
	c.eachLane(func(w *warp, l int) {
		m, at := tensor(w, l), bar.of(w, l)
		if m == nil {
			return
		}
		m.base = a.of(w, l)
		if mask >= 0 {
			w.loadTiles(m, at, uint16(w.r32[mask][l]), l)
		} else if b := w.barrierAt(at, l, reading|strong); b != nil {
			w.loadTile(w.block, m, b, l)
		}
	})
}

// loadTiles starts a copy to the same place of each block of the cluster that a mask has, which completes on each one's
// mbarrier.
func (w *warp) loadTiles(m *moved, bar uint64, mask uint16, lane int) {
	if mask == 0 || int(mask)>>len(w.block.blocks) != 0 {
		w.fault(codeLaunch, lane, "copies a tile to blocks %#b of a cluster of %d", mask, len(w.block.blocks))
		return
	}
	for r, of := range w.block.blocks {
		if mask>>r&1 == 0 {
			continue
		}
		if !w.reachable(of, lane) {
			return
		}
		b := w.barrierOf(of, bar, lane, reading|strong)
		if b == nil {
			return
		}
		w.loadTile(of, m, b, lane)
	}
}

// meteredTile makes what counts a box that is read from global memory, or written. Register mask, where there is one, has the
// blocks that it goes to.
func (c *compiler) meteredTile(tensor func(w *warp, lane int) *moved, mask int, how access) {
	c.in.meter = func(t *tally, w *warp, lanes uint32) {
		for m := lanes; m != 0; m &= m - 1 {
			l := bits.TrailingZeros32(m) & 31
			box := tensor(w, l)
			if box == nil {
				continue
			}
			t.tile(w, box, how)
			if mask >= 0 {
				t.Tiles.Sent += (bits.OnesCount16(uint16(w.r32[mask][l])) - 1) * box.bytes()
			}
		}
	}
}

// tensor reads operand [map, {coordinates}].
func (c *compiler) tensor(o operand, rank int) func(w *warp, lane int) *moved {
	if o.kind != 'a' || len(o.list) != 2 || o.list[1].kind != '{' || len(o.list[1].list) != rank {
		c.bad("%s is no tensor map with %d coordinates", o.name, rank)
		return nil
	}
	at := c.source64(o.list[0])
	var xs []int
	for _, x := range o.list[1].list {
		xs = append(xs, c.source32(x))
	}
	return func(w *warp, l int) *moved {
		t := w.tile(w.r64[at][l]+uint64(o.offset), l)
		if t == nil {
			return nil
		}
		if len(t.Dims) != rank {
			w.fault(codeLaunch, l, "gives %d coordinates of a tensor of %d dimensions", rank, len(t.Dims))
			return nil
		}
		m := &moved{Tile: t}
		for i, x := range xs {
			m.at[i] = int64(int32(w.r32[x][l]))
		}
		return m
	}
}

// aligned says whether a box may be where it is in shared memory.
func (w *warp) aligned(m *moved, lane int) bool {
	if m.base%128 != 0 {
		w.fault(codeMisaligned, lane, "copies a tile at %d of shared memory, which is no multiple of 128", m.base)
		return false
	}
	return true
}

// loadTile starts a copy to a block that completes on an mbarrier of it. Its bytes come later, and read as NaN until then.
func (w *warp) loadTile(of *block, m *moved, bar *mbarrier, lane int) {
	if !w.aligned(m, lane) {
		return
	}
	if w.block.survey {
		bar.copied = bar.phase + 1
		bar.bytes -= m.bytes()
		bar.turn(w.block)
		return
	}
	sh := &of.shared
	ok := m.pieces(func(to, from uint64, inside int) bool {
		if b, _ := w.locateIn(of, to, 16, shared, writing, lane); b == nil {
			return false
		}
		if !w.observeUnit(of, to, 16, writing, lane, bar.agent, uint32(bar.phase+1)) {
			return false
		}
		poison(sh.bytes[to : to+16])
		return inside == 0 || w.insideTensor(from, inside, reading, lane)
	})
	if !ok {
		return
	}
	bar.copied = bar.phase + 1
	c, phase, line := w.block.cluster, bar.phase, w.at
	c.arriving = append(c.arriving, func() {
		if bar.phase != phase {
			w.at = line
			w.fault(codeLaunch, lane, "starts a copy that arrives after its mbarrier's phase is complete: too few bytes were announced")
			return
		}
		m.pieces(func(to, from uint64, inside int) bool {
			clear(sh.bytes[to : to+16])
			if inside > 0 {
				b := w.block.buffers[from>>offsetBits-1]
				copy(sh.bytes[to:to+16], b.bytes[from&(1<<offsetBits-1):][:inside])
			}
			return true
		})
		bar.bytes -= m.bytes()
		bar.turn(w.block)
	})
	if w.block.order == OneAhead {
		c.arrive()
	}
}

// insideTensor puts down an access of bytes that a tensor map says are there.
func (w *warp) insideTensor(at uint64, n int, how access, lane int) bool {
	b, why := w.block.find(at, n)
	if b == nil {
		w.fault(codeAddress, lane, "%v by its tensor map %s", how, why)
		return false
	}
	return w.observe(b, at&(1<<offsetBits-1), n, how, lane)
}
