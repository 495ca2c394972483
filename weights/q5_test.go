package weights

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"testing"
)

// Q5_0 and Q5_1 against ggml's own Python package (testdata/q5.py), read through a GGUF's type numbers.
func TestQ5(t *testing.T) {
	file, err := os.ReadFile("testdata/q5.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors map[string]struct {
		Blocks string
		Bits   []uint32
	}
	if err := json.Unmarshal(file, &vectors); err != nil {
		t.Fatal(err)
	}
	for kind, name := range map[uint32]string{6: "Q5_0", 7: "Q5_1"} {
		data, err := hex.DecodeString(vectors[name].Blocks)
		if err != nil {
			t.Fatal(err)
		}
		x := Tensor{Type: ggmlTypes[kind], Shape: []int{96}, Data: data}
		want := vectors[name].Bits
		if x.Type.String() != name || len(want) != 96 || len(data) != 3*x.Type.BlockSize() {
			t.Fatalf("type %d is %v; %d values in %d bytes", kind, x.Type, len(want), len(data))
		}
		for i, g := range x.Float32(nil) {
			if math.Float32bits(g) != want[i] {
				t.Errorf("%s: element %d is %g, want %g", name, i, g, math.Float32frombits(want[i]))
			}
		}
	}
}

// The second half of a Q5_1 block, its offset, has to be finite too; in Q5_0 those bits are quants.
func TestQ5Finite(t *testing.T) {
	for dt, want := range map[DType]bool{Q5_0: true, Q5_1: false} {
		x := Tensor{Type: dt, Shape: []int{32}, Data: make([]byte, dt.BlockSize())}
		x.Data[3] = 0x7c
		if ok, _ := x.Finite(); ok != want {
			t.Errorf("%v: finite %v, want %v", dt, ok, want)
		}
	}
}
