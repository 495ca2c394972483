package main

// A blocked is a type of weights in blocks: see kernels/cpu/blocks.go for how panels hold them. Its integers are taken
// apart into nibbles, of which eight products with an int8 fit 16 bits, or taken as int8, of which two do.
type blocked struct {
	name    string
	quants  int  // bytes of a block of 32 lanes before the scales
	nibbles bool // two to a byte
	offset  int  // what is taken off each integer
	minimum bool // there is a line of them after the scales, and no offset
}

var blockTypes = []blocked{
	{name: "Q8", quants: 1024, offset: 128},
	{name: "Q40", quants: 512, nibbles: true, offset: 8},
	{name: "Q41", quants: 512, nibbles: true, minimum: true},
}

// size is the bytes of a block of 32 lanes.
func (b blocked) size() int {
	if b.minimum {
		return b.quants + 128
	}
	return b.quants + 64
}

// Lanes are computed eight at a time: partBytes of the 128 that four inputs take.
const (
	partBytes  = 32
	groupBytes = 128
	groups     = 8 // of four inputs
	recordSize = 48
)
