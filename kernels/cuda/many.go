package cuda

import (
	"encoding/binary"
	"math"

	k "github.com/r2-reasoner/r2/kernels"
)

// What many.cu has: the elements of a block of AdamW, and the bytes of an entry of its list.
const (
	adamPiece  = 1024
	entryBytes = 48
)

func (d *Device) AdamWAll(ps []k.Param, o k.Adam) {
	d.list = d.list[:0]
	pieces := 0
	for _, p := range ps {
		need(like(p.W, p.M, p.V, p.G) && dense(p.W, p.M, p.V, p.G) && o.Step >= 1, "AdamWAll", p.W, p.M, p.V, p.G)
		pieces = d.entry(opAdamW, pieces, adamPiece, p.Decay, p.W, p.M, p.V, p.G)
	}
	all := d.sendList(0)
	d.op(opAdamW, "adamw_many").address(all).ints(len(ps)).adam(o).run(line(pieces), 256)
}

func (d *Device) SumSquaresAll(out k.Tensor, xs []k.Tensor) {
	need(like(out) && out.Rows == 1 && out.Cols == len(xs), "SumSquaresAll", out)
	d.list = d.list[:0]
	pieces := 0
	for _, x := range xs {
		need(like(x) && dense(x), "SumSquaresAll", x)
		pieces = d.entry(opSumSquares, pieces, squaresPiece, 0, x)
	}
	d.entry(opSumSquares, pieces, squaresPiece, 0)
	all := d.sendList(4 * pieces)
	parts := all + uint64(len(d.list))
	d.op(opSumSquares, "squares_many").address(parts).address(all).ints(len(xs)).run(line(pieces), 256)
	d.op(opSumSquares, "squares_many_join").row(out).address(parts).address(all).run(line(len(xs)), 256)
}

// entry adds tensors of one shape to the list, of which the first piece has a number, and returns that of the next.
func (d *Device) entry(op opcode, first, piece int, decay float32, ts ...k.Tensor) int {
	count := 0
	for i := range 4 {
		at := uint64(0)
		if i < len(ts) && d.err == nil {
			at = d.at(op.String(), ts[i])
			count = ts[i].Rows * ts[i].Cols
		}
		d.list = binary.LittleEndian.AppendUint64(d.list, at)
	}
	d.list = binary.LittleEndian.AppendUint64(d.list, uint64(count))
	d.list = binary.LittleEndian.AppendUint32(d.list, uint32(first))
	d.list = binary.LittleEndian.AppendUint32(d.list, math.Float32bits(decay))
	return first + ceil(count, piece)
}

// sendList takes the list to scratch memory, with so many bytes after it, and says where it is.
func (d *Device) sendList(after int) uint64 {
	at := d.space(len(d.list) + after)
	d.upload("a list of tensors", at, d.list)
	return at
}

// dense reports whether rows lie end to end.
func dense(ts ...k.Tensor) bool {
	for _, t := range ts {
		if t.Rows > 1 && t.Stride != t.Cols {
			return false
		}
	}
	return true
}
