//go:build nvgpu

package gorgonia

import (
	"unsafe"

	"gorgonia.org/cu"
)

func (d *device) Alloc(bytes int) (uint64, error) {
	at, err := cu.MemAlloc(int64(bytes))
	return uint64(at), failed("cuMemAlloc", err)
}

func (d *device) Free(at uint64) error { return failed("cuMemFree", cu.MemFree(cu.DevicePtr(at))) }

func (d *device) AllocAsync(int) (uint64, error) { return 0, lacks("stream-ordered memory") }
func (d *device) FreeAsync(uint64) error         { return lacks("stream-ordered memory") }

func (d *device) MemInfo() (free, total int, err error) {
	f, t, err := cu.MemInfo()
	return int(f), int(t), failed("cuMemGetInfo", err)
}

// Pin returns ordinary memory. The driver copies from it before Upload returns, and to it before Sync does.
func (d *device) Pin(bytes int) ([]byte, error) { return make([]byte, bytes), nil }
func (d *device) Unpin([]byte) error            { return nil }

func (d *device) Upload(to uint64, from []byte) error {
	return failed("cuMemcpyHtoDAsync", cu.MemcpyHtoDAsync(cu.DevicePtr(to), unsafe.Pointer(unsafe.SliceData(from)), int64(len(from)), d.stream))
}

func (d *device) Download(to []byte, from uint64) error {
	return failed("cuMemcpyDtoHAsync", cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(to)), cu.DevicePtr(from), int64(len(to)), d.stream))
}

func (d *device) Copy(to, from uint64, bytes int) error {
	return failed("cuMemcpyDtoDAsync", cu.MemcpyDtoDAsync(cu.DevicePtr(to), cu.DevicePtr(from), int64(bytes), d.stream))
}

func (d *device) Set(at uint64, v byte, bytes int) error {
	return failed("cuMemsetD8Async", cu.MemsetD8Async(cu.DevicePtr(at), v, int64(bytes), d.stream))
}
