package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cpu"
)

// A frail device is lost from some moment on.
type frail struct {
	kernels.Backend
	lost atomic.Bool
}

func (f *frail) Read(dst []byte, src kernels.Tensor) error {
	if f.lost.Load() {
		return fmt.Errorf("Attention of 3 x 5: an illegal address: %w", kernels.ErrLost)
	}
	return f.Backend.Read(dst, src)
}

// A server whose device is lost stops serving, and ends with what lost it.
func TestServerOfALostDevice(t *testing.T) {
	be := &frail{Backend: cpu.New(1)}
	h, err := openModel(be, shipped("mini"), nil, deviceFlags{DType: "auto", Acts: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.start(hostOptions{context: 64, sequences: 2, tokens: 16}); err != nil {
		t.Fatal(err)
	}
	ask := func() (last error) {
		for _, err := range h.eng.Generate(context.Background(), engine.Request{Prompt: []int32{1, 40, 2}, Samples: 1, Limit: 2}) {
			last = err
		}
		return last
	}
	o := &opened{all: []io.Closer{h}}
	err = o.whileWell(t.Context(), func(ctx context.Context) error {
		if err := ask(); err != nil {
			t.Errorf("before: %v", err)
		}
		be.lost.Store(true)
		if err := ask(); !errors.Is(err, engine.ErrFatal) {
			t.Errorf("the request that lost it ends with %v", err)
		}
		<-ctx.Done() // as a server waits
		return nil
	})
	if !errors.Is(err, engine.ErrFatal) || !strings.Contains(err.Error(), "mini: ") || !strings.Contains(err.Error(), "Attention of 3 x 5") {
		t.Errorf("the server ends with %v", err)
	}
	h.Close()
}
