//go:build !linux

package cpu

import "unsafe"

const hugePages = false

func mapBlock(n int) (block, error) {
	return block{at: unsafe.Pointer(unsafe.SliceData(aligned((n + 3) / 4)))}, nil
}

// release lets the garbage collector have the memory.
func (b *block) release() { *b = block{} }
