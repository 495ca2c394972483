package predict

import "math"

// A GPU is what one can do at most.
type GPU struct {
	Name            string
	Multiprocessors int
	Clock           float64 // Hz
	Memory          float64 // bytes a second, as a copy reaches
	L2              float64 // bytes a second between it and all multiprocessors
	Port            float64 // bytes a clock between it and one
	Matrix          float64 // operations a clock of a multiprocessor, by wgmma on bf16
	Warp            float64 // the share of that which mma.sync reaches
	Launch          float64 // seconds between the launches of a graph
	Peak            float64 // bytes a second, of the datasheet
	Size            float64 // bytes of memory
}

// H100 is the SXM version. Of NVIDIA's datasheet and its paper on the architecture: 132 multiprocessors at 1.83 GHz, 3.35 TB/s,
// 989.4 TFLOP/s of dense bf16 (4,096 a clock each), 128 lanes of f32 and four instructions of warps a clock each, 32 banks
// of 4 bytes a clock, 64 bytes a clock to the L2 cache, 80 GB. Measured by others: a copy within the device moves 3.0 to 3.1 TB/s; the
// L2 cache gives 5.5 to 5.7 TB/s on the PCIe version (Chips and Cheese 2023); mma.sync reaches 62.9 % of wgmma's rate (Luo et al.
// 2024, arXiv 2402.13499); 1.3 µs pass between the launches of a graph (Spector and others 2025, "Look Ma, No Bubbles").
var H100 = GPU{Name: "H100 SXM", Multiprocessors: 132, Clock: 1.83e9, Memory: 3.05e12, L2: 5.6e12, Port: 64, Matrix: 4096, Warp: 0.629,
	Launch: 1.3e-6, Peak: 3.35e12, Size: 80e9}

// Rate is the operations a second of all matrix units.
func (g *GPU) Rate() float64 { return float64(g.Multiprocessors) * g.Clock * g.Matrix }

// The resources that a launch can wait for.
var resources = [...]string{"memory", "L2", "matrix units", "instructions", "shared memory"}

// Time is how long a launch takes if it makes use of each resource all the time it needs it, and which one that is. Where there are
// fewer blocks than multiprocessors, or fewer warps than schedulers, those that have none do nothing.
func (g *GPU) Time(c Cost) (seconds float64, by string) {
	busy := min(float64(c.Blocks), float64(g.Multiprocessors))
	waves := math.Ceil(float64(c.Blocks)/float64(g.Multiprocessors)) * float64(g.Multiprocessors) / float64(c.Blocks)
	if c.Threads < 384 || c.Blocks <= g.Multiprocessors { // several fit beside each other, and even out
		waves = 1
	}
	warps := min(float64(c.Blocks*((c.Threads+31)/32)), float64(4*g.Multiprocessors))
	each := [...]float64{
		c.Memory / g.Memory,
		max(c.Moved/g.L2, (c.Moved+c.Sent)/(busy*g.Port*g.Clock)),
		waves * (c.Group/g.Matrix + c.Warp/(g.Matrix*g.Warp)) / (busy * g.Clock),
		c.Issued / (warps * g.Clock),
		c.Waves / (busy * g.Clock),
	}
	best := 0
	for i, t := range each {
		if t > each[best] {
			best = i
		}
	}
	return each[best], resources[best]
}
