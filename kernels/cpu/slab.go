package cpu

import (
	"sync"
	"unsafe"
)

const (
	slabBytes = 32 << 20
	slabFrom  = 64 << 10 // smaller blocks are left to Go's heap

	slabTensors = 256 << 10 // of tensors: an adapter's, which come and go, are mostly smaller
)

// slabs packs blocks that are too small for huge pages of their own (a matrix of a small model, say) into
// mappings of slabBytes: a step that reads all of them waits less for addresses to be translated.
type slabs struct {
	mu   sync.Mutex
	open *slab // the one that has room, or nil
}

// A slab is a mapping that goes back to the system when its last block is released.
type slab struct {
	of         *slabs
	mem        block
	used, live int // bytes given out, blocks not released
}

// allocate returns a block of at least n zero bytes.
func (s *slabs) allocate(n int) (block, error) {
	if !hugePages || n < slabFrom || n > slabBytes/4 {
		return allocate(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil || s.open.used+n > slabBytes {
		mem, err := mapBlock(slabBytes)
		if err != nil {
			return mem, err
		}
		s.open = &slab{of: s, mem: mem}
	}
	b := block{at: unsafe.Add(s.open.mem.at, s.open.used), slab: s.open}
	s.open.used += ceilDiv(n, cacheLine) * cacheLine
	s.open.live++
	return b, nil
}

// place returns the memory of a tensor of n bytes. The keys of a layer, say, may be too few for huge pages of their own.
func (d *Device) place(n int) (block, error) {
	if n < slabTensors {
		return allocate(n)
	}
	return d.slabs.allocate(n)
}

// leave takes a block out of the count.
func (s *slab) leave() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.live--; s.live > 0 {
		return
	}
	if s.of.open == s {
		s.of.open = nil
	}
	s.mem.release()
}
