// Package cuda is the Backend of an NVIDIA GPU (sm_80 and later), or of the simulator that runs the same
// kernels: each operation is a launch or two on one stream, shapes to grid to arguments. Compute capability 9.0
// has its own products with such a weight (ptx/linear90.cu, ptx/gradient90.cu, ptx/quant90.cu) and its own attention, forward and backward, for
// heads of up to 128 columns (ptx/attention90.cu, ptx/attentiongrad90.cu); the name of another device says that it runs the kernels of sm_80.
//
// Tensors are f32 in memory. A product with a bf16 weight, or one in blocks of 32 integers of eight bits (ptx/quant.h), runs on the
// matrix units: its activations are split into bf16 pieces, three of which add up to the f32 value (see ptx/linear.cu and Options); f32 weights, f16
// weights (kept as f32) and trained matrices are multiplied in f32. What a kernel finds wrong it leaves in
// a word of device memory; the operations after it do nothing, and Read or Sync reports it.
package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/ptx"
)

// A Device is one GPU.
type Device struct {
	busy    sync.Mutex // held between Attach and Detach
	gpu     driver.Device
	name    string
	kernels map[string]*kernel
	call    call
	err     error  // the first failure since the last Read or Sync
	lost    error  // the failure after which the device does nothing more
	count   uint16 // of launches: it tells operations apart in the fault word

	recent   [4]launched
	launches int  // since the last Sync
	careful  bool // each launch is waited for, so that a fault is told where it happens

	fault   uint64 // the address of the fault word
	scratch memory
	scores  memory // scratch memory of Score and ScoreGrad, which use scratch too
	part    memory // some rows of a weight
	list    []byte // of tensors, as many.cu reads it
	post    post
	later   later

	unpacked memory // some rows of a weight in blocks, as bf16 numbers: scratch memory of LinearGrad

	mostShared int  // bytes of shared memory that a block can have
	pieces     int  // bf16 numbers an activation is split into
	hopper     bool // it has sm_90a's instructions, and products are theirs
	processors int
	clusters   [mostShare + 1]int // that there is room for, by their blocks
	meetings   uint64             // where parts of tiles are counted: see linear90.cu
	maps       map[tiling]driver.TensorMap
	naive      bool // every operation by its first version
	recording  bool // of a graph
	recorded   bool // there has been a graph
	dry        bool // nothing is launched: scratch grows to what will be asked for
}

var (
	_ k.Backend    = (*Device)(nil)
	_ k.Capturer   = (*Device)(nil)
	_ k.BothReader = (*Device)(nil)
	_ k.Deferrer   = (*Device)(nil)
	_ k.Storer     = (*Device)(nil)
	_ k.Scorer     = (*Device)(nil)
	_ k.Grouper    = (*Device)(nil)
)

// A kernel is a loaded one.
type kernel struct {
	name   string
	params string // as ptx.Entry's
	at     driver.Function
	shared int // dynamic shared memory that it has been allowed
}

// Options are what can be chosen of a device.
type Options struct {
	// Activations is what a product with a bf16 weight takes its activations as: F32, exactly, as three
	// bf16 numbers; or BF16, rounded, for a third of the matrix instructions. Sums are f32 in both. Attention of
	// compute capability 9.0 takes queries, keys, values and weights of keys so too, for a sixth of them.
	Activations k.DType
}

// Open opens a GPU by its number, from 0.
func Open(index int, o Options) (*Device, error) {
	gpu, err := driver.Open(index)
	if err != nil {
		return nil, fmt.Errorf("cuda:%d: %w", index, err)
	}
	d, err := On(gpu, o)
	if err != nil {
		return nil, fmt.Errorf("cuda:%d (%s): %w", index, gpu.Name(), errors.Join(err, gpu.Close()))
	}
	return d, nil
}

// On makes a backend of a GPU, or of a simulator of one: its kernels, its fault word, its staging memory.
func On(gpu driver.Device, o Options) (*Device, error) {
	pieces := map[k.DType]int{k.F32: 3, k.BF16: 1}[o.Activations]
	if pieces == 0 {
		return nil, fmt.Errorf("activations are f32 or bf16, not %v", o.Activations)
	}
	d := &Device{gpu: gpu, kernels: map[string]*kernel{}, maps: map[tiling]driver.TensorMap{}, pieces: pieces,
		careful: os.Getenv("R2_DEBUG") >= "3"}
	if err := gpu.Bind(); err != nil {
		return nil, err
	}
	has, err := capability(gpu)
	if err != nil {
		return nil, err
	}
	d.hopper = has == 90 // sm_90a is of this one alone
	d.name = "cuda (" + gpu.Name() + ")"
	if !d.hopper {
		d.name = "cuda (" + gpu.Name() + ", kernels of sm_80)"
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	if d.mostShared, err = gpu.Attribute(driver.MaxSharedPerBlock); err != nil {
		return nil, err
	}
	if d.fault, err = gpu.Alloc(faultBytes); err != nil {
		return nil, fmt.Errorf("no memory at all%s: %w", d.room(), err)
	}
	if d.hopper {
		if err := errors.Join(d.openMeetings(), d.openPlans()); err != nil {
			return nil, err
		}
	}
	if err := d.openPost(); err != nil {
		return nil, err
	}
	d.clearFault()
	return d, d.Sync()
}

// load loads every kernel.
func (d *Device) load() error {
	for _, m := range ptx.Modules() {
		if m == ptx.Probe || ptx.Hopper(m) && !d.hopper {
			continue
		}
		text := ptx.Text(m)
		entries, err := ptx.Entries(text)
		if err != nil {
			return err
		}
		module, err := d.gpu.Load([]byte(text))
		if err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
		for _, e := range entries {
			at, err := d.gpu.Function(module, e.Name)
			if err != nil {
				return fmt.Errorf("load %s: %w", m, err)
			}
			d.kernels[e.Name] = &kernel{name: e.Name, params: e.Params, at: at}
		}
	}
	return nil
}

// Name says which device this is.
func (d *Device) Name() string { return d.name }

// Attach waits until no other goroutine has the device, and binds its context to the calling one's thread.
func (d *Device) Attach() error {
	d.busy.Lock()
	runtime.LockOSThread()
	if err := d.gpu.Bind(); err != nil {
		runtime.UnlockOSThread()
		d.busy.Unlock()
		return err
	}
	return nil
}

// Detach lets the next one have it.
func (d *Device) Detach() {
	runtime.UnlockOSThread()
	d.busy.Unlock()
}

// Close gives back the device. It must not be used after it.
func (d *Device) Close() error { return d.gpu.Close() }

// fail keeps err unless there is one already: the operations after it do nothing.
func (d *Device) fail(err error) {
	if d.err == nil {
		d.send() // what was written before it counts
	}
	if d.err == nil {
		d.err = err
	}
	if d.lost == nil && driver.Fatal(err) {
		d.lost = fmt.Errorf("%w (%w, which must be started again)", err, k.ErrLost)
		d.err = d.lost
	}
}

func (d *Device) check(what string, err error) {
	if err != nil {
		d.fail(fmt.Errorf("cuda: %s: %w", what, err))
	}
}

func (d *Device) clearFault() {
	var raw [faultBytes]byte
	binary.LittleEndian.PutUint64(raw[:], noFault)
	d.upload("clear the fault word", d.fault, raw[:])
}

// tag is the next launch's number and its operation, in 24 bits: see gpu.h.
func (d *Device) tag(op opcode) int {
	d.count++
	return int(d.count)<<8 | int(op)
}

// wait waits for all that is queued.
func (d *Device) wait() {
	if err := d.gpu.Sync(); err != nil {
		d.fail(fmt.Errorf("cuda: the device failed%s: %w", d.suspects(), err))
	}
	d.launches = 0
}

// launch starts a kernel, after allowing it the shared memory it asks for.
func (d *Device) launch(kn *kernel, g grid, cluster driver.Dim, threads, shared int, args *driver.Args) error {
	if err := d.allow(kn, shared); err != nil {
		return err
	}
	return d.gpu.Launch(kn.at, driver.Launch{Grid: driver.Dim(g), Block: driver.Dim{X: threads, Y: 1, Z: 1}, Cluster: cluster, Shared: shared}, args)
}

// allow allows a kernel so much dynamic shared memory.
func (d *Device) allow(kn *kernel, shared int) error {
	if shared <= max(kn.shared, 48<<10) {
		return nil
	}
	err := d.gpu.SetFunctionAttribute(kn.at, driver.MaxDynamicShared, shared)
	if err == nil {
		kn.shared = shared
	}
	return err
}
