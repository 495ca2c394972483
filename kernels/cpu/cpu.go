// Package cpu is the Backend that computes on the processor the program runs on.
//
// Its leaves are written in assembly, for AVX-512, for AVX2 and for NEON, and as a twin in plain Go that
// other processors run and that the build tag purego selects. All give the same bits: every element of a matrix
// product is one chain of fused multiply-adds, the common dimension ascending, in one vector lane.
// Goroutines share out the outputs of an operation and never the terms of a sum, so neither the
// number of rows beside a row nor the number of threads changes a bit.
package cpu

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"github.com/r2-reasoner/r2/kernels"
)

// A Device is the Backend of this processor. Operations are done when they return. It is for one
// goroutine at a time; several Devices may work side by side.
type Device struct {
	busy sync.Mutex // held between Attach and Detach
	team *team
	err  error // the first failure since the last Read or Sync

	scratch [][]float32 // of each worker, grown once and kept
	spans   spans
	slabs   slabs     // the memory of weights and of larger tensors
	rounded []float32 // x in the type that a product rounds it to, grown and kept

	linear      linearTask
	rounding    rounding
	blocks      blockLinear
	roundBlocks blockRounding
	linearGrad  linearGradTask
	matmul      matmulTask
	embed       embedTask
	lent        lent
	vectorTasks
}

// New returns a device that works with the given number of threads. With 0 it is R2_THREADS where
// that is set to a positive number, or else GOMAXPROCS.
func New(threads int) *Device {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		panic("cpu: tensors are little-endian, and this processor is not")
	}
	if n, err := strconv.Atoi(os.Getenv("R2_THREADS")); threads <= 0 && err == nil {
		threads = n
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	d := &Device{team: newTeam(threads), scratch: make([][]float32, threads)}
	runtime.AddCleanup(d, (*team).stop, d.team)
	return d
}

// Name says which device this is: the instructions it uses and the number of threads.
func (d *Device) Name() string {
	return fmt.Sprintf("cpu (%s, %d threads)", instructions(), d.team.size)
}

// Threads is the number of goroutines that share an operation's work, the caller among them.
func (d *Device) Threads() int { return d.team.size }

// Attach waits until no other goroutine has the device.
func (d *Device) Attach() error {
	d.busy.Lock()
	return nil
}

// Detach lets the next one have it.
func (d *Device) Detach() { d.busy.Unlock() }

// Close ends the device's goroutines. The device must not be used after it; its tensors and weights
// are to be freed before.
func (d *Device) Close() { d.team.stop() }

// Sync reports and clears the first failure since the last Read or Sync.
func (d *Device) Sync() error {
	err := d.err
	d.err = nil
	return err
}

// fail keeps err unless there is one already: the operations after it do nothing.
func (d *Device) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// run has the team do t. The device stays alive until it is done.
func (d *Device) run(t task) {
	d.team.run(t)
	runtime.KeepAlive(d)
}

// workspace returns n float32 of scratch that belong to a worker until its task ends. What they hold
// is left from earlier. It allocates only to grow.
func (d *Device) workspace(worker, n int) []float32 {
	if len(d.scratch[worker]) < n {
		d.scratch[worker] = aligned(n)
	}
	return d.scratch[worker][:n]
}

// floats returns the elements of an F32 tensor: element (i, j) is at i·Stride + j.
func floats(op string, t kernels.Tensor) []float32 {
	b := bufferOf(op, t)
	if t.Type != kernels.F32 || b.f == nil {
		panic(fmt.Sprintf("cpu: %s: needs an f32 tensor, got %s", op, t.Type))
	}
	lo, hi := extent(op, t, len(b.f))
	return b.f[lo:hi:hi]
}

// ints returns the elements of an I32 tensor: element (i, j) is at i·Stride + j.
func ints(op string, t kernels.Tensor) []int32 {
	b := bufferOf(op, t)
	if t.Type != kernels.I32 || b.i == nil {
		panic(fmt.Sprintf("cpu: %s: needs an i32 tensor, got %s", op, t.Type))
	}
	lo, hi := extent(op, t, len(b.i))
	return b.i[lo:hi:hi]
}

// halves returns the elements of a BF16 tensor.
func halves(op string, t kernels.Tensor) []uint16 {
	b := bufferOf(op, t)
	if t.Type != kernels.BF16 || b.h == nil {
		panic(fmt.Sprintf("cpu: %s: needs a bf16 tensor, got %s", op, t.Type))
	}
	lo, hi := extent(op, t, len(b.h))
	return b.h[lo:hi:hi]
}

func bufferOf(op string, t kernels.Tensor) *buffer {
	b, ok := t.Buf.(*buffer)
	if !ok {
		panic(fmt.Sprintf("cpu: %s: a tensor of another device (%T)", op, t.Buf))
	}
	if b.freed {
		panic(fmt.Sprintf("cpu: %s: a tensor of %d x %d that has no memory (freed, or its New failed)", op, t.Rows, t.Cols))
	}
	return b
}

// extent is where t's elements begin and end in its buffer of n.
func extent(op string, t kernels.Tensor, n int) (lo, hi int) {
	if t.Rows == 0 || t.Cols == 0 {
		return 0, 0
	}
	hi = t.Off + (t.Rows-1)*t.Stride + t.Cols
	if t.Off < 0 || t.Rows < 0 || t.Cols < 0 || hi > n || t.Rows > 1 && t.Stride < t.Cols {
		panic(fmt.Sprintf("cpu: %s: a view of %d x %d, stride %d, from %d on, of a buffer of %d",
			op, t.Rows, t.Cols, t.Stride, t.Off, n))
	}
	return t.Off, hi
}

// shape is a tensor's shape for a message.
func shape(t kernels.Tensor) string { return fmt.Sprintf("%dx%d", t.Rows, t.Cols) }
