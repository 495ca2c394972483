// Package ref is the oracle: every operation of kernels.Backend in the plainest float64 Go. It is
// never fast and never changed for speed; all elements are float64, whatever their DType.
package ref

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/x448/float16"

	k "github.com/r2-reasoner/r2/kernels"
)

// A Device is a kernels.Backend in float64. Its zero value is ready to use.
type Device struct {
	busy sync.Mutex // held between Attach and Detach
	err  error      // the first failure since the last Read or Sync
}

var (
	_ k.Backend = (*Device)(nil)
	_ k.Scorer  = (*Device)(nil)

	_ k.KeyRounder = (*Device)(nil)
)

// New returns a device.
func New() *Device { return &Device{} }

func (d *Device) Name() string { return "ref" }

// Attach waits until no other goroutine has the device.
func (d *Device) Attach() error {
	d.busy.Lock()
	return nil
}

// Detach lets the next one have it.
func (d *Device) Detach() { d.busy.Unlock() }

type buffer []float64

// Size is the bytes that the elements occupy here, eight each.
func (b buffer) Size() int { return 8 * len(b) }

// Row returns row i of t, aliasing its memory: tests read and write full precision through it.
func Row(t k.Tensor, i int) []float64 {
	if i < 0 || i >= t.Rows {
		panic(fmt.Sprintf("ref: Row: row %d of %s", i, shape(t)))
	}
	o := t.Off + i*t.Stride
	return t.Buf.(buffer)[o : o+t.Cols : o+t.Cols]
}

// at is the integer in row i of a column of I32.
func at(t k.Tensor, i int) int { return int(Row(t, i)[0]) }

// matrix is w as a tensor.
func matrix(w k.Weight) k.Tensor {
	return k.Tensor{Buf: w.Buf, Rows: w.Rows, Cols: w.Cols, Stride: w.Cols, Type: w.Type}
}

func shape(t k.Tensor) string {
	if t.Zero() {
		return "none"
	}
	return fmt.Sprintf("%d×%d %v", t.Rows, t.Cols, t.Type)
}

// need panics with the operation and the shapes of its operands unless they fit.
func need(fit bool, op string, operands ...k.Tensor) {
	if fit {
		return
	}
	msg := "ref: " + op + ": shapes do not fit:"
	for _, t := range operands {
		msg += " [" + shape(t) + "]"
	}
	panic(msg)
}

// like reports whether all of ts are F32 of one shape.
func like(t k.Tensor, ts ...k.Tensor) bool {
	ok := t.Type == k.F32
	for _, u := range ts {
		ok = ok && u.Type == k.F32 && u.Rows == t.Rows && u.Cols == t.Cols
	}
	return ok
}

// column reports whether t is one column of n elements of a type.
func column(t k.Tensor, typ k.DType, n int) bool {
	return t.Type == typ && t.Rows == n && t.Cols == 1
}

// fail keeps the first failure.
func (d *Device) fail(op string, row int, format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("ref: %s: row %d: %s", op, row, fmt.Sprintf(format, args...))
	}
}

// index reports whether 0 ≤ i < n, and keeps a failure when it is not.
func (d *Device) index(op string, row, i, n int) bool {
	if i < 0 || i >= n {
		d.fail(op, row, "index %d is outside 0 … %d", i, n-1)
		return false
	}
	return true
}

func (d *Device) New(t k.DType, rows, cols int) k.Tensor {
	if t != k.F32 && t != k.I32 && t != k.BF16 {
		panic(fmt.Sprintf("ref: New: a tensor is f32, i32 or bf16, not %v", t))
	}
	return k.Tensor{Buf: make(buffer, rows*cols), Rows: rows, Cols: cols, Stride: cols, Type: t}
}

func (d *Device) Free(k.Tensor)   {}
func (d *Device) Unload(k.Weight) {}

// decode is the first element of src.
func decode(t k.DType, src []byte) float64 {
	switch t {
	case k.F32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(src)))
	case k.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(src)) << 16))
	case k.F16:
		return float64(float16.Frombits(binary.LittleEndian.Uint16(src)).Float32())
	}
	return float64(int32(binary.LittleEndian.Uint32(src)))
}

func (d *Device) Write(dst k.Tensor, src []byte) {
	need(len(src) == dst.Rows*dst.Cols*4, fmt.Sprintf("Write of %d bytes", len(src)), dst)
	if d.err != nil {
		return
	}
	for i := range dst.Rows {
		row := Row(dst, i)
		for j := range row {
			row[j] = decode(dst.Type, src)
			src = src[4:]
		}
	}
}

func (d *Device) Read(dst []byte, src k.Tensor) error {
	need(len(dst) == src.Rows*src.Cols*4, fmt.Sprintf("Read of %d bytes", len(dst)), src)
	if err := d.Sync(); err != nil {
		return err
	}
	for i := range src.Rows {
		for _, v := range Row(src, i) {
			bits := math.Float32bits(float32(v))
			if src.Type == k.I32 {
				bits = uint32(int32(v))
			}
			binary.LittleEndian.PutUint32(dst, bits)
			dst = dst[4:]
		}
	}
	return nil
}

func (d *Device) Sync() error {
	err := d.err
	d.err = nil
	return err
}

func (d *Device) Copy(dst, src k.Tensor) {
	need(dst.Rows == src.Rows && dst.Cols == src.Cols && (dst.Type == src.Type || roundsTo(dst, src)), "Copy", dst, src)
	if d.err != nil {
		return
	}
	for i := range dst.Rows {
		set(dst, i, src, i)
	}
}

// RoundsKeys is true.
func (d *Device) RoundsKeys() bool { return true }

// roundsTo reports whether rows of x can be put into out, rounded.
func roundsTo(out, x k.Tensor) bool { return out.Type == k.BF16 && x.Type == k.F32 }

// set sets row i of out to row j of x, rounded where out is of BF16 and x is not.
func set(out k.Tensor, i int, x k.Tensor, j int) {
	to := Row(out, i)
	copy(to, Row(x, j))
	if out.Type != x.Type {
		for c, v := range to {
			to[c] = nearestBF16(v)
		}
	}
}

func (d *Device) Fill(dst k.Tensor, v float32) {
	if d.err != nil {
		return
	}
	for i := range dst.Rows {
		row := Row(dst, i)
		for j := range row {
			row[j] = float64(v)
		}
	}
}
