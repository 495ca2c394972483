package driver

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// launchConfig and launchAttribute are CUlaunchConfig and CUlaunchAttribute.
type (
	launchConfig struct {
		grid, block [3]uint32
		shared      uint32
		stream      uintptr
		attrs       *launchAttribute
		count       uint32
	}
	launchAttribute struct {
		id    uint32
		_     uint32
		value [16]uint32
	}
)

const (
	attrCluster = 4 // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
	attrEarly   = 6 // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION

	jitErrorLog = 5 // CU_JIT_ERROR_LOG_BUFFER, and its size in bytes
	jitErrorLen = 6
)

func (g *libcuda) Load(image []byte) (Module, error) {
	var m Module
	if !bytes.HasPrefix(image, []byte("\x7fELF")) {
		image = append(bytes.Clone(image), 0) // PTX is text that a 0 ends
	}
	log := make([]byte, 8192)
	options := [2]int32{jitErrorLog, jitErrorLen}
	values := struct { // a void *[2]
		log  unsafe.Pointer
		size uintptr
	}{unsafe.Pointer(&log[0]), uintptr(len(log))}
	code, _, _ := purego.SyscallN(g.entry["cuModuleLoadDataEx"], uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&image[0])),
		uintptr(len(options)), uintptr(unsafe.Pointer(&options)), uintptr(unsafe.Pointer(&values)))
	said, _, _ := strings.Cut(string(log), "\x00")
	if err := g.result("cuModuleLoadDataEx", code); err != nil {
		if said = strings.TrimSpace(said); said != "" {
			return 0, fmt.Errorf("the driver does not take the kernels: %w\n%s", err, said)
		}
		return 0, fmt.Errorf("the driver does not take the kernels: %w", err)
	}
	return m, nil
}

func (g *libcuda) Unload(m Module) error { return g.call("cuModuleUnload", uintptr(m)) }

func (g *libcuda) Function(m Module, name string) (f Function, err error) {
	text := append([]byte(name), 0)
	if err := g.call("cuModuleGetFunction", uintptr(unsafe.Pointer(&f)), uintptr(m), uintptr(unsafe.Pointer(&text[0]))); err != nil {
		return 0, fmt.Errorf("kernel %s: %w", name, err)
	}
	return f, nil
}

func (g *libcuda) FunctionAttribute(f Function, a FunctionAttribute) (int, error) {
	var v int32
	err := g.call("cuFuncGetAttribute", uintptr(unsafe.Pointer(&v)), uintptr(a), uintptr(f))
	return int(v), err
}

func (g *libcuda) SetFunctionAttribute(f Function, a FunctionAttribute, value int) error {
	return g.call("cuFuncSetAttribute", uintptr(f), uintptr(a), uintptr(value))
}

func (g *libcuda) Launch(f Function, l Launch, args *Args) error {
	if len(args.Words) > len(g.words) {
		return fmt.Errorf("cuLaunchKernel: %d bytes of arguments, at most %d", 8*len(args.Words), 8*len(g.words))
	}
	copy(g.words[:], args.Words)
	for i, at := range args.Starts {
		g.params[i] = unsafe.Pointer(&g.words[at])
	}
	if l.Cluster != (Dim{}) || l.Early {
		return g.launchEx(f, l)
	}
	return g.step("cuLaunchKernel", g.launcher, uintptr(f), uintptr(l.Grid.X), uintptr(l.Grid.Y), uintptr(l.Grid.Z),
		uintptr(l.Block.X), uintptr(l.Block.Y), uintptr(l.Block.Z), uintptr(l.Shared), g.stream, uintptr(unsafe.Pointer(&g.params)), 0)
}

// launchEx launches with attributes.
func (g *libcuda) launchEx(f Function, l Launch) error {
	g.configure(l)
	return g.step("cuLaunchKernelEx", g.entry["cuLaunchKernelEx"], uintptr(unsafe.Pointer(&g.config)), uintptr(f), uintptr(unsafe.Pointer(&g.params)), 0)
}

func (g *libcuda) Clusters(f Function, l Launch) (int, error) {
	var n int32
	g.configure(l)
	err := g.call("cuOccupancyMaxActiveClusters", uintptr(unsafe.Pointer(&n)), uintptr(f), uintptr(unsafe.Pointer(&g.config)))
	return int(n), err
}

// configure makes the configuration of a launch with attributes.
func (g *libcuda) configure(l Launch) {
	three := func(d Dim) [3]uint32 { return [3]uint32{uint32(d.X), uint32(d.Y), uint32(d.Z)} }
	g.config = launchConfig{grid: three(l.Grid), block: three(l.Block), shared: uint32(l.Shared), stream: g.stream, attrs: &g.attrs[0]}
	add := func(id uint32, value ...uint32) {
		a := &g.attrs[g.config.count]
		*a = launchAttribute{id: id}
		copy(a.value[:], value)
		g.config.count++
	}
	if c := three(l.Cluster); l.Cluster != (Dim{}) {
		add(attrCluster, c[0], c[1], c[2])
	}
	if l.Early {
		add(attrEarly, 1)
	}
}

func (g *libcuda) Encode(t Tile) (TensorMap, error) {
	if err := t.Check(); err != nil {
		return TensorMap{}, err
	}
	var room [2 * len(TensorMap{})]uint64 // the driver wants it at a multiple of 64 bytes
	at := 0
	for uintptr(unsafe.Pointer(&room[at]))%64 != 0 {
		at++
	}
	steps, strides := [5]uint32{1, 1, 1, 1, 1}, append(t.Strides[:len(t.Strides):len(t.Strides)], 0) // so that there is a first
	err := g.call("cuTensorMapEncodeTiled", uintptr(unsafe.Pointer(&room[at])), uintptr(t.Type), uintptr(len(t.Dims)), uintptr(t.Address),
		uintptr(unsafe.Pointer(&t.Dims[0])), uintptr(unsafe.Pointer(&strides[0])), uintptr(unsafe.Pointer(&t.Box[0])),
		uintptr(unsafe.Pointer(&steps[0])), 0, uintptr(t.Swizzle), uintptr(t.Promote), 0)
	return TensorMap(room[at:]), err
}
