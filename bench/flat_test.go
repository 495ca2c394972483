package bench

import (
	"runtime"
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// takes counts what is made on a device.
type takes struct {
	kernels.Backend
	tensors int
}

func (d *takes) New(t kernels.DType, rows, cols int) kernels.Tensor {
	d.tensors++
	return d.Backend.New(t, rows, cols)
}

// Training takes no memory as it goes on: after 50 steps and after 1,000 the heap holds the same, and nothing
// more has been made on the device.
func TestStepsTakeNoMemory(t *testing.T) {
	be := &takes{Backend: cpu.New(2)}
	src := modeltest.Tiny("llama", 1)
	dec, err := model.Load(be, src.Config, src, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Subject{Name: "tiny", Decoder: dec, Threads: 2, Repeat: 1}
	load := Load{Prompt: 12, Tokens: 5, Samples: 3, Prompts: 2}
	trainer, c, n, err := s.trainer(load)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	at := 0
	upTo := func(steps int) (heap uint64, tensors int) {
		for ; at < steps; at++ {
			c.source.Begin(at)
			if st, err := trainer.Step(t.Context(), []int{2 * at, 2*at + 1}, nil, 1e-4); err != nil || st.Parity != 0 {
				t.Fatalf("step %d: parity %g, %v", at, st.Parity, err)
			}
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, be.tensors
	}
	heap, tensors := upTo(50)
	later, made := upTo(1000)
	t.Logf("heap of %d bytes after 50 steps, %d after 1,000", heap, later)
	if made != tensors {
		t.Errorf("%d tensors were made after the first 50 steps", made-tensors)
	}
	if later > heap+64<<10 {
		t.Errorf("the heap grew from %d to %d bytes in 950 steps", heap, later)
	}
}
