package events

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The records that TensorBoard 2.18's own writer makes for the same events (see the README of the
// format: tensorboard/summary/writer/record_writer.py over tensorboard/compat/proto/event.proto).
func TestAgainstTensorBoard(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, 1700000000.5)
	if err == nil {
		err = w.Scalars(1700000001.25, 300, map[string]float64{"loss": 0.1, "grad_norm": -2.5})
	}
	if err == nil {
		err = Append(&b).Scalars(1700000002, 1, map[string]float64{"loss": 0})
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b.Bytes()); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
}

const want = "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531102d000000000000003c418afb0900005040fc54d94110ac022a1f0a100a09677261645f6e6f726d15000020c00a0b0a046c6f737315cdcccc3d92946a261a00000000000000129bd82d0900008040fc54d94110012a0d0a0b0a046c6f73731500000000182fb835"
