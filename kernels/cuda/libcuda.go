package cuda

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A gpu is a machine through libcuda.so.1, loaded when one is opened: the program needs neither a toolkit
// nor cgo, and starts where there is no GPU.
type gpu struct {
	entry                                    map[string]uintptr
	launcher, uploader, downloader, replayer uintptr // what a step calls

	device     int32
	name       string
	mostShared int
	context    uintptr
	stream     uintptr
	slots      [64]uint64         // a launch's arguments
	params     [64]unsafe.Pointer // where each is
}

// calls are the entry points; the ABI version of each is part of its name.
var calls = []string{"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
	"cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent", "cuModuleLoadDataEx", "cuModuleGetFunction",
	"cuFuncSetAttribute", "cuStreamCreate", "cuStreamSynchronize", "cuStreamBeginCapture_v2", "cuStreamEndCapture",
	"cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuGraphExecDestroy", "cuGraphDestroy", "cuMemAlloc_v2", "cuMemFree_v2",
	"cuMemGetInfo_v2", "cuMemHostAlloc", "cuMemsetD8Async", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuLaunchKernel",
	"cuGetErrorName", "cuGetErrorString"}

// ErrNoDriver says that there is no CUDA driver on this machine.
var ErrNoDriver = errors.New("no CUDA driver: libcuda.so.1 was not found (it comes with the NVIDIA driver)")

const (
	leastDriver     = 12040 // CUDA 12.4, whose PTX the kernels are
	leastCapability = 80

	attrShared = 97 // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
	attrMajor  = 75
	attrMinor  = 76

	funcShared  = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
	nonBlocking = 1 // CU_STREAM_NON_BLOCKING
	threadLocal = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
	jitErrorLog = 5 // CU_JIT_ERROR_LOG_BUFFER, and its size in bytes
	jitErrorLen = 6
)

// Open opens a GPU by its number, from 0.
func Open(index int, o Options) (*Device, error) {
	g, err := openGPU(index)
	if err != nil {
		return nil, fmt.Errorf("cuda:%d: %w", index, err)
	}
	d, err := open(g, o)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("cuda:%d (%s): %w", index, g.name, err)
	}
	return d, nil
}

func openGPU(index int) (*gpu, error) {
	entry, err := library("libcuda.so.1", calls)
	if err != nil {
		return nil, err
	}
	g := &gpu{entry: entry}
	g.launcher, g.replayer = g.entry["cuLaunchKernel"], g.entry["cuGraphLaunch"]
	g.uploader, g.downloader = g.entry["cuMemcpyHtoDAsync_v2"], g.entry["cuMemcpyDtoHAsync_v2"]
	if err := g.call("cuInit", 0); err != nil {
		return nil, err
	}
	var version, count int32
	if err := g.call("cuDriverGetVersion", uintptr(unsafe.Pointer(&version))); err != nil {
		return nil, err
	}
	if version < leastDriver {
		return nil, fmt.Errorf("the driver is of CUDA %d.%d; the kernels need 12.4 or later: update the NVIDIA driver", version/1000, version%1000/10)
	}
	if err := g.call("cuDeviceGetCount", uintptr(unsafe.Pointer(&count))); err != nil {
		return nil, err
	}
	if index < 0 || index >= int(count) {
		return nil, fmt.Errorf("there is no such device: this machine has %d", count)
	}
	if err := g.prepare(index); err != nil {
		return nil, err
	}
	return g, nil
}

// prepare looks at the device and makes its context and stream.
func (g *gpu) prepare(index int) error {
	if err := g.call("cuDeviceGet", uintptr(unsafe.Pointer(&g.device)), uintptr(index)); err != nil {
		return err
	}
	var name [128]byte
	if err := g.call("cuDeviceGetName", uintptr(unsafe.Pointer(&name)), uintptr(len(name)), uintptr(g.device)); err != nil {
		return err
	}
	g.name, _, _ = strings.Cut(string(name[:]), "\x00")
	var major, minor, shared int32
	for attr, v := range map[uintptr]*int32{attrMajor: &major, attrMinor: &minor, attrShared: &shared} {
		if err := g.call("cuDeviceGetAttribute", uintptr(unsafe.Pointer(v)), attr, uintptr(g.device)); err != nil {
			return err
		}
	}
	if major*10+minor < leastCapability {
		return fmt.Errorf("the %s is of compute capability %d.%d, without bf16; the oldest that is supported is 8.0 (A100, RTX 30)", g.name, major, minor)
	}
	g.mostShared = int(shared)
	if err := g.call("cuDevicePrimaryCtxRetain", uintptr(unsafe.Pointer(&g.context)), uintptr(g.device)); err != nil {
		return err
	}
	if err := g.Bind(); err != nil {
		return err
	}
	return g.call("cuStreamCreate", uintptr(unsafe.Pointer(&g.stream)), nonBlocking)
}

// call calls an entry point; a result other than 0 is an error that names it.
//
//go:uintptrescapes
func (g *gpu) call(name string, args ...uintptr) error {
	code, _, _ := purego.SyscallN(g.entry[name], args...)
	return g.result(name, int32(code))
}

func (g *gpu) result(name string, code int32) error {
	if code == 0 {
		return nil
	}
	text := func(name string) string {
		var s *byte
		if c, _, _ := purego.SyscallN(g.entry[name], uintptr(code), uintptr(unsafe.Pointer(&s))); int32(c) != 0 || s == nil {
			return fmt.Sprintf("error %d", code)
		}
		n := 0
		for *(*byte)(unsafe.Add(unsafe.Pointer(s), n)) != 0 {
			n++
		}
		return string(unsafe.Slice(s, n))
	}
	return fmt.Errorf("%s: %s (%s)", strings.TrimSuffix(name, "_v2"), text("cuGetErrorString"), text("cuGetErrorName"))
}

func (g *gpu) Name() string    { return "cuda (" + g.name + ")" }
func (g *gpu) MostShared() int { return g.mostShared }
func (g *gpu) Bind() error     { return g.call("cuCtxSetCurrent", g.context) }

// Close lets the device's context go, and with it its memory and modules.
func (g *gpu) Close() {
	if g.context != 0 {
		_ = g.call("cuDevicePrimaryCtxRelease_v2", uintptr(g.device))
		g.context = 0
	}
}

func (g *gpu) Load(text string, names []string) ([]function, error) {
	var module uintptr
	source, log := append([]byte(text), 0), make([]byte, 8192)
	options := [2]int32{jitErrorLog, jitErrorLen}
	values := [2]uintptr{uintptr(unsafe.Pointer(&log[0])), uintptr(len(log))}
	code, _, _ := purego.SyscallN(g.entry["cuModuleLoadDataEx"], uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&source[0])),
		uintptr(len(options)), uintptr(unsafe.Pointer(&options)), uintptr(unsafe.Pointer(&values)))
	said, _, _ := strings.Cut(string(log), "\x00") // and log is alive until here
	if err := g.result("cuModuleLoadDataEx", int32(code)); err != nil {
		return nil, fmt.Errorf("the driver does not take the kernels: %w %s", err, said)
	}
	all := make([]function, len(names))
	for i, name := range names {
		text := append([]byte(name), 0)
		if err := g.call("cuModuleGetFunction", uintptr(unsafe.Pointer(&all[i])), module, uintptr(unsafe.Pointer(&text[0]))); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (g *gpu) Allow(f function, bytes int) error {
	return g.call("cuFuncSetAttribute", uintptr(f), funcShared, uintptr(bytes))
}

func (g *gpu) Launch(f function, at grid, threads, shared int, args []uint64) error {
	if len(args) > len(g.slots) {
		return fmt.Errorf("cuLaunchKernel: %d arguments, at most %d", len(args), len(g.slots))
	}
	copy(g.slots[:], args)
	for i := range args {
		g.params[i] = unsafe.Pointer(&g.slots[i])
	}
	code, _, _ := purego.SyscallN(g.launcher, uintptr(f), uintptr(at.x), uintptr(at.y), uintptr(at.z), uintptr(threads), 1, 1,
		uintptr(shared), g.stream, uintptr(unsafe.Pointer(&g.params)), 0)
	return g.result("cuLaunchKernel", int32(code))
}

func (g *gpu) Sync() error { return g.call("cuStreamSynchronize", g.stream) }

func (g *gpu) Alloc(bytes int) (at uint64, err error) {
	err = g.call("cuMemAlloc_v2", uintptr(unsafe.Pointer(&at)), uintptr(bytes))
	return at, err
}

func (g *gpu) Free(at uint64) error { return g.call("cuMemFree_v2", uintptr(at)) }

func (g *gpu) MemInfo() (free, total int, err error) {
	err = g.call("cuMemGetInfo_v2", uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return free, total, err
}

func (g *gpu) Pinned(bytes int) ([]byte, error) {
	var at *byte
	if err := g.call("cuMemHostAlloc", uintptr(unsafe.Pointer(&at)), uintptr(bytes), 0); err != nil {
		return nil, err
	}
	return unsafe.Slice(at, bytes), nil
}

func (g *gpu) Upload(to uint64, from []byte) error {
	code, _, _ := purego.SyscallN(g.uploader, uintptr(to), uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), g.stream)
	return g.result("cuMemcpyHtoDAsync_v2", int32(code))
}

func (g *gpu) Download(to []byte, from uint64) error {
	code, _, _ := purego.SyscallN(g.downloader, uintptr(unsafe.Pointer(&to[0])), uintptr(from), uintptr(len(to)), g.stream)
	return g.result("cuMemcpyDtoHAsync_v2", int32(code))
}

func (g *gpu) Clear(at uint64, bytes int) error {
	return g.call("cuMemsetD8Async", uintptr(at), 0, uintptr(bytes), g.stream)
}

func (g *gpu) Begin() error { return g.call("cuStreamBeginCapture_v2", g.stream, threadLocal) }

func (g *gpu) End() (r recording, err error) {
	var graph uintptr
	if err := g.call("cuStreamEndCapture", g.stream, uintptr(unsafe.Pointer(&graph))); err != nil {
		return 0, err
	}
	err = g.call("cuGraphInstantiateWithFlags", uintptr(unsafe.Pointer(&r)), graph, 0)
	return r, errors.Join(err, g.call("cuGraphDestroy", graph))
}

func (g *gpu) Replay(r recording) error {
	code, _, _ := purego.SyscallN(g.replayer, uintptr(r), g.stream)
	return g.result("cuGraphLaunch", int32(code))
}

func (g *gpu) Forget(r recording) error { return g.call("cuGraphExecDestroy", uintptr(r)) }
