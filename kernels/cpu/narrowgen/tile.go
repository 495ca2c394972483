package main

// tileRows is the most rows of a narrow tile: six rows of 16 lanes leave registers for the line.
const tileRows = 6

var (
	// tileKinds are what lines hold: f32, or bf16 of which the low or the high half of four bytes counts.
	tileKinds = []string{"F32", "Low", "High"}
	// tileLanes are the widths a panel is cut into.
	tileLanes = []int{16, 4, 1}
)
