package cuda

import (
	"fmt"
	"math"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// An opcode names an operation in a failure that a kernel leaves.
type opcode uint8

const (
	opFill opcode = iota
	opCopy
	opEmbed
	opGather
	opScatter
	opRMSNorm
	opRoPE
	opLinear
	opMatMul
	opAttention
	opSwiGLU
	opAdd
	opLogProb
	opEntropy
	opSample
	opRMSNormGrad
	opLinearGrad
	opAttentionGrad
	opSwiGLUGrad
	opLogProbGrad
	opSumRows
	opScatterAdd
	opSumSquares
	opAdamW
	opLoad
	opWrite
	opRead
	opScore
	opScoreGrad
	opRoPEStore
)

var opNames = [...]string{"Fill", "Copy", "Embed", "Gather", "Scatter", "RMSNorm", "RoPE", "Linear", "MatMul", "Attention", "SwiGLU",
	"Add", "LogProb", "Entropy", "Sample", "RMSNormGrad", "LinearGrad", "AttentionGrad", "SwiGLUGrad", "LogProbGrad", "SumRows",
	"ScatterAdd", "SumSquares", "AdamW", "Load", "Write", "Read", "Score", "ScoreGrad", "RoPEStore"}

func (o opcode) String() string { return opNames[o] }

// reasons are gpu.h's, by their numbers.
var reasons = [...]string{1: "an index is outside its table", 2: "the log-sum-exp of the logits is not finite",
	3: "the mask forbids the id", 4: "the sequence's rows and length do not fit the tensors",
	5: "the sequence has more query rows than MaxQueries", 6: "a page of the sequence is outside the keys"}

// explain is the failure that a kernel left: tag, row and reason, as gpu.h packs them.
func explain(word uint64) error {
	op, row, why := opcode(word>>40&0xff), int32(word>>8), int(word&0xff)
	if int(op) >= len(opNames) || why < 1 || why >= len(reasons) {
		return fmt.Errorf("cuda: a failure that no kernel leaves: %#x", word)
	}
	return fmt.Errorf("cuda: %v: row %d: %s", op, row, reasons[why])
}

// mostBlocks is the largest second dimension of a grid; mostFlat keeps column numbers within 31 bits.
const (
	mostBlocks = 65535
	mostFlat   = 1<<31 - 1<<20
)

// A grid is the blocks of a launch. One without blocks is not launched.
type grid driver.Dim

func line(x int) grid       { return grid{X: x, Y: 1, Z: 1} }
func plane(x, y int) grid   { return grid{X: x, Y: y, Z: 1} }
func cube(x, y, z int) grid { return grid{X: x, Y: y, Z: z} }

// A call gathers the arguments of one launch, in the order of the kernel's parameters.
type call struct {
	d      *Device
	kernel *kernel
	op     opcode
	args   driver.Args
	kinds  []byte // a letter each, as ptx.Entry's
	shapes shapes
	bytes  int // of dynamic shared memory
	of     sharing
	skip   bool // an earlier failure: the operation does nothing
}

// op begins a launch of a kernel as a part of an operation. There is one call at a time, and it is reused.
func (d *Device) op(op opcode, name string) *call {
	c := &d.call
	c.d, c.op, c.kinds, c.bytes, c.of = d, op, c.kinds[:0], 0, alone
	c.args.Reset()
	c.shapes.n = 0
	c.skip = d.err != nil
	if c.kernel = d.kernels[name]; c.kernel == nil {
		panic("cuda: there is no kernel " + name)
	}
	return c
}

func (c *call) put(kind byte, v uint64) *call {
	c.args.Add(v)
	c.kinds = append(c.kinds, kind)
	return c
}

func (c *call) address(at uint64) *call { return c.put('P', at) }

func (c *call) ints(vs ...int) *call {
	for _, v := range vs {
		if int(int32(v)) != v {
			panic(fmt.Sprintf("cuda: %v: a size of %d is more than kernels count", c.op, v))
		}
		c.put('I', uint64(uint32(int32(v))))
	}
	return c
}

func (c *call) float(vs ...float32) *call {
	for _, v := range vs {
		c.put('F', uint64(math.Float32bits(v)))
	}
	return c
}

// start puts where t begins, or 0 where there is none.
func (c *call) start(t k.Tensor) *call {
	if t.Zero() || c.skip {
		return c.address(0)
	}
	c.shapes.add(t.Rows, t.Cols)
	return c.address(c.d.at(c.op.String(), t))
}

// in and out put where t begins, and its stride.
func (c *call) in(t k.Tensor) *call  { return c.start(t).ints(t.Stride) }
func (c *call) out(t k.Tensor) *call { return c.in(t) }

// row puts where a tensor of one row, or none, begins.
func (c *call) row(t k.Tensor) *call { return c.start(t) }

func (c *call) weight(w k.Weight) *call {
	if c.skip {
		return c.address(0)
	}
	c.shapes.add(w.Rows, w.Cols)
	return c.address(c.d.memoryOf(c.op.String(), ofWeight(w)).at)
}

// shared asks for dynamic shared memory.
func (c *call) shared(bytes int) *call {
	c.bytes = bytes
	return c
}

// together makes clusters of the blocks.
func (c *call) together(s sharing) *call {
	c.of = s
	return c
}

// run launches blocks of so many threads.
func (c *call) run(g grid, threads int) {
	c.address(c.d.fault).ints(c.d.tag(c.op))
	if string(c.kinds) != c.kernel.params {
		panic(fmt.Sprintf("cuda: %s takes %s and was given %s", c.kernel.name, c.kernel.params, c.kinds))
	}
	if c.skip || c.d.dry || g.X == 0 || g.Y == 0 || g.Z == 0 {
		return
	}
	c.d.send()
	now := launched{c.op, c.kernel.name, c.shapes, g, threads}
	c.d.remember(now)
	err := c.d.launch(c.kernel, g, c.of.cluster(), threads, c.bytes, &c.args)
	if err == nil && c.d.careful && !c.d.recording {
		err = c.d.gpu.Sync()
	}
	if err != nil {
		c.d.fail(fmt.Errorf("cuda: %v: %w", now, err))
	}
}

// shapes are those of the first tensors and weights of a launch.
type shapes struct {
	of [8][2]int
	n  int
}

func (s *shapes) add(rows, cols int) {
	if s.n < len(s.of) {
		s.of[s.n] = [2]int{rows, cols}
		s.n++
	}
}

// A launched kernel, for the message of a fault that shows later.
type launched struct {
	op      opcode
	kernel  string
	shapes  shapes
	grid    grid
	threads int
}

func (l launched) String() string {
	s := l.op.String()
	for i, x := range l.shapes.of[:l.shapes.n] {
		s += fmt.Sprintf("%s%d x %d", map[bool]string{true: " of ", false: ", "}[i == 0], x[0], x[1])
	}
	return fmt.Sprintf("%s (%s, %d × %d × %d blocks of %d)", s, l.kernel, l.grid.X, l.grid.Y, l.grid.Z, l.threads)
}

func (d *Device) remember(l launched) {
	d.recent[d.launches%len(d.recent)] = l
	d.launches++
}

// suspects are the last launches since the device was last known to be well, latest first.
func (d *Device) suspects() string {
	text := ""
	for i := d.launches - 1; i >= max(0, d.launches-len(d.recent)); i-- {
		text += fmt.Sprintf("; %v", d.recent[i%len(d.recent)])
	}
	if text == "" {
		return ""
	}
	return " (the last launches, latest first" + text + "; R2_DEBUG=3 in the environment finds which)"
}
