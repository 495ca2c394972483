package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// storage chooses the format matrices are loaded in and gives their bytes in it: the type asked for, else as
// stored where the device has that type, else float32, which holds every type exactly.
func storage(be kernels.Backend, ts []weights.Tensor, o Options) (kernels.Format, [][]byte, error) {
	want := ts[0].Type
	for _, t := range ts {
		if t.Type != want {
			want = weights.F32
		}
	}
	if o.Convert && !(o.DType == weights.Q4_0 && want == weights.Q4_1) { // of four bits too, and better as it is
		want = o.DType
	}
	f := kernels.Format{Type: held(want), Acts: o.Acts}
	if !o.Convert && !be.Holds(kernels.Format{Type: f.Type}) {
		f.Type = kernels.F32
	}
	if f.Type == kernels.F32 {
		want = weights.F32
	}
	name, cols := ts[0].Name, ts[0].Cols()
	switch {
	case f.Acts == kernels.BF16 && f.Type != kernels.BF16:
		return f, nil, fmt.Errorf("tensor %s is %v: activations are rounded to bf16 only where the matrices are bf16 (convert them)", name, ts[0].Type)
	case f.Acts == kernels.I8 && !f.Type.Blocks():
		return f, nil, fmt.Errorf("tensor %s is %v: activations are rounded to int8 only where the matrices are int8 or int4 (convert them)", name, ts[0].Type)
	case !be.Holds(f):
		return f, nil, fmt.Errorf("%s has no matrices of %v: choose other types of matrices and activations, or another device", be.Name(), f)
	case cols%want.Block() != 0:
		return f, nil, fmt.Errorf("tensor %s has %d columns, not whole blocks of %d: it cannot become %v", name, cols, want.Block(), want)
	}
	parts := make([][]byte, len(ts))
	for i, t := range ts {
		switch {
		case t.Type == want:
			parts[i] = t.Data
		case want == weights.F32:
			parts[i] = floatBytes(t.Float32(nil))
		default:
			coded := weights.Encode(t.Name, want, t.Shape, t.Float32(nil))
			if ok, at := coded.Finite(); !ok {
				return f, nil, fmt.Errorf("tensor %s: element %d is too large for %v", t.Name, at, want)
			}
			parts[i] = coded.Data
		}
	}
	return f, parts, nil
}

// held is the type that a device keeps a file's type as, if it has it.
func held(t weights.DType) kernels.DType {
	switch t {
	case weights.BF16:
		return kernels.BF16
	case weights.F16:
		return kernels.F16
	case weights.Q8_0:
		return kernels.Q8_0
	case weights.Q4_0:
		return kernels.Q4_0
	case weights.Q4_1:
		return kernels.Q4_1
	}
	return kernels.F32
}

func floatBytes(v []float32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return b
}

func bytesFloats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
