package cpu

import "unsafe"

// The nearest cache keeps lines whose addresses agree in the low 12 bits in the same few places. Rows a
// multiple of that apart, such as those of 1024 columns, would push each other out while a tile
// goes along them.
const (
	cacheWay  = 4096 // bytes
	cacheWays = 8
)

// spreads reports whether a tile over so many rows, that many bytes apart, is better off with a copy
// whose rows lie apart otherwise.
func spreads(rows, row int) bool { return row%cacheWay == 0 && rows > cacheWays }

// spreadStride is the elements from one row of such a copy to the next.
func spreadStride(k int) int {
	s := (k+15)&^15 + 16
	if 4*s%cacheWay == 0 {
		s += 16
	}
	return s
}

// spreadSize is the elements that a copy takes.
func spreadSize(rows, k int) int { return rows * spreadStride(k) }

// spread copies k elements of each of rows rows, row bytes apart, into space, and returns the copy's
// address and the bytes from one of its rows to the next.
func spread(space []float32, x unsafe.Pointer, rows, row, k int) (unsafe.Pointer, int) {
	stride := spreadStride(k)
	for i := range rows {
		copy(space[i*stride:][:k], unsafe.Slice((*float32)(unsafe.Add(x, i*row)), k))
	}
	return unsafe.Pointer(&space[0]), 4 * stride
}
