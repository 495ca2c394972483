package cpu

import (
	"fmt"
	"syscall"
	"unsafe"
)

const (
	hugePages    = true
	hugePage     = 2 << 20
	madvHugePage = 14
)

// mapBlock maps n zero bytes that begin at a huge page.
func mapBlock(n int) (block, error) {
	m, err := syscall.Mmap(-1, 0, n+hugePage, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return block{at: unsafe.Pointer(unsafe.SliceData(aligned(0)))}, fmt.Errorf("map %d bytes: %w", n, err)
	}
	skip := int(-uintptr(unsafe.Pointer(&m[0])) % hugePage)
	_ = syscall.Madvise(m[skip:skip+n], madvHugePage) // small pages are slower and as good
	return block{at: unsafe.Pointer(&m[skip]), mapped: m}, nil
}

// release returns the memory. Nothing may point to it any more.
func (b *block) release() {
	switch {
	case b.slab != nil:
		b.slab.leave()
	case b.mapped != nil:
		_ = syscall.Munmap(b.mapped) // fails only for what Mmap did not return
	}
	*b = block{}
}
