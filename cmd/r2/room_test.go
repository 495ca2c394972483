package main

import (
	"strings"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/kernels/trace"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// A card is a device with memory of its own.
type card struct {
	kernels.Backend
	free int64
}

func (c card) Room() (free, total int64, err error) { return c.free, 1 << 40, nil }

// A device's own memory is what counts on it, and what does not fit is refused with the numbers.
func TestDeviceMemory(t *testing.T) {
	m, err := weights.Open(shipped("mini"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	parameters := 0
	for _, p := range m.Config.Parameters() {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		parameters += n
	}
	full := model.Options{Convert: true, DType: weights.F32}
	be := card{cpu.New(1), int64(4*parameters) - 1}
	err = weightsFit(be, m, full)
	if want := "mini: the weights take " + mib(int64(4*parameters)) + ", and " + mib(be.free) + " of the device's 1048576.0 MiB are free"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the refusal reads %v, want one with %q", err, want)
	}
	for typ, of := range map[weights.DType]kernels.DType{weights.BF16: kernels.BF16, weights.Q8_0: kernels.Q8_0} {
		need := 0
		for _, p := range m.Config.Parameters() {
			if len(p.Shape) == 2 {
				need += of.Bytes(p.Shape[0] * p.Shape[1])
			} else {
				need += 4 * p.Shape[0]
			}
		}
		if err := weightsFit(card{be.Backend, int64(need)}, m, model.Options{Convert: true, DType: typ}); err != nil {
			t.Errorf("%v: %v", typ, err)
		}
		if err := weightsFit(card{be.Backend, int64(need) - 1}, m, model.Options{Convert: true, DType: typ}); err == nil {
			t.Errorf("%v: a byte too few is enough", typ)
		}
	}
	if err := weightsFit(cpu.New(1), m, full); err != nil {
		t.Error(err)
	}
	traced := trace.New(be)
	if free, known := available(traced); !known || free != be.free {
		t.Errorf("%d bytes are free, want %d", free, be.free)
	}
	if n := cacheRoom(traced); n != int(be.free/2) {
		t.Errorf("a cache may take %d bytes", n)
	}
	if n := cacheRoom(cpu.New(1)); n != cacheBytes {
		t.Errorf("a cache on the processor may take %d bytes", n)
	}
}
