package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/trace"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/weights"
)

// A roomer is a device with memory of its own.
type roomer interface {
	Room() (free, total int64, err error)
}

// ownMemory is the device as one with memory of its own, if it is.
func ownMemory(be kernels.Backend) (roomer, bool) {
	if t, ok := be.(*trace.Device); ok {
		be = t.Backend
	}
	r, ok := be.(roomer)
	return r, ok
}

// available is the memory that the device has free, or this machine without swapping, where that is known.
func available(be kernels.Backend) (int64, bool) {
	if r, ok := ownMemory(be); ok {
		free, _, err := r.Room()
		return free, err == nil
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	var kib int64
	_, err = fmt.Sscan(after, &kib)
	return kib << 10, err == nil
}

// weightsFit refuses a model whose weights a device with its own memory cannot hold.
func weightsFit(be kernels.Backend, m *weights.Model, o model.Options) error {
	r, ok := ownMemory(be)
	if !ok {
		return nil
	}
	free, total, err := r.Room()
	if err != nil {
		return err
	}
	matrix := kernels.F32
	if t, err := m.Tensor(m.Config.Projections(0)[0].Module + ".weight"); err == nil && !o.Train {
		stored := t.Type
		if o.Convert {
			stored = o.DType
		}
		switch stored {
		case weights.BF16:
			matrix = kernels.BF16
		case weights.Q8_0:
			matrix = kernels.Q8_0
		}
	}
	need := int64(0)
	for _, p := range m.Config.Parameters() {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		if len(p.Shape) == 2 {
			need += int64(matrix.Bytes(n))
		} else {
			need += int64(kernels.F32.Bytes(n))
		}
	}
	if need > free {
		return fmt.Errorf("%s: the weights take %s, and %s of the device's %s are free: end what else runs on it, or take a smaller model or --dtype bf16 or int8",
			m.Path, mib(need), mib(free), mib(total))
	}
	return nil
}

// cacheRoom is the bytes of keys and values that an engine on be may take: half of what a device with its own
// memory has free.
func cacheRoom(be kernels.Backend) int {
	if r, ok := ownMemory(be); ok {
		if free, _, err := r.Room(); err == nil {
			return int(free / 2)
		}
	}
	return cacheBytes
}
