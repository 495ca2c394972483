package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/weights"
)

// storage chooses the type matrices are loaded as and gives their bytes in it: the one asked for (F32
// or BF16), else as stored where a device has that type, else float32, which holds every type exactly.
func storage(ts []weights.Tensor, o Options) (kernels.Format, [][]byte, error) {
	want := ts[0].Type
	for _, t := range ts {
		if t.Type != want {
			want = weights.F32
		}
	}
	if o.Convert {
		want = o.DType
	}
	dt := kernels.F32
	switch want {
	case weights.BF16:
		dt = kernels.BF16
	case weights.F16:
		dt = kernels.F16
	}
	parts := make([][]byte, len(ts))
	for i, t := range ts {
		switch {
		case t.Type == want && (dt != kernels.F32 || want == weights.F32):
			parts[i] = t.Data
		case dt == kernels.BF16:
			parts[i] = weights.Encode(t.Name, weights.BF16, t.Shape, t.Float32(nil)).Data
		default:
			parts[i] = floatBytes(t.Float32(nil))
		}
	}
	if o.Acts == kernels.BF16 && dt != kernels.BF16 {
		return kernels.Format{}, nil, fmt.Errorf("tensor %s is %v: activations are rounded to bf16 only where the matrices are bf16 (convert them)", ts[0].Name, ts[0].Type)
	}
	return kernels.Format{Type: dt, Acts: o.Acts}, parts, nil
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
