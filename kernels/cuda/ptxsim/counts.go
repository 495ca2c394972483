package ptxsim

import (
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// Counts are what one launch did, counted instruction by instruction (see Options.Count). They are facts of the PTX and
// of the addresses it used: a GPU's machine code has other instructions, but the same accesses and the same products.
// Caches are not modelled: what memory moves lies between Distinct, as if they held everything, and Bytes, as if nothing.
type Counts struct {
	Kernel        string
	Launch        driver.Launch
	Blocks        int          // that were run, and are counted
	Issued        [classes]int // instructions of warps; those that wait and look again are counted each time
	Lanes         [classes]int // the threads that they were for
	Flops         int          // f32 operations of threads: a fused multiply-add is two
	Read, Written Traffic      // of global memory, by whatever moved it
	Tiles         Tiles        // copies by tensor maps, also in the traffic
	Shared        Waves        // accesses of shared memory by threads
	Products      Products     // of matrices
	Barriers      int          // warps that come to a barrier of the block, threads that arrive at an mbarrier
}

// Traffic is bytes of global memory.
type Traffic struct {
	Requests int // instructions of warps, copies of tiles
	Useful   int // that were asked for, within a request each once
	Bytes    int // of the sectors of 32 that they are in
	Distinct int // of the sectors that the launch touched, each once
}

// Tiles are copies of boxes between global and shared memory.
type Tiles struct {
	Copies int
	Bytes  int // of the boxes, with what is outside the tensor
	Sent   int // of them to blocks beyond the first, by multicast: the traffic has them once
}

// Waves are accesses of shared memory's 32 banks of 4 bytes. A warp's access takes at least a wave for each 128 bytes
// that its lanes in order ask for; a bank serves one word a wave. Those beyond the least are conflicts.
type Waves struct {
	Least, Conflicts int
}

// Products are matrix instructions: those of a warp (mma.sync), and of a warpgroup (wgmma).
type Products struct {
	Warp, Group int
	Flops       int   // a multiply-add is two
	Bytes       int   // of shared memory that wgmma reads, B once a warpgroup
	Operands    Waves // of those bytes: eight pieces of 16 that stand side by side in a matrix are a wave
}

// A Class is what kind of work an instruction is.
type Class uint8

const (
	Integer  Class = iota // and logic, addresses, comparisons
	Float                 // f32, and rarely f64
	Special               // the unit for roots, reciprocals and the like
	Move                  // registers, parameters, conversions
	Control               // branches
	Exchange              // among a warp's lanes
	Global                // ld, st, atom of global memory
	Shared                // of shared memory, ldmatrix and stmatrix too
	Copy                  // asynchronous copies and their groups
	Matrix                // products
	Barrier               // of a block, mbarriers, fences
	classes  = iota
)

// Classes are all of them.
var Classes = func() (all []Class) {
	for c := range Class(classes) {
		all = append(all, c)
	}
	return all
}()

func (c Class) String() string {
	return [...]string{"integer", "float", "special", "move", "control", "exchange", "global", "shared", "copy", "matrix", "barrier"}[c]
}

// classOf sorts an opcode with its modifiers.
func classOf(op string) Class {
	name, mods, _ := strings.Cut(op, ".")
	floating := strings.HasSuffix(op, "f32") || strings.HasSuffix(op, "f64")
	switch name {
	case "bra", "ret", "exit", "trap", "nanosleep", "griddepcontrol", "setmaxnreg":
		return Control
	case "shfl", "vote", "match", "activemask", "redux", "elect":
		return Exchange
	case "bar", "barrier", "mbarrier", "fence", "membar":
		return Barrier
	case "cp":
		return Copy
	case "mma":
		return Matrix
	case "wgmma":
		if strings.Contains(mods, "mma_async") {
			return Matrix
		}
		return Barrier
	case "ldmatrix", "stmatrix":
		return Shared
	case "ld", "ldu", "st", "atom", "red", "prefetch", "prefetchu":
		switch {
		case strings.Contains(mods, "param"):
			return Move
		case strings.Contains(mods, "shared"):
			return Shared
		}
		return Global
	case "mov", "cvta", "mapa", "cvt", "selp":
		return Move
	case "sqrt", "rsqrt", "rcp", "ex2", "lg2", "sin", "cos", "tanh":
		return Special
	case "div":
		if floating {
			return Special
		}
	}
	if floating {
		return Float
	}
	return Integer
}

// flopsOf is a thread's f32 operations in an instruction.
func flopsOf(op string) int {
	if !strings.HasSuffix(op, "f32") {
		return 0
	}
	switch name, _, _ := strings.Cut(op, "."); name {
	case "fma", "mad":
		return 2
	case "add", "sub", "mul", "div", "min", "max", "sqrt", "rcp":
		return 1
	}
	return 0
}
