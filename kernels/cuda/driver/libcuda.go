package driver

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// symbols are the entry points of libcuda; the ABI version of each is part of its name.
var symbols = []string{"cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString",
	"cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
	"cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent",
	"cuModuleLoadDataEx", "cuModuleUnload", "cuModuleGetFunction", "cuFuncGetAttribute", "cuFuncSetAttribute",
	"cuLaunchKernel", "cuLaunchKernelEx", "cuOccupancyMaxActiveClusters", "cuTensorMapEncodeTiled",
	"cuMemAlloc_v2", "cuMemFree_v2", "cuMemAllocAsync", "cuMemFreeAsync", "cuMemGetInfo_v2", "cuMemHostAlloc", "cuMemFreeHost",
	"cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async",
	"cuStreamCreate", "cuStreamSynchronize", "cuEventCreate", "cuEventRecord", "cuEventSynchronize", "cuEventElapsedTime",
	"cuEventDestroy_v2", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphExecUpdate_v2",
	"cuGraphLaunch", "cuGraphDestroy", "cuGraphExecDestroy"}

const (
	leastDriver     = 12040 // CUDA 12.4, whose PTX the kernels are
	leastCapability = 80

	nonBlocking = 1 // CU_STREAM_NON_BLOCKING
	threadLocal = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
)

// libcuda is a Device through libcuda.so.1.
type libcuda struct {
	entry map[string]uintptr
	// What a step calls.
	launcher, uploader, downloader, replayer, synchronizer uintptr

	device  int32
	name    string
	context uintptr
	stream  uintptr

	// The call and the launch under way. The struct is on the heap, which does not move.
	frame  [11]uintptr
	words  [4096 / 8]uint64
	params [4096 / 8]unsafe.Pointer // where each argument is
	config launchConfig
	attrs  [2]launchAttribute
}

var _ Device = (*libcuda)(nil)

// Open opens a GPU by its number, from 0. The first to do so loads the driver.
func Open(index int) (Device, error) {
	g, err := load()
	if err != nil {
		return nil, err
	}
	count, err := g.count()
	if err != nil {
		return nil, err
	}
	switch {
	case count == 0:
		return nil, errors.New("the driver is there, but no GPU is seen: is there one, and does CUDA_VISIBLE_DEVICES hide it?")
	case index < 0 || index >= count:
		return nil, fmt.Errorf("there is no such device: this machine has %d, numbered from 0", count)
	}
	if err := g.prepare(index); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Count is the number of GPUs there are; an error says why none can be used.
func Count() (int, error) {
	g, err := load()
	if err != nil {
		return 0, err
	}
	return g.count()
}

// load loads the driver and asks for its version.
func load() (*libcuda, error) {
	entry, err := library("libcuda.so.1", symbols)
	if err != nil {
		return nil, err
	}
	g := &libcuda{entry: entry, launcher: entry["cuLaunchKernel"], replayer: entry["cuGraphLaunch"], synchronizer: entry["cuStreamSynchronize"],
		uploader: entry["cuMemcpyHtoDAsync_v2"], downloader: entry["cuMemcpyDtoHAsync_v2"]}
	if err := g.call("cuInit", 0); err != nil {
		return nil, err
	}
	var version int32
	if err := g.call("cuDriverGetVersion", uintptr(unsafe.Pointer(&version))); err != nil {
		return nil, err
	}
	if version < leastDriver {
		return nil, fmt.Errorf("the driver is of CUDA %d.%d; the kernels need 12.4 or later: update the NVIDIA driver", version/1000, version%1000/10)
	}
	return g, nil
}

func (g *libcuda) count() (int, error) {
	var n int32
	err := g.call("cuDeviceGetCount", uintptr(unsafe.Pointer(&n)))
	return int(n), err
}

// prepare looks at the device and makes its context and stream.
func (g *libcuda) prepare(index int) error {
	if err := g.call("cuDeviceGet", uintptr(unsafe.Pointer(&g.device)), uintptr(index)); err != nil {
		return err
	}
	var name [128]byte
	if err := g.call("cuDeviceGetName", uintptr(unsafe.Pointer(&name)), uintptr(len(name)), uintptr(g.device)); err != nil {
		return err
	}
	g.name, _, _ = strings.Cut(string(name[:]), "\x00")
	major, err := g.Attribute(CapabilityMajor)
	if err != nil {
		return err
	}
	minor, err := g.Attribute(CapabilityMinor)
	if err != nil {
		return err
	}
	if major*10+minor < leastCapability {
		return fmt.Errorf("the %s is of compute capability %d.%d, without bf16; the oldest that is supported is 8.0 (A100, RTX 30)", g.name, major, minor)
	}
	if err := g.call("cuDevicePrimaryCtxRetain", uintptr(unsafe.Pointer(&g.context)), uintptr(g.device)); err != nil {
		return err
	}
	if err := g.Bind(); err != nil {
		return err
	}
	return g.call("cuStreamCreate", uintptr(unsafe.Pointer(&g.stream)), nonBlocking)
}

func (g *libcuda) Name() string { return g.name }

func (g *libcuda) Attribute(a Attribute) (int, error) {
	var v int32
	err := g.call("cuDeviceGetAttribute", uintptr(unsafe.Pointer(&v)), uintptr(a), uintptr(g.device))
	return int(v), err
}

func (g *libcuda) Bind() error { return g.call("cuCtxSetCurrent", g.context) }

func (g *libcuda) Close() error {
	if g.context == 0 {
		return nil
	}
	g.context = 0
	return g.call("cuDevicePrimaryCtxRelease_v2", uintptr(g.device))
}

// call calls an entry point; a result other than 0 is an error that names it.
//
//go:uintptrescapes
func (g *libcuda) call(symbol string, args ...uintptr) error {
	code, _, _ := purego.SyscallN(g.entry[symbol], args...)
	return g.result(symbol, code)
}

// step is call for what a step does over and over: it allocates nothing, and args are numbers or stay where
// they are (memory of the heap, which the caller keeps alive, or pinned).
func (g *libcuda) step(symbol string, entry uintptr, args ...uintptr) error {
	n := copy(g.frame[:], args)
	code, _, _ := purego.SyscallN(entry, g.frame[:n]...)
	return g.result(symbol, code)
}

// result is the error of a CUresult.
func (g *libcuda) result(symbol string, code uintptr) error {
	if int32(code) == 0 {
		return nil
	}
	return &Error{Call: entryName(symbol), Code: int(int32(code)), Name: g.text("cuGetErrorName", code), Text: g.text("cuGetErrorString", code)}
}

// text asks for what a result is called.
func (g *libcuda) text(symbol string, code uintptr) string {
	var s *byte
	if c, _, _ := purego.SyscallN(g.entry[symbol], code, uintptr(unsafe.Pointer(&s))); int32(c) != 0 || s == nil {
		return fmt.Sprintf("error %d", int32(code))
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(s), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(s, n))
}
