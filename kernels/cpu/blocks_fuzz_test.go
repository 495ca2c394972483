package cpu_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/ref"
)

// Any bytes are blocks, and stand for what the oracle reads in them.
func FuzzLoadBlocks(f *testing.F) {
	f.Add(make([]byte, 300), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, raw []byte, kind, wide uint8) {
		typ := kernels.Q8_0 + kernels.DType(kind%3)
		cols := kernels.BlockLen * (1 + int(wide%4))
		rows := len(raw) / typ.Bytes(cols)
		if rows == 0 {
			return
		}
		raw = raw[:rows*typ.Bytes(cols)]
		d := cpu.New(1)
		defer d.Close()
		var read [2][]byte
		for i, be := range []kernels.Backend{d, ref.New()} {
			w := be.Load(kernels.Format{Type: typ}, rows, cols, raw)
			ids, out := be.New(kernels.I32, rows, 1), be.New(kernels.F32, rows, cols)
			var b []byte
			for r := range rows {
				b = binary.LittleEndian.AppendUint32(b, uint32(r))
			}
			be.Write(ids, b)
			be.Embed(out, w, ids)
			read[i] = make([]byte, 4*rows*cols)
			if err := be.Read(read[i], out); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; i < len(read[0]); i += 4 {
			a := math.Float32frombits(binary.LittleEndian.Uint32(read[0][i:]))
			b := math.Float32frombits(binary.LittleEndian.Uint32(read[1][i:]))
			if a != b && !(a != a && (b != b || math.IsInf(float64(b), 0))) { // an offset times infinity is NaN before it is added
				t.Fatalf("%v: element %d of %d x %d is %v, want %v", typ, i/4, rows, cols, a, b)
			}
		}
	})
}
