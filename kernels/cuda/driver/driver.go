// Package driver is what the CUDA backend asks of a machine: memory, modules, launches, graphs and events
// on one stream. Open gives a GPU through libcuda.so.1, loaded when it is called: the program needs neither
// a toolkit nor cgo, and starts where there is no GPU. Nothing else knows CUDA's C types.
//
// Package ptxsim is another Device, in software; drivertest holds what all of them must do.
package driver

import "time"

// Handles of what a Device holds. 0 is none.
type (
	Module   uintptr // loaded code
	Function uintptr // a kernel of a module
	Event    uintptr // a point of the stream
	Graph    uintptr // launches that were recorded
	Exec     uintptr // a graph made ready to be replayed
)

// A Device is one GPU with one stream, or a simulator of one. What is queued runs in order: Launch, Upload,
// Download, Copy, Set, AllocAsync, FreeAsync, Record and Replay. Sync waits for all of it; the other methods are
// done when they return. Between Begin and End what is queued is recorded, and does not run.
//
// Each error names the call that failed. One that Fatal reports true of is of the device: nothing more can
// be had of it. A Device is used by one goroutine at a time, on a thread that Bind has been called on.
type Device interface {
	// Name is the device's own, such as "NVIDIA H100 80GB HBM3".
	Name() string
	Attribute(a Attribute) (int, error)
	// Bind makes the calling thread one that may use the device.
	Bind() error
	// Close gives back the device, and with it its memory and modules.
	Close() error

	Code
	Memory
	Stream
}

// Code loads kernels and starts them.
type Code interface {
	// Load takes PTX text, which the driver compiles, or a cubin.
	Load(image []byte) (Module, error)
	Unload(m Module) error
	Function(m Module, name string) (Function, error)
	FunctionAttribute(f Function, a FunctionAttribute) (int, error)
	SetFunctionAttribute(f Function, a FunctionAttribute, value int) error
	// Launch starts a kernel. args are copied.
	Launch(f Function, l Launch, args *Args) error
	// Clusters is how many clusters of such a launch the device runs beside each other, 0 where it has none.
	Clusters(f Function, l Launch) (int, error)
	// Encode makes a tensor map, which a kernel takes as an argument.
	Encode(t Tile) (TensorMap, error)
}

// Memory is the device's, by addresses, and pinned memory of the host. Fresh memory holds anything.
type Memory interface {
	Alloc(bytes int) (uint64, error)
	Free(at uint64) error
	// AllocAsync and FreeAsync take effect at their place in the stream.
	AllocAsync(bytes int) (uint64, error)
	FreeAsync(at uint64) error
	// MemInfo is the free and all bytes of the device, other processes' included.
	MemInfo() (free, total int, err error)
	// Pin returns memory of the host that Upload and Download copy from and to while the program goes on:
	// it must not be changed, or read, before the stream has come so far.
	Pin(bytes int) ([]byte, error)
	Unpin(b []byte) error
	Upload(to uint64, from []byte) error
	Download(to []byte, from uint64) error
	Copy(to, from uint64, bytes int) error
	// Set makes each byte of device memory v.
	Set(at uint64, v byte, bytes int) error
}

// Stream is what is known of, and done with, the order of queued work.
type Stream interface {
	Sync() error

	NewEvent() (Event, error)
	Record(e Event) error
	// Wait waits until the stream has come to e.
	Wait(e Event) error
	// Elapsed is the time from one recorded event to another; both must have been waited for.
	Elapsed(from, to Event) (time.Duration, error)
	FreeEvent(e Event) error

	// Begin and End record what is queued between them.
	Begin() error
	End() (Graph, error)
	// Instantiate makes a graph ready. The graph may be freed after it.
	Instantiate(g Graph) (Exec, error)
	// Update makes e a replay of g, which must have the same launches in the same order; arguments and
	// numbers of blocks may differ.
	Update(e Exec, g Graph) error
	Replay(e Exec) error
	FreeGraph(g Graph) error
	FreeExec(e Exec) error
}

// A Dim is a number of blocks or of threads in three dimensions.
type Dim struct{ X, Y, Z int }

// A Launch is the shape of one.
type Launch struct {
	Grid, Block Dim
	Cluster     Dim  // of blocks (sm_90); zero: none
	Shared      int  // bytes of dynamic shared memory; more than 48 KB must be allowed by MaxDynamicShared
	Early       bool // may begin before the launch before it has ended: the kernel itself waits for that (sm_90)
}

// Args are a launch's arguments, in the order of the kernel's parameters.
type Args struct {
	Words  []uint64 // a word for each, in its low bytes; sixteen for a tensor map
	Starts []int    // the word that each begins with
}

// Reset leaves no arguments, and keeps the room.
func (a *Args) Reset() { a.Words, a.Starts = a.Words[:0], a.Starts[:0] }

// Add adds arguments of at most eight bytes.
func (a *Args) Add(words ...uint64) *Args {
	for _, w := range words {
		a.Starts, a.Words = append(a.Starts, len(a.Words)), append(a.Words, w)
	}
	return a
}

// AddMap adds a tensor map.
func (a *Args) AddMap(m *TensorMap) *Args {
	a.Starts, a.Words = append(a.Starts, len(a.Words)), append(a.Words, m[:]...)
	return a
}

// An Attribute is a number that a device has, by CUDA's CU_DEVICE_ATTRIBUTE_….
type Attribute int

const (
	Clock             Attribute = 13 // kHz
	Multiprocessors   Attribute = 16
	MemoryClock       Attribute = 36 // kHz
	MemoryBusWidth    Attribute = 37 // bits
	L2Size            Attribute = 38 // bytes
	CapabilityMajor   Attribute = 75
	CapabilityMinor   Attribute = 76
	SharedPerSM       Attribute = 81 // bytes
	MaxSharedPerBlock Attribute = 97 // bytes, once allowed
)

// A FunctionAttribute is a number that a kernel has, by CUDA's CU_FUNC_ATTRIBUTE_….
type FunctionAttribute int

const (
	StaticShared       FunctionAttribute = 1  // bytes
	LocalBytes         FunctionAttribute = 3  // a thread: spilled registers and arrays
	Registers          FunctionAttribute = 4  // a thread
	MaxDynamicShared   FunctionAttribute = 8  // bytes; can be set
	WideClusterAllowed FunctionAttribute = 14 // of more than eight blocks; can be set
)
