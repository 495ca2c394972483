package cpu

import (
	"unsafe"

	"github.com/r2-reasoner/r2/kernels"
)

// Layout changes whenever a weight's bytes do.
func (d *Device) Layout() string { return "cpu panels of 32, 1" }

// Packed is w's panels.
func (d *Device) Packed(w kernels.Weight) []byte {
	b := weightOf("Packed", w)
	return unsafe.Slice((*byte)(b.mem.at), b.Size())
}

// Map makes a weight of panels that lie in memory of somebody else's.
func (d *Device) Map(f kernels.Format, rows, cols int, packed []byte) (kernels.Weight, bool) {
	if !d.Holds(f) || f.Type.Blocks() && cols%kernels.BlockLen != 0 {
		return kernels.Weight{}, false
	}
	w := newWeight(f, rows, cols)
	if len(packed) != w.Size() {
		return kernels.Weight{}, false
	}
	w.mem = block{at: unsafe.Pointer(unsafe.SliceData(packed))}
	return kernels.Weight{Buf: w, Rows: rows, Cols: cols, Format: f}, true
}
