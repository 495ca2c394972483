package cpu

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/x448/float16"
)

// A weight is a frozen matrix in panels. Panel p has the outputs 32p … 32p+31 as lanes, and a line of
// them for every input k, ascending; lanes and lines that the matrix lacks are zero. Lines are counted
// in blocks of 32, so that a block of 32 lines can be transposed whole (see linearGradTask).
type weight struct {
	rows, cols int // outputs, inputs
	bf16       bool
	pairs      bool          // of bf16 inputs, which take two lines' room: see linePair
	blocks     kernels.DType // if not F32: the type of its blocks
	rounds     bool          // x to blocks too
	line       int           // bytes of an input
	mem        block
	freed      bool // or never had its memory
}

// Size is the bytes of the panels.
func (w *weight) Size() int { return w.panels() * w.panelSize() }

func (w *weight) panels() int    { return ceilDiv(w.rows, lanes) }
func (w *weight) panelSize() int { return ceilDiv(w.cols, lanes) * lanes * w.line }

// at is the line of input k in panel p.
func (w *weight) at(p, k int) unsafe.Pointer {
	return unsafe.Add(w.mem.at, p*w.panelSize()+k*w.line)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// evenly is the height of blocks that n rows are cut into, about equal, whole tiles but for the last,
// and no higher than most.
func evenly(n, most int) int {
	most = max(most/tileRows, 1) * tileRows
	if n <= most {
		return n
	}
	return min(ceilDiv(ceilDiv(n, ceilDiv(n, most)), tileRows)*tileRows, most)
}

// newWeight is a weight of a format, without memory yet.
func newWeight(f kernels.Format, rows, cols int) *weight {
	w := &weight{rows: rows, cols: cols, line: lineF32}
	switch {
	case f.Type.Blocks():
		w.blocks, w.rounds, w.line = f.Type, f.Acts == kernels.I8, f.Type.Bytes(lanes)
	case f.Acts == kernels.BF16:
		w.pairs, w.line = true, linePair/2
	case f.Type == kernels.BF16:
		w.bf16, w.line = true, lineBF16
	}
	return w
}

// Load packs a frozen weight. Weights of type F16 are kept as f32.
func (d *Device) Load(f kernels.Format, rows, cols int, src ...[]byte) kernels.Weight {
	if !d.Holds(f) {
		d.fail(fmt.Errorf("cpu: there is no product with weights of %v", f))
		return kernels.Weight{Buf: &weight{freed: true}, Rows: rows, Cols: cols, Format: f}
	}
	w := newWeight(f, rows, cols)
	table := rowsOf(f.Type, rows, cols, src)
	var err error
	if w.mem, err = d.slabs.allocate(w.Size()); err != nil {
		d.fail(fmt.Errorf("cpu: no memory for a weight of %d x %d: %w", rows, cols, err))
		*w = weight{freed: true}
	} else {
		d.share(w.panels(), 1, &packing{w: w, rows: table, typ: f.Type})
	}
	return kernels.Weight{Buf: w, Rows: rows, Cols: cols, Format: f}
}

// Holds reports whether Load takes weights of f.
func (d *Device) Holds(f kernels.Format) bool {
	switch f.Type {
	case kernels.F32, kernels.F16:
		return f.Acts == kernels.F32
	case kernels.BF16:
		return f.Acts == kernels.F32 || f.Acts == kernels.BF16
	}
	return f.Type.Blocks() && (f.Acts == kernels.F32 || f.Acts == kernels.I8)
}

// rowsOf cuts the parts of src into rows.
func rowsOf(t kernels.DType, rows, cols int, src [][]byte) [][]byte {
	if t.Blocks() && cols%kernels.BlockLen != 0 {
		panic(fmt.Sprintf("cpu: Load: %d columns are not whole blocks of %s", cols, t))
	}
	n := t.Bytes(cols)
	table := make([][]byte, 0, max(rows, 0))
	for i, part := range src {
		if rows < 0 || cols <= 0 || len(part)%n != 0 {
			panic(fmt.Sprintf("cpu: Load: part %d has %d bytes, not whole rows of a %s weight of %d x %d", i, len(part), t, rows, cols))
		}
		for ; len(part) > 0; part = part[n:] {
			table = append(table, part[:n])
		}
	}
	if len(table) != rows {
		panic(fmt.Sprintf("cpu: Load: %d parts hold %d rows of a %s weight of %d x %d", len(src), len(table), t, rows, cols))
	}
	return table
}

// Unload gives back the memory of w.
func (d *Device) Unload(w kernels.Weight) {
	if w.Zero() {
		return
	}
	b := weightOf("Unload", w)
	b.mem.release()
	*b = weight{freed: true}
}

func weightOf(op string, w kernels.Weight) *weight {
	b, ok := w.Buf.(*weight)
	if !ok {
		panic(fmt.Sprintf("cpu: %s: a weight of another device (%T)", op, w.Buf))
	}
	if b.freed {
		panic(fmt.Sprintf("cpu: %s: a weight of %d x %d that has no memory (unloaded, or its Load failed)", op, w.Rows, w.Cols))
	}
	return b
}

// A packing is the spanTask of Load: panels lo … hi-1 of w from its rows.
type packing struct {
	w    *weight
	rows [][]byte
	typ  kernels.DType
}

func (p *packing) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		rows := p.rows[i*lanes : min((i+1)*lanes, len(p.rows))]
		for k := 0; k < p.w.cols; k += lanes { // a block at a time, which stays in the nearest cache
			n := min(lanes, p.w.cols-k)
			for l, row := range rows {
				switch {
				case p.w.blocks != kernels.F32:
					size := p.typ.Bytes(lanes)
					packBlock(p.typ, p.w.at(i, k), l, row[k/lanes*size:][:size])
				case p.w.pairs:
					packPairs((*[lanes * lanes]uint16)(p.w.at(i, k)), l, row[2*k:2*(k+n)])
				case p.typ == kernels.BF16:
					packBF16((*[lanes * lanes]uint16)(p.w.at(i, k)), l, row[2*k:2*(k+n)])
				case p.typ == kernels.F16:
					packF16((*[lanes * lanes]float32)(p.w.at(i, k)), l, row[2*k:2*(k+n)])
				default:
					packF32((*[lanes * lanes]uint32)(p.w.at(i, k)), l, row[4*k:4*(k+n)])
				}
			}
		}
	}
}

func packF32(block *[lanes * lanes]uint32, lane int, row []byte) {
	for ; len(row) >= 4; row = row[4:] {
		block[lane] = binary.LittleEndian.Uint32(row)
		lane += lanes
	}
}

func packF16(block *[lanes * lanes]float32, lane int, row []byte) {
	for ; len(row) >= 2; row = row[2:] {
		block[lane] = float16.Frombits(binary.LittleEndian.Uint16(row)).Float32()
		lane += lanes
	}
}

// packBF16 puts lanes j and j+16 into the same four bytes: a shift or a mask then widens 16 lanes.
func packBF16(block *[lanes * lanes]uint16, lane int, row []byte) {
	at := lane%16*2 + lane/16
	for ; len(row) >= 2; row = row[2:] {
		block[at] = binary.LittleEndian.Uint16(row)
		at += lanes
	}
}
