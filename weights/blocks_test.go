package weights

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// A vector is what ggml's Python package gguf makes of values and of blocks (testdata/blocks.py).
type vector struct {
	Values []uint32
	Blocks string
	Bits   []uint32
}

func vectors(t *testing.T) map[string]vector {
	t.Helper()
	file, err := os.ReadFile("testdata/blocks.json")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]vector
	if err := json.Unmarshal(file, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vector) data(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Blocks)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Blocks are decoded as ggml's package does, to the bit.
func TestBlocksAreGGMLs(t *testing.T) {
	all := vectors(t)
	for _, kind := range []uint32{2, 3, 8, 10, 11, 12, 13, 14} {
		typ := ggmlTypes[kind]
		v := all[typ.String()]
		x := Tensor{Type: typ, Shape: []int{len(v.Bits)}, Data: v.data(t)}
		if len(v.Bits) == 0 || len(x.Data) != typ.RowSize(len(v.Bits)) {
			t.Fatalf("%v: %d values in %d bytes", typ, len(v.Bits), len(x.Data))
		}
		for i, g := range x.Float32(nil) {
			if math.Float32bits(g) != v.Bits[i] {
				t.Fatalf("%v: element %d is %g, want %g", typ, i, g, math.Float32frombits(v.Bits[i]))
			}
		}
	}
}

// Encode chooses the scales and integers that ggml's package does.
func TestEncodeBlocksAsGGML(t *testing.T) {
	for name, v := range vectors(t) {
		var values []float32
		for _, b := range v.Values {
			values = append(values, math.Float32frombits(b))
		}
		for _, typ := range []DType{Q8_0, Q4_0} {
			if typ.String() != name {
				continue
			}
			got := Encode("x", typ, []int{2, 64}, values)
			if !slices.Equal(got.Data, v.data(t)) {
				t.Errorf("%v:\n%x, want\n%x", typ, got.Data, v.data(t))
			}
		}
	}
}

// Any bytes are blocks: they decode to as many elements as they should, which are finite where Finite says so, and
// where it does not the element it names is in a block that is not.
func FuzzBlocks(f *testing.F) {
	f.Add(make([]byte, 256), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, kind uint8) {
		typ := Q8_0 + DType(kind)%(Q6_K-Q8_0+1)
		n := len(raw) / typ.BlockSize()
		x := Tensor{Type: typ, Shape: []int{n * typ.Block()}, Data: raw[:n*typ.BlockSize()]}
		ok, at := x.Finite()
		v := x.Float32(nil)
		if len(v) != x.Len() {
			t.Fatalf("%v: %d elements in %d blocks", typ, len(v), n)
		}
		odd := func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }
		if i := slices.IndexFunc(v, odd); i >= 0 && (ok || i/typ.Block() < at/typ.Block()) {
			t.Fatalf("%v: element %d is %v; Finite says %v, %d", typ, i, v[i], ok, at)
		}
	})
}
