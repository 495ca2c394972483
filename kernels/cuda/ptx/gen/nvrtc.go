package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The one version that is taken: PTX is compared byte by byte, and what this one writes is understood by
// the driver of CUDA 12.4 and every later one.
const major, minor = 12, 4

// A compiler is NVIDIA's run-time compiler, loaded without cgo. It needs no GPU and no driver.
type compiler struct {
	version func(major, minor *int32) int32
	text    func(code int32) string
	create  func(prog *uintptr, src, name string, headers int32, texts, names **byte) int32
	compile func(prog uintptr, n int32, options **byte) int32
	destroy func(prog *uintptr) int32

	logSize, ptxSize, cubinSize func(prog uintptr, n *uint64) int32
	log, ptx, cubin             func(prog uintptr, out *byte) int32
}

// open loads the library at path, or the first that is found in dir and where the system looks.
func open(path, dir string) (*compiler, error) {
	places := []string{path}
	if path == "" {
		places = []string{filepath.Join(dir, "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"), "libnvrtc.so.12"}
	}
	var lib uintptr
	var err error
	for _, p := range places {
		if lib, err = purego.Dlopen(p, purego.RTLD_NOW|purego.RTLD_GLOBAL); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("no NVRTC: %w (`make nvrtc` fetches it)", err)
	}
	c := &compiler{}
	for name, f := range map[string]any{
		"nvrtcVersion": &c.version, "nvrtcGetErrorString": &c.text, "nvrtcCreateProgram": &c.create,
		"nvrtcCompileProgram": &c.compile, "nvrtcDestroyProgram": &c.destroy,
		"nvrtcGetProgramLogSize": &c.logSize, "nvrtcGetProgramLog": &c.log,
		"nvrtcGetPTXSize": &c.ptxSize, "nvrtcGetPTX": &c.ptx,
		"nvrtcGetCUBINSize": &c.cubinSize, "nvrtcGetCUBIN": &c.cubin,
	} {
		at, err := purego.Dlsym(lib, name)
		if err != nil {
			return nil, fmt.Errorf("NVRTC without %s: %w", name, err)
		}
		purego.RegisterFunc(f, at)
	}
	var a, b int32
	if code := c.version(&a, &b); code != 0 {
		return nil, fmt.Errorf("nvrtcVersion: %s", c.text(code))
	}
	if a != major || b != minor {
		return nil, fmt.Errorf("NVRTC is %d.%d; the committed PTX is that of %d.%d", a, b, major, minor)
	}
	return c, nil
}

// strings0 are C strings, and what keeps them in memory.
func strings0(texts ...string) []*byte {
	out := make([]*byte, len(texts))
	for i, s := range texts {
		out[i] = unsafe.StringData(s + "\x00")
	}
	return out
}

// A kind says what a source is compiled to.
type kind int

const (
	toPTX   kind = iota
	toCubin      // machine code, which says what registers it takes
)

// headers are what a source includes.
type headers struct{ names, texts []string }

// build compiles a source for an architecture, such as compute_80 or sm_90.
func (c *compiler) build(name, src string, header headers, arch string, k kind) (out []byte, err error) {
	var prog uintptr
	texts, names := strings0(header.texts...), strings0(header.names...)
	fail := func(call string, code int32) error { return fmt.Errorf("%s: %s: %s", name, call, c.text(code)) }
	if code := c.create(&prog, src, name, int32(len(names)), &texts[0], &names[0]); code != 0 {
		return nil, fail("nvrtcCreateProgram", code)
	}
	defer c.destroy(&prog)
	options := strings0("--gpu-architecture="+arch, "--std=c++17", "--fmad=false",
		"--device-as-default-execution-space")
	code := c.compile(prog, int32(len(options)), &options[0])
	runtime.KeepAlive(options)
	raw, _ := c.get(prog, c.logSize, c.log)
	log := strings.TrimRight(string(raw), "\x00\n")
	if code != 0 {
		return nil, fmt.Errorf("%w\n%s", fail("nvrtcCompileProgram", code), log)
	}
	if err := slow(log); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	size, get := c.ptxSize, c.ptx
	if k == toCubin {
		size, get = c.cubinSize, c.cubin
	}
	if out, err = c.get(prog, size, get); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func (c *compiler) get(prog uintptr, size func(uintptr, *uint64) int32, get func(uintptr, *byte) int32) ([]byte, error) {
	var n uint64
	if code := size(prog, &n); code != 0 || n == 0 {
		return nil, fmt.Errorf("nvrtc: no output: %s", c.text(code))
	}
	out := make([]byte, n)
	if code := get(prog, &out[0]); code != 0 {
		return nil, fmt.Errorf("nvrtc: %s", c.text(code))
	}
	return out, nil
}

// read returns a file's text.
func read(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return string(b), err
}
