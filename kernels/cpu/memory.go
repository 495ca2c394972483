package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// A buffer holds the elements of a tensor: f or i, by its type.
type buffer struct {
	f     []float32
	i     []int32
	mem   block
	freed bool // or never had its memory
}

// Size is the bytes of the buffer.
func (b *buffer) Size() int { return 4 * (len(b.f) + len(b.i)) }

// New returns a tensor of zeros of type F32 or I32.
func (d *Device) New(t kernels.DType, rows, cols int) kernels.Tensor {
	if t != kernels.F32 && t != kernels.I32 {
		panic(fmt.Sprintf("cpu: New: tensors are f32 or i32 here, not %s", t))
	}
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: New: %d x %d", rows, cols))
	}
	n := rows * cols
	mem, err := allocate(4 * n)
	if err != nil {
		d.fail(fmt.Errorf("cpu: no memory for a tensor of %d x %d: %w", rows, cols, err))
		return kernels.Tensor{Buf: &buffer{freed: true}, Rows: rows, Cols: cols, Stride: cols, Type: t}
	}
	b := &buffer{mem: mem}
	if t == kernels.F32 {
		b.f = unsafe.Slice((*float32)(mem.at), n)
	} else {
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
	if len(src) != 4*dst.Rows*dst.Cols {
		panic(fmt.Sprintf("cpu: Write: %d bytes into %s %s", len(src), shape(dst), dst.Type))
	}
	if d.err != nil {
		return
	}
	n := 4 * dst.Cols
	for i := range dst.Rows {
		copy(rowBytes("Write", dst, i), src[i*n:(i+1)*n])
	}
}

// Read waits for the operations before it and puts src's bytes into dst, rows end to end.
func (d *Device) Read(dst []byte, src kernels.Tensor) error {
	if len(dst) != 4*src.Rows*src.Cols {
		panic(fmt.Sprintf("cpu: Read: %s %s into %d bytes", shape(src), src.Type, len(dst)))
	}
	if err := d.Sync(); err != nil {
		return err
	}
	n := 4 * src.Cols
	for i := range src.Rows {
		copy(dst[i*n:(i+1)*n], rowBytes("Read", src, i))
	}
	return nil
}

// Copy sets dst to src, of the same shape and type.
func (d *Device) Copy(dst, src kernels.Tensor) {
	if dst.Rows != src.Rows || dst.Cols != src.Cols || dst.Type != src.Type {
		panic(fmt.Sprintf("cpu: Copy: %s %s to %s %s", shape(src), src.Type, shape(dst), dst.Type))
	}
	if d.err != nil {
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
	b := bufferOf(op, t)
	extent(op, t, len(b.f)+len(b.i))
	p := unsafe.Pointer(unsafe.SliceData(b.f))
	if t.Type == kernels.I32 {
		p = unsafe.Pointer(unsafe.SliceData(b.i))
	}
	return unsafe.Slice((*byte)(unsafe.Add(p, 4*(t.Off+i*t.Stride))), 4*t.Cols)
}
