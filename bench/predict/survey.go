package predict

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda"
	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// A Cost is what a launch needs of a GPU.
type Cost struct {
	Kernel          string
	Blocks, Threads int
	Memory          float64 // bytes that must come from or go to memory, if the L2 cache keeps what comes again
	Moved           float64 // bytes between the multiprocessors and the L2 cache, in sectors
	Sent            float64 // bytes that come to further blocks of a cluster with those of the first
	Useful          float64 // of what is moved: that threads and tiles ask for
	Group, Warp     float64 // operations of products by wgmma, by mma.sync
	Flops           float64 // f32 operations of threads
	Issued          float64 // instructions of warps
	Waves           float64 // of shared memory, those of the products' operands too
	Conflicts       float64 // of them beyond the least
	Operands        float64 // bytes of shared memory that wgmma reads
	Barriers        float64
}

// A Survey counts what operations cost on a device of compute capability 9.0.
type Survey struct {
	dev    *cuda.Device
	sim    *ptxsim.Device
	counts []ptxsim.Counts
	known  map[Call][]Cost
	fuses  map[Call]bool
	Stored k.DType // what products' weights are stored as: bf16, unless it is set before anything is counted

	multiprocessors int
	acts            k.DType
	zeros           []byte
}

// share takes over what another survey knows of operations that take activations as they are.
func (s *Survey) share(other *Survey) {
	for c, costs := range other.known {
		if !slices.Contains([]string{"Linear", "LinearGrad", "Fused", "Score", "ScoreGrad", "Attention", "AttentionGrad"}, c.Op) {
			s.known[c] = costs
		}
	}
}

// Know counts calls, as many at a time as there are processors, each on a device of its own.
func (s *Survey) Know(calls []Call) error {
	var all sync.WaitGroup
	var busy sync.Mutex
	var failed error
	next := make(chan Call)
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			one, err := NewSurvey(s.multiprocessors, s.acts)
			for c := range next {
				var costs []Cost
				if err == nil {
					costs, err = one.Costs(c)
				}
				busy.Lock()
				s.known[c], failed = costs, errors.Join(failed, err)
				busy.Unlock()
			}
		})
	}
	for _, c := range calls {
		busy.Lock()
		_, known := s.known[c]
		busy.Unlock()
		if !known {
			next <- c
		}
	}
	close(next)
	all.Wait()
	return failed
}

// NewSurvey returns one of a GPU with so many multiprocessors, whose products take activations as acts.
func NewSurvey(multiprocessors int, acts k.DType) (*Survey, error) {
	s := &Survey{known: map[Call][]Cost{}, fuses: map[Call]bool{}, Stored: k.BF16, multiprocessors: multiprocessors, acts: acts}
	s.sim = ptxsim.New(ptxsim.Options{Survey: true, Multiprocessors: multiprocessors, Count: func(c ptxsim.Counts) { s.counts = append(s.counts, c) }})
	var err error
	s.dev, err = cuda.On(s.sim, cuda.Options{Activations: acts})
	return s, err
}

// Costs are those of the launches of a call.
func (s *Survey) Costs(c Call) ([]Cost, error) {
	if all, ok := s.known[c]; ok {
		return all, nil
	}
	of, ok := operations[c.Op]
	if !ok {
		return nil, fmt.Errorf("predict: there is no way to play %s", c.Op)
	}
	o := &operands{s: s}
	s.sim.Survey(0)
	run := of.play(o, c.Dims)
	err := errors.Join(o.err, s.dev.Sync())
	s.counts = s.counts[:0]
	if err == nil {
		s.sim.Survey(of.blocks(c.Dims))
		run()
		err = s.dev.Sync()
	}
	o.free()
	if err != nil {
		return nil, fmt.Errorf("predict: %s of %v: %w", c.Op, c.Dims, err)
	}
	var all []Cost
	for _, n := range s.counts {
		cost := costOf(n)
		if of.least != nil {
			cost.Memory = min(cost.Memory, of.least(c.Dims))
		}
		all = append(all, cost)
	}
	s.known[c] = all
	return all, nil
}

// ends reports whether the device can end a product as a call of Fused asks.
func (s *Survey) ends(c Call) bool {
	able, known := s.fuses[c]
	if !known {
		o := &operands{s: s}
		s.sim.Survey(0)
		fused := playFused(o, c.Dims)
		s.sim.Survey(1)
		able = fused()
		o.free()
		s.fuses[c] = able
	}
	return able
}

// costOf extends what was counted of some blocks to all of the launch.
func costOf(n ptxsim.Counts) Cost {
	g, b := n.Launch.Grid, n.Launch.Block
	blocks := g.X * g.Y * g.Z
	scale := float64(blocks) / float64(n.Blocks)
	by := func(x int) float64 { return scale * float64(x) }
	issued := 0
	for _, x := range n.Issued {
		issued += x
	}
	products := float64(2 * 16 * 8 * 16 * n.Products.Warp)
	waves := n.Shared.Least + n.Shared.Conflicts + n.Products.Operands.Least + n.Products.Operands.Conflicts
	return Cost{Kernel: n.Kernel, Blocks: blocks, Threads: b.X * b.Y * b.Z, Memory: by(n.Read.Distinct + n.Written.Distinct),
		Moved: by(n.Read.Bytes + n.Written.Bytes), Sent: by(n.Tiles.Sent), Useful: by(n.Read.Useful + n.Written.Useful), Warp: scale * products,
		Group: scale * (float64(n.Products.Flops) - products), Flops: by(n.Flops), Issued: by(issued), Waves: by(waves),
		Conflicts: by(n.Shared.Conflicts + n.Products.Operands.Conflicts), Operands: by(n.Products.Bytes), Barriers: by(n.Barriers)}
}

// operands makes an operation's. err is the first failure.
type operands struct {
	s       *Survey
	err     error
	tensors []k.Tensor
	weights []k.Weight
}

func (o *operands) check(err error) { o.err = errors.Join(o.err, err) }

func (o *operands) free() {
	for _, t := range o.tensors {
		o.s.dev.Free(t)
	}
	for _, w := range o.weights {
		o.s.dev.Unload(w)
	}
}

func (o *operands) floats(rows, cols int) k.Tensor { return o.tensor(k.F32, rows, cols) }

func (o *operands) tensor(t k.DType, rows, cols int) k.Tensor {
	x := o.s.dev.New(t, rows, cols)
	o.tensors = append(o.tensors, x)
	return x
}

// numbers is a tensor of rows × cols numbers by their place.
func (o *operands) numbers(rows, cols int, f func(i int) int) k.Tensor {
	x := o.tensor(k.I32, rows, cols)
	raw := make([]byte, 0, 4*rows*cols)
	for i := range rows * cols {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(f(i)))
	}
	o.s.dev.Write(x, raw)
	return x
}

func (o *operands) each(n int) k.Tensor { return o.numbers(n, 1, func(i int) int { return i }) }

// weight is a frozen weight of outputs × inputs.
func (o *operands) weight(out, in int) k.Weight {
	n := o.s.Stored.Bytes(out * in)
	if n > len(o.s.zeros) {
		o.s.zeros = make([]byte, n)
	}
	o.check(o.s.dev.Sync())
	o.s.sim.Survey(1) // what packs it need not run
	w := o.s.dev.Load(k.Format{Type: o.s.Stored}, out, in, o.s.zeros[:n])
	o.check(o.s.dev.Sync())
	o.s.sim.Survey(0)
	o.weights = append(o.weights, w)
	return w
}
