package cpu

import "unsafe"

// A block is memory for elements, zeroed and aligned to a cache line. A large one is mapped apart from
// Go's heap, on huge pages where the system has them, and returned to the system by release.
type block struct {
	at     unsafe.Pointer
	mapped []byte // nil: at is on Go's heap, or in
	slab   *slab  // which may be nil
}

const (
	cacheLine = 64
	// Below half a huge page a mapping would waste more than it gains.
	mapFrom = 1 << 20
)

// allocate returns a block of at least n bytes.
func allocate(n int) (block, error) {
	if n < mapFrom {
		return block{at: unsafe.Pointer(unsafe.SliceData(aligned((n + 3) / 4)))}, nil
	}
	return mapBlock(n)
}

// aligned returns n zeros that begin at a cache line.
func aligned(n int) []float32 {
	s := make([]float32, n+cacheLine/4)
	skip := int(-uintptr(unsafe.Pointer(&s[0]))%cacheLine) / 4
	return s[skip : skip+n : skip+n]
}
