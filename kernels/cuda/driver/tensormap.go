package driver

import "fmt"

// A TensorMap describes a tensor in device memory to the unit that copies tiles of it (sm_90). Its words
// are for the Device that made it alone.
type TensorMap [16]uint64

// A Tile says what a TensorMap describes: a tensor of one to five dimensions, the one whose elements stand
// together first, and the box of it that one copy brings. What a box has outside the tensor reads as zeros.
type Tile struct {
	Type    ElementType
	Address uint64   // a multiple of 16
	Dims    []uint64 // elements
	Strides []uint64 // bytes from one element to the next of dimensions 1 …, multiples of 16
	Box     []uint32 // elements, at most 256 each; the first dimension's bytes are a multiple of 16
	Swizzle Swizzle
	Promote Promotion
}

// An ElementType is CUDA's CU_TENSOR_MAP_DATA_TYPE_….
type ElementType int32

const (
	TileU8   ElementType = 0
	TileI32  ElementType = 3
	TileF16  ElementType = 6
	TileF32  ElementType = 7
	TileBF16 ElementType = 9
)

// Size is the bytes of an element, 0 of a type there is not.
func (t ElementType) Size() int {
	return map[ElementType]int{TileU8: 1, TileI32: 4, TileF16: 2, TileF32: 4, TileBF16: 2}[t]
}

// A Swizzle is how the 16-byte pieces of a box's rows are exchanged in shared memory: within spans of so
// many bytes. It is CUDA's CU_TENSOR_MAP_SWIZZLE_….
type Swizzle int32

const (
	SwizzleNone Swizzle = iota
	Swizzle32
	Swizzle64
	Swizzle128
)

// A Promotion is the least that the second-level cache brings for a copy: CU_TENSOR_MAP_L2_PROMOTION_….
type Promotion int32

const (
	PromoteNone Promotion = iota
	Promote64
	Promote128
	Promote256
)

// Check says what of t breaks the rules of cuTensorMapEncodeTiled: the driver's own answer is one number.
func (t Tile) Check() error {
	size, rank := t.Type.Size(), len(t.Dims)
	switch {
	case size == 0:
		return fmt.Errorf("tensor map: there is no element type %d", t.Type)
	case rank < 1 || rank > 5 || len(t.Strides) != rank-1 || len(t.Box) != rank:
		return fmt.Errorf("tensor map: %d dimensions, %d strides and a box of %d: want one to five, one stride less, as many",
			rank, len(t.Strides), len(t.Box))
	case t.Address == 0 || t.Address%16 != 0:
		return fmt.Errorf("tensor map: the address %#x is not a multiple of 16", t.Address)
	case t.Swizzle < SwizzleNone || t.Swizzle > Swizzle128 || t.Promote < PromoteNone || t.Promote > Promote256:
		return fmt.Errorf("tensor map: there is no swizzle %d or promotion %d", t.Swizzle, t.Promote)
	}
	for i, d := range t.Dims {
		if d == 0 || d > 1<<32 || t.Box[i] == 0 || t.Box[i] > 256 {
			return fmt.Errorf("tensor map: dimension %d has %d elements and a box of %d: want 1 to 2³² and 1 to 256", i, d, t.Box[i])
		}
	}
	for i, s := range t.Strides {
		if s == 0 || s%16 != 0 || s >= 1<<40 {
			return fmt.Errorf("tensor map: the stride of dimension %d is %d bytes: want a multiple of 16 below 2⁴⁰", i+1, s)
		}
	}
	row := int(t.Box[0]) * size
	if row%16 != 0 {
		return fmt.Errorf("tensor map: a box's row of %d bytes is not a multiple of 16", row)
	}
	if t.Swizzle != SwizzleNone && row > 16<<t.Swizzle {
		return fmt.Errorf("tensor map: a box's row of %d bytes is more than the %d that are swizzled", row, 16<<t.Swizzle)
	}
	return nil
}
