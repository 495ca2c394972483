package cuda

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	k "github.com/r2-reasoner/r2/kernels"
)

// A memory is a tensor's or a weight's block of device memory.
type memory struct {
	at    uint64 // 0: freed, or never had
	bytes int
}

// Size is the bytes of the block.
func (m *memory) Size() int { return m.bytes }

// memoryOf is t's block.
func (d *Device) memoryOf(op string, t k.Tensor) *memory {
	m, ok := t.Buf.(*memory)
	if !ok {
		panic(fmt.Sprintf("cuda: %s: a tensor of another device (%T)", op, t.Buf))
	}
	if m.at == 0 {
		panic(fmt.Sprintf("cuda: %s: a tensor of %s that has no memory (freed, or its New failed)", op, shape(t)))
	}
	return m
}

// at is the address of t's first element.
func (d *Device) at(op string, t k.Tensor) uint64 {
	m := d.memoryOf(op, t)
	if t.Rows > 0 && t.Cols > 0 {
		if end := t.Off + (t.Rows-1)*t.Stride + t.Cols; t.Off < 0 || 4*end > m.bytes || t.Rows > 1 && t.Stride < t.Cols {
			panic(fmt.Sprintf("cuda: %s: a view of %s, stride %d, from %d on, of a buffer of %d bytes", op, shape(t), t.Stride, t.Off, m.bytes))
		}
	}
	return m.at + 4*uint64(t.Off)
}

// allocate returns a block of zeros. Where there is no memory it has none, and that is a failure.
func (d *Device) allocate(what string, bytes int) *memory {
	m := &memory{bytes: bytes}
	if d.err != nil {
		return m
	}
	at, err := d.gpu.Alloc(max(bytes, 16))
	if err != nil {
		d.fail(fmt.Errorf("cuda: no memory for %s of %d bytes%s: %w", what, bytes, d.room(), err))
		return m
	}
	m.at = at
	d.check("clear "+what, d.gpu.Set(at, 0, max(bytes, 16)))
	return m
}

// room says what memory there is.
func (d *Device) room() string {
	free, total, err := d.gpu.MemInfo()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (%d of the device's %d bytes are free, other processes' taken off)", free, total)
}

func (d *Device) release(m *memory) {
	if m.at != 0 {
		d.send()
		d.wait()
		d.check("free memory", d.gpu.Free(m.at))
		m.at = 0
	}
}

// New returns a tensor of zeros of type F32 or I32.
func (d *Device) New(t k.DType, rows, cols int) k.Tensor {
	if t != k.F32 && t != k.I32 {
		panic(fmt.Sprintf("cuda: New: tensors are f32 or i32 here, not %s", t))
	}
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cuda: New: %d x %d", rows, cols))
	}
	if d.recording {
		d.fail(fmt.Errorf("cuda: New: memory cannot be made while a graph is recorded"))
	}
	m := d.allocate(fmt.Sprintf("a tensor of %d x %d", rows, cols), 4*rows*cols)
	return k.Tensor{Buf: m, Rows: rows, Cols: cols, Stride: cols, Type: t}
}

func (d *Device) Free(t k.Tensor) {
	if !t.Zero() && d.lost == nil { // a lost device's memory has gone
		d.release(d.memoryOf("Free", t))
	}
}

func (d *Device) Unload(w k.Weight) {
	if !w.Zero() && d.lost == nil {
		d.release(d.memoryOf("Unload", ofWeight(w)))
	}
}

// Load keeps f32 row by row, bf16 in tiles (see linear.cu), blocks of eight bits in others (quant.h), and f16 as f32, which it is a
// part of.
func (d *Device) Load(f k.Format, rows, cols int, src ...[]byte) k.Weight {
	t := f.Type
	if !d.Holds(f) {
		d.fail(fmt.Errorf("cuda: there are no weights of %v yet: only f32, bf16, f16 and q8_0, and products that round nothing, or q8_0's to int8", f))
		return k.Weight{Buf: &memory{}, Rows: rows, Cols: cols, Format: f}
	}
	if t.Blocks() && cols%k.BlockLen != 0 {
		panic(fmt.Sprintf("cuda: Load: %d columns are not whole blocks of %v", cols, t))
	}
	size, total := t.Bytes(cols), 0
	for _, part := range src {
		if size > 0 && len(part)%size != 0 {
			panic(fmt.Sprintf("cuda: Load: a part of %d bytes is not whole rows of %d %v", len(part), cols, t))
		}
		total += len(part)
	}
	if total != rows*size {
		panic(fmt.Sprintf("cuda: Load: the parts hold %d bytes, not the %d of %d rows of %d", total, rows*size, rows, cols))
	}
	bytes := 4 * rows * cols
	switch t {
	case k.BF16:
		bytes = ceil(rows, 32) * 4 * ceil(cols, tileCols) * tileBytes
	case k.Q8_0:
		bytes = quantSize(rows, cols)
	}
	w := k.Weight{Buf: d.allocate(fmt.Sprintf("a weight of %d x %d %v", rows, cols, t), bytes), Rows: rows, Cols: cols, Format: f}
	at := 0
	for _, part := range src {
		for most := max(1, loadPiece/max(size, 1)); len(part) > 0; {
			n := min(most, len(part)/size)
			d.loadRows(w, at, n, part[:n*size])
			at, part = at+n, part[n*size:]
		}
	}
	return w
}

// Holds reports whether Load takes weights of f.
func (d *Device) Holds(f k.Format) bool {
	if f.Type == k.Q8_0 {
		return f.Acts == k.F32 || f.Acts == k.I8
	}
	return (f.Type == k.F32 || f.Type == k.BF16 || f.Type == k.F16) && f.Acts == k.F32
}

// loadPiece is the most bytes of a weight that are brought to the device at a time.
const loadPiece = 32 << 20

// loadRows brings n rows to their places.
func (d *Device) loadRows(w k.Weight, first, n int, src []byte) {
	if d.err != nil {
		return
	}
	m := w.Buf.(*memory)
	switch w.Type {
	case k.BF16:
		raw := d.space(len(src))
		d.upload("Load", raw, src)
		d.op(opLoad, "pack_weight").address(m.at).address(raw).ints(first, n, w.Cols).
			run(plane(ceil(w.Cols, 256), min(n, mostBlocks)), 256)
		return
	case k.Q8_0:
		raw, wide := d.space(len(src)), w.Cols/tileCols
		d.upload("Load", raw, src)
		d.op(opLoad, "pack_quant").address(m.at).address(raw).ints(first, n, wide).run(plane(ceil(wide, 128), min(n, mostBlocks)), 128)
		return
	case k.F16:
		wide := make([]byte, 0, 2*len(src))
		for ; len(src) > 0; src = src[2:] {
			v := float16.Frombits(binary.LittleEndian.Uint16(src)).Float32()
			wide = binary.LittleEndian.AppendUint32(wide, math.Float32bits(v))
		}
		src = wide
	}
	d.upload("Load", m.at+4*uint64(first*w.Cols), src)
}

// rowsOf is a weight that lies row by row, as a tensor.
func (d *Device) rowsOf(w k.Weight) k.Tensor {
	return k.Tensor{Buf: w.Buf, Rows: w.Rows, Cols: w.Cols, Stride: w.Cols, Type: k.F32}
}

// space returns scratch memory, which holds until the next operation asks for some. It grows to what is
// asked for and is kept.
func (d *Device) space(bytes int) uint64 { return d.grow(&d.scratch, bytes) }

// grow makes m of at least so many bytes, and returns where it is.
func (d *Device) grow(m *memory, bytes int) uint64 {
	if d.err != nil || bytes <= m.bytes {
		return m.at
	}
	if d.recording && !d.dry {
		d.fail(fmt.Errorf("cuda: scratch memory of %d bytes is asked for while a graph is recorded", bytes))
		return 0
	}
	if !d.recorded { // a graph keeps the addresses it was recorded with
		d.release(m)
	}
	*m = *d.allocate("scratch", max(2*bytes, 1<<16))
	return m.at
}

func (d *Device) Copy(dst, src k.Tensor) {
	need(dst.Rows == src.Rows && dst.Cols == src.Cols && dst.Type == src.Type, "Copy", dst, src)
	rows, cols := flat(&dst, &src)
	d.op(opCopy, "copy").out(dst).in(src).ints(rows, cols).run(rowsAndColumns(rows, cols), 256)
}

func (d *Device) Fill(dst k.Tensor, v float32) {
	need(dst.Type == k.F32, "Fill", dst)
	rows, cols := flat(&dst)
	d.op(opFill, "fill").out(dst).ints(rows, cols).float(v).run(rowsAndColumns(rows, cols), 256)
}

// Room is the device's free memory and all of it, in bytes. What other processes hold is not free.
func (d *Device) Room() (free, total int64, err error) {
	if err := d.Attach(); err != nil {
		return 0, 0, err
	}
	defer d.Detach()
	f, t, err := d.gpu.MemInfo()
	return int64(f), int64(t), err
}
