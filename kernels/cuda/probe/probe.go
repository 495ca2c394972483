// Package probe asks a device the questions that only hardware can answer: what each wrapper of gpu.h gives on
// random inputs (what a GPU gave becomes data that a simulator of one is tested with), whether a product's bits
// depend on how many columns one instruction has, how fast memory is and the matrix instruction.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptx"
)

const threads = 128

// A Wrapper is a kernel of ptx/probe.cu that applies one wrapper of gpu.h.
type Wrapper struct {
	Name string
	In   string // a letter for each word that a thread takes: see fill
	Out  string // a letter for each word that it gives: f a float32, u bits, d and D the halves of a float64
}

// Wrappers are those of probe.cu.
func Wrappers() []Wrapper {
	return []Wrapper{
		{"arithmetic", "fff", "ffffffffuf"}, {"double_arithmetic", "dDdDdD", "dDdDdDdD"},
		{"warp_sum", "n", "f"}, {"warp_max", "f", "f"}, {"block_sum", "n", "f"},
		{"exp32", "e", "f"}, {"sigmoid", "e", "f"}, {"bf16", "f", "uf"}, {"log64", "pP", "dD"},
		{"copies", "uuuuuuuu", "uuuuuuuu"}, {"bring", "uuuuuuuu", "uuuuuuuu"},
		{"mma16816", "hhhhhhnnnn", "ffff"}, {"load_transposed", "uuuu", "uuuu"}, {"fail", "uu", "uu"},
	}
}

// A Record is what a wrapper gave for some blocks of threads. In and Out are words, each thread's together.
type Record struct {
	Wrapper string
	Blocks  int
	In, Out []byte
}

// Inputs are random words for blocks of a wrapper: the same for the same seed.
func (w Wrapper) Inputs(seed uint64, blocks int) []byte {
	h := fnv.New64a()
	h.Write([]byte(w.Name))
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	var b []byte
	for range blocks * threads {
		for i := 0; i < len(w.In); i++ {
			b = fill(b, w.In[i], rng)
		}
	}
	return b
}

// odd are floats on which implementations differ.
var odd = []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	math.SmallestNonzeroFloat32, -1.5e-39, math.MaxFloat32, 1 << 31, -(1 << 31), 0.5, 1.5, 2.5}

// fill appends the words of a letter: u bits; f a float, one in eight odd; n a normal number; e an exponent of
// exp; h two bf16; d a float64 and p a positive one, of which D and P are the second word.
func fill(b []byte, letter byte, rng *rand.Rand) []byte {
	word := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
	switch letter {
	case 'f':
		if rng.IntN(8) == 0 {
			return word(math.Float32bits(odd[rng.IntN(len(odd))]))
		}
		return word(math.Float32bits(float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(40)-20)))))
	case 'n':
		return word(math.Float32bits(float32(rng.NormFloat64())))
	case 'e':
		if rng.IntN(16) == 0 {
			return word(math.Float32bits(odd[rng.IntN(len(odd))]))
		}
		return word(math.Float32bits(float32(rng.Float64()*240 - 120)))
	case 'h':
		half := func() uint32 { return math.Float32bits(float32(rng.NormFloat64())) >> 16 }
		return word(half() | half()<<16)
	case 'd':
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(rng.NormFloat64()*math.Exp2(float64(rng.IntN(80)-40))))
	case 'p':
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(math.Exp(rng.NormFloat64()*5)))
	case 'D', 'P':
		return b
	}
	return word(rng.Uint32())
}

// Run puts a device through every wrapper.
func Run(d driver.Device, seed uint64, blocks int) ([]Record, error) {
	l, err := load(d)
	if err != nil {
		return nil, err
	}
	defer l.close()
	var all []Record
	for _, w := range Wrappers() {
		r := Record{Wrapper: w.Name, Blocks: blocks, In: w.Inputs(seed, blocks)}
		if r.Out, err = l.apply(w, r.In, blocks); err != nil {
			return nil, fmt.Errorf("%s: %w", w.Name, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// Again puts a device through recorded inputs and says where it gives another output.
func Again(d driver.Device, records []Record) error {
	l, err := load(d)
	if err != nil {
		return err
	}
	defer l.close()
	var wrong []error
	for _, r := range records {
		w, err := wrapperOf(r)
		if err != nil {
			return err
		}
		out, err := l.apply(w, r.In, r.Blocks)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		wrong = append(wrong, w.compare(r, out))
	}
	return errors.Join(wrong...)
}

// wrapperOf is the wrapper that a record is of, once its sizes are right.
func wrapperOf(r Record) (Wrapper, error) {
	for _, w := range Wrappers() {
		if w.Name != r.Wrapper {
			continue
		}
		if n := 4 * threads * r.Blocks; r.Blocks < 1 || len(r.In) != n*len(w.In) || len(r.Out) != n*len(w.Out) {
			return w, fmt.Errorf("the record of %s has %d and %d bytes for %d blocks", w.Name, len(r.In), len(r.Out), r.Blocks)
		}
		return w, nil
	}
	return Wrapper{}, fmt.Errorf("there is no wrapper %q", r.Wrapper)
}

// compare says how out differs from a record: by its bits, but that one NaN is as good as another.
func (w Wrapper) compare(r Record, out []byte) error {
	wrong, first := 0, ""
	for i := 0; i < len(out); i += 4 {
		a, b := binary.LittleEndian.Uint32(r.Out[i:]), binary.LittleEndian.Uint32(out[i:])
		same := a == b
		switch word := i / 4; w.Out[word%len(w.Out)] {
		case 'f':
			same = same || nan32(a) && nan32(b)
		case 'd':
			same = same || nan64(r.Out[i:]) && nan64(out[i:])
		case 'D':
			same = same || nan64(r.Out[i-4:]) && nan64(out[i-4:])
		}
		if !same {
			if wrong++; first == "" {
				at := i / 4 / len(w.Out)
				first = fmt.Sprintf("thread %d of block %d, word %d: %#08x, recorded %#08x, for % x", at%threads, at/threads, i/4%len(w.Out), b, a,
					r.In[4*at*len(w.In):4*(at+1)*len(w.In)])
			}
		}
	}
	if wrong == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d words differ; first %s", w.Name, wrong, len(out)/4, first)
}

func nan32(v uint32) bool { return v&0x7fffffff > 0x7f800000 }
func nan64(b []byte) bool { return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(b))) }

// A loaded is probe.cu on a device.
type loaded struct {
	driver.Device
	module driver.Module
	fault  uint64
	args   driver.Args
}

func load(d driver.Device) (*loaded, error) {
	if err := d.Bind(); err != nil {
		return nil, err
	}
	m, err := d.Load([]byte(ptx.Text(ptx.Probe)))
	if err != nil {
		return nil, err
	}
	l := &loaded{Device: d, module: m}
	if l.fault, err = d.Alloc(8); err != nil {
		return nil, err
	}
	return l, d.Set(l.fault, 0xff, 8)
}

func (l *loaded) close() { _ = errors.Join(l.Free(l.fault), l.Unload(l.module)) }

// launch starts a kernel of probe.cu.
func (l *loaded) launch(name string, blocks, threads int, args ...uint64) error {
	f, err := l.Function(l.module, name)
	if err != nil {
		return err
	}
	l.args.Reset()
	l.args.Add(args...).Add(l.fault, 0)
	return l.Launch(f, driver.Launch{Grid: driver.Dim{X: blocks, Y: 1, Z: 1}, Block: driver.Dim{X: threads, Y: 1, Z: 1}}, &l.args)
}

// apply runs a wrapper.
func (l *loaded) apply(w Wrapper, in []byte, blocks int) ([]byte, error) {
	out := make([]byte, 4*threads*blocks*len(w.Out))
	from, err := l.Alloc(len(in))
	if err != nil {
		return nil, err
	}
	defer l.Free(from)
	to, err := l.Alloc(len(out))
	if err != nil {
		return nil, err
	}
	defer l.Free(to)
	if err := errors.Join(l.Upload(from, in), l.Set(to, 0xff, len(out)), l.launch("probe_"+w.Name, blocks, threads, from, to), l.Download(out, to)); err != nil {
		return nil, err
	}
	return out, l.Sync()
}
