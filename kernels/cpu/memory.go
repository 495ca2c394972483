package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// A buffer holds the elements of a tensor: f, i or h, by its type.
type buffer struct {
	f     []float32
	i     []int32
	h     []uint16 // bf16
	mem   block
	freed bool // or never had its memory
}

// Size is the bytes of the buffer.
func (b *buffer) Size() int { return 4*(len(b.f)+len(b.i)) + 2*len(b.h) }

// New returns a tensor of zeros of type F32, I32 or, for keys and values, BF16.
func (d *Device) New(t kernels.DType, rows, cols int) kernels.Tensor {
	if t != kernels.F32 && t != kernels.I32 && t != kernels.BF16 {
		panic(fmt.Sprintf("cpu: New: tensors are f32, i32 or bf16 here, not %s", t))
	}
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: New: %d x %d", rows, cols))
	}
	n := rows * cols
	mem, err := d.place(t.Size() * n)
	if err != nil {
		d.fail(fmt.Errorf("cpu: no memory for a tensor of %d x %d: %w", rows, cols, err))
		return kernels.Tensor{Buf: &buffer{freed: true}, Rows: rows, Cols: cols, Stride: cols, Type: t}
	}
	b := &buffer{mem: mem}
	switch t {
	case kernels.F32:
		b.f = unsafe.Slice((*float32)(mem.at), n)
	case kernels.BF16:
		b.h = unsafe.Slice((*uint16)(mem.at), n)
	default:
		b.i = unsafe.Slice((*int32)(mem.at), n)
	}
	return kernels.Tensor{Buf: b, Rows: rows, Cols: cols, Stride: cols, Type: t}
}

// Free gives back the memory of t and of all its views.
func (d *Device) Free(t kernels.Tensor) {
	if t.Zero() {
		return
	}
	b := bufferOf("Free", t)
	b.mem.release()
	*b = buffer{freed: true}
}

// Write fills dst from the bytes of src, rows end to end.
func (d *Device) Write(dst kernels.Tensor, src []byte) {
	n := dst.Type.Size() * dst.Cols
	if len(src) != n*dst.Rows {
		panic(fmt.Sprintf("cpu: Write: %d bytes into %s %s", len(src), shape(dst), dst.Type))
	}
	if d.err != nil {
		return
	}
	for i := range dst.Rows {
		copy(rowBytes("Write", dst, i), src[i*n:(i+1)*n])
	}
}

// Read waits for the operations before it and puts src's bytes into dst, rows end to end.
func (d *Device) Read(dst []byte, src kernels.Tensor) error {
	n := src.Type.Size() * src.Cols
	if len(dst) != n*src.Rows {
		panic(fmt.Sprintf("cpu: Read: %s %s into %d bytes", shape(src), src.Type, len(dst)))
	}
	if err := d.Sync(); err != nil {
		return err
	}
	for i := range src.Rows {
		copy(dst[i*n:(i+1)*n], rowBytes("Read", src, i))
	}
	return nil
}

// Copy sets dst to src, of the same shape and type, or rounds F32 to BF16.
func (d *Device) Copy(dst, src kernels.Tensor) {
	if dst.Rows != src.Rows || dst.Cols != src.Cols || dst.Type != src.Type && !roundsTo(dst, src) {
		panic(fmt.Sprintf("cpu: Copy: %s %s to %s %s", shape(src), src.Type, shape(dst), dst.Type))
	}
	if d.err != nil {
		return
	}
	if dst.Type != src.Type {
		to, from := halves("Copy", dst), floats("Copy", src)
		for i := range dst.Rows {
			roundRow(to[i*dst.Stride:][:dst.Cols], from[i*src.Stride:])
		}
		return
	}
	for i := range dst.Rows {
		copy(rowBytes("Copy", dst, i), rowBytes("Copy", src, i))
	}
}

// Fill sets every element of dst, an F32 tensor, to v.
func (d *Device) Fill(dst kernels.Tensor, v float32) {
	d.rows.begin("Fill", dst)
	d.rows.sign = v
	d.each(dst.Rows, dst.Cols, func(t *rowTask, i, _ int) {
		row := t.v[0].row(i)
		if math.Float32bits(t.sign) == 0 {
			clear(row)
			return
		}
		for j := range row {
			row[j] = t.sign
		}
	})
}

// rowBytes is row i of t as bytes.
func rowBytes(op string, t kernels.Tensor, i int) []byte {
	if t.Cols == 0 {
		return nil
	}
	size := t.Type.Size()
	return bytesFrom(op, t)[size*i*t.Stride:][:size*t.Cols]
}

// bytesFrom is t's memory from its first element to its last.
func bytesFrom(op string, t kernels.Tensor) []byte {
	b, size := bufferOf(op, t), t.Type.Size()
	lo, hi := extent(op, t, len(b.f)+len(b.i)+len(b.h))
	p := unsafe.Pointer(unsafe.SliceData(b.f))
	switch t.Type {
	case kernels.I32:
		p = unsafe.Pointer(unsafe.SliceData(b.i))
	case kernels.BF16:
		p = unsafe.Pointer(unsafe.SliceData(b.h))
	}
	if hi == lo {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(p, size*lo)), size*(hi-lo))
}
