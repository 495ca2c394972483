// Package weights reads and writes the files of models: safetensors (one file or sharded), GGUF,
// config.json and generation_config.json, and LoRA adapters in the layout of PEFT.
//
// Files are mapped into memory, so opening a model reads only headers and a Tensor's bytes are the
// file's own. Every length, offset, shape and count in a file is checked against the file before it
// is used: a broken or hostile file gives one error that names what is wrong. (A mapped file that
// another process truncates while it is open cannot be guarded against; files written by WriteFile
// and WriteDir are replaced, never truncated.) Whatever a file asks for that this program does not
// compute is refused by its name.
package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// A DType is the type of a tensor's stored elements. The quantised types, Q8_0 to Q6_K, are
// those of ggml: blocks of 32 elements along a row, or of 256 in the K types.
type DType uint8

const (
	F32 DType = iota
	F16
	BF16
	Q8_0
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	F64
	I64
)

// layouts holds, by DType, its name, the elements of a block and the bytes of a block.
var layouts = [...]struct {
	name        string
	block, size int
	halves      []int // where in a block there are half floats
}{
	F32:  {"F32", 1, 4, nil},
	F16:  {"F16", 1, 2, nil},
	BF16: {"BF16", 1, 2, nil},
	Q8_0: {"Q8_0", 32, 34, []int{0}},
	Q4_0: {"Q4_0", 32, 18, []int{0}},
	Q4_1: {"Q4_1", 32, 20, []int{0, 2}},
	Q5_0: {"Q5_0", 32, 22, []int{0}},
	Q5_1: {"Q5_1", 32, 24, []int{0, 2}},
	Q2_K: {"Q2_K", 256, 84, []int{80, 82}},
	Q3_K: {"Q3_K", 256, 110, []int{108}},
	Q4_K: {"Q4_K", 256, 144, []int{0, 2}},
	Q5_K: {"Q5_K", 256, 176, []int{0, 2}},
	Q6_K: {"Q6_K", 256, 210, []int{208}},
	F64:  {"F64", 1, 8, nil},
	I64:  {"I64", 1, 8, nil},
}

func (t DType) String() string {
	if int(t) >= len(layouts) {
		return fmt.Sprintf("DType(%d)", uint8(t))
	}
	return layouts[t].name
}

// Block is the number of elements stored together: 32 or 256 for the quantised types, 1 otherwise.
func (t DType) Block() int { return layouts[t].block }

// BlockSize is the number of bytes of one block.
func (t DType) BlockSize() int { return layouts[t].size }

// RowSize is the number of bytes of a row of n elements; n must be a multiple of t.Block().
func (t DType) RowSize(n int) int { return n / layouts[t].block * layouts[t].size }

// A Tensor is a named array of a file. Data holds its elements row-major and little-endian, and may
// be the mapped file itself: it is read-only, and gone when the Model or Safetensors is closed.
type Tensor struct {
	Name  string
	Type  DType
	Shape []int // slowest dimension first: outputs × inputs for a projection
	Data  []byte
}

// Rows is the product of all dimensions but the last: 1 for a vector.
func (t Tensor) Rows() int {
	n := 1
	for i := 0; i < len(t.Shape)-1; i++ {
		n *= t.Shape[i]
	}
	return n
}

// Cols is the last dimension: 1 for a scalar.
func (t Tensor) Cols() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[len(t.Shape)-1]
}

// Len is the number of elements.
func (t Tensor) Len() int { return t.Rows() * t.Cols() }

// Encode makes a tensor of type F32, F16, BF16 (rounded to nearest, ties to even), Q8_0 or Q4_0 (as ggml's
// quantize_row functions choose scales) from values. What is too large for a half, an element or a scale,
// becomes infinite: see Finite. A shape that does not hold len(v) elements or whole blocks, or another type,
// is a bug and panics.
func Encode(name string, t DType, shape []int, v []float32) Tensor {
	out := Tensor{Name: name, Type: t, Shape: slices.Clone(shape)}
	if out.Len() != len(v) || t > Q4_0 || out.Cols()%t.Block() != 0 {
		panic(fmt.Sprintf("weights: Encode %s: %d values as %v%v", name, len(v), t, shape))
	}
	out.Data = make([]byte, 0, t.RowSize(len(v)))
	if t.Block() > 1 {
		out.Data = appendBlocks(out.Data, t, v)
		return out
	}
	for _, x := range v {
		switch t {
		case F32:
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(x))
		case F16:
			out.Data = binary.LittleEndian.AppendUint16(out.Data, float16Bits(x))
		case BF16:
			out.Data = binary.LittleEndian.AppendUint16(out.Data, bfloat16Bits(x))
		}
	}
	return out
}

// size returns the bytes that shape takes in type t; ok is false when it overflows an int, has a
// negative dimension, or its last dimension is not whole blocks.
func size(t DType, shape []int) (n int, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/16/d {
			return 0, false
		}
		n *= d
	}
	if b := t.Block(); b > 1 && (len(shape) == 0 || shape[len(shape)-1]%b != 0) {
		return 0, false
	}
	return t.RowSize(n), true
}
