package runner_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/engine/runner"
	"github.com/r2-reasoner/r2/engine/sample"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
	"github.com/r2-reasoner/r2/model"
	"github.com/r2-reasoner/r2/model/batch"
	"github.com/r2-reasoner/r2/model/modeltest"
)

// A failing device answers every Read with an error.
type failing struct {
	kernels.Backend
	err error
}

func (f *failing) Read(dst []byte, src kernels.Tensor) error {
	if f.err != nil {
		return f.err
	}
	return f.Backend.Read(dst, src)
}

// A lost device ends the engine; a failure that it comes back from ends the step's requests alone.
func TestLostDevice(t *testing.T) {
	be := &failing{Backend: cpu.New(1)}
	src := modeltest.Tiny("qwen2", 1)
	d, err := model.Load(be, src.Config, src, model.Options{Context: 64})
	if err != nil {
		t.Fatal(err)
	}
	run, err := runner.New(d, model.Size{Tokens: 4, Sequences: 1, Wanted: 4, Pages: 8, PageSize: 4}, 8)
	if err != nil {
		t.Fatal(err)
	}
	b := &batch.Batch{Tokens: []int32{1, 2}, Positions: []int32{0, 1}, Starts: []int32{0, 2}, Lengths: []int32{2}, Pages: [][]int32{{3}},
		Slots: []int32{12, 13}, Want: []int32{1}}
	for _, c := range []struct {
		err   error
		fatal bool
	}{{nil, false}, {errors.New("a row is not finite"), false}, {fmt.Errorf("an illegal address: %w", kernels.ErrLost), true}} {
		be.err = c.err
		_, err := run.Step(b, make([]sample.Draw, 1))
		if !errors.Is(err, c.err) || errors.Is(err, engine.ErrFatal) != c.fatal {
			t.Errorf("after %v the step's error is %v", c.err, err)
		}
	}
}
