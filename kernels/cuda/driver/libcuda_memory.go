package driver

import (
	"runtime"
	"unsafe"
)

func (g *libcuda) Alloc(bytes int) (at uint64, err error) {
	err = g.call("cuMemAlloc_v2", uintptr(unsafe.Pointer(&at)), uintptr(bytes))
	return at, err
}

func (g *libcuda) Free(at uint64) error { return g.call("cuMemFree_v2", uintptr(at)) }

func (g *libcuda) AllocAsync(bytes int) (at uint64, err error) {
	err = g.call("cuMemAllocAsync", uintptr(unsafe.Pointer(&at)), uintptr(bytes), g.stream)
	return at, err
}

func (g *libcuda) FreeAsync(at uint64) error { return g.call("cuMemFreeAsync", uintptr(at), g.stream) }

func (g *libcuda) MemInfo() (free, total int, err error) {
	err = g.call("cuMemGetInfo_v2", uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return free, total, err
}

func (g *libcuda) Pin(bytes int) ([]byte, error) {
	var at *byte
	if err := g.call("cuMemHostAlloc", uintptr(unsafe.Pointer(&at)), uintptr(bytes), 0); err != nil {
		return nil, err
	}
	return unsafe.Slice(at, bytes), nil
}

func (g *libcuda) Unpin(b []byte) error {
	return g.call("cuMemFreeHost", uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

func (g *libcuda) Upload(to uint64, from []byte) error {
	err := g.step("cuMemcpyHtoDAsync_v2", g.uploader, uintptr(to), uintptr(unsafe.Pointer(unsafe.SliceData(from))), uintptr(len(from)), g.stream)
	runtime.KeepAlive(from)
	return err
}

func (g *libcuda) Download(to []byte, from uint64) error {
	err := g.step("cuMemcpyDtoHAsync_v2", g.downloader, uintptr(unsafe.Pointer(unsafe.SliceData(to))), uintptr(from), uintptr(len(to)), g.stream)
	runtime.KeepAlive(to)
	return err
}

func (g *libcuda) Copy(to, from uint64, bytes int) error {
	return g.call("cuMemcpyDtoDAsync_v2", uintptr(to), uintptr(from), uintptr(bytes), g.stream)
}

func (g *libcuda) Set(at uint64, v byte, bytes int) error {
	return g.call("cuMemsetD8Async", uintptr(at), uintptr(v), uintptr(bytes), g.stream)
}
