package ptxsim

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Parameters are read at the offset that a register holds, and no further than they reach.
func TestParametersByRegister(t *testing.T) {
	const body = "mov.b64 %rd10, b;\nadd.s64 %rd10, %rd10, OFF;\nld.param.v2.u32 {%r3, %r4}, [%rd10];\nst.global.v2.u32 [%rd1], {%r3, %r4};"
	r := newRig(t, Options{}, module(strings.Replace(body, "OFF", "8", 1)))
	a := r.memory(make([]byte, 8))
	if err := r.launch(1, 1, 0, a, 5, 77); err == nil || !strings.Contains(err.Error(), "reads 8 bytes at 16 of 20 of parameters") {
		t.Errorf("the error reads %v", err)
	}
	r = newRig(t, Options{}, module(strings.Replace(body, "OFF", "0", 1)))
	a = r.memory(make([]byte, 8))
	if err := r.launch(1, 1, 0, a, 5|6<<32, 77); err != nil {
		t.Fatal(err)
	}
	if got := binary.LittleEndian.Uint64(r.read(a, 8)); got != 5|6<<32 {
		t.Errorf("reads %#x", got)
	}
}
