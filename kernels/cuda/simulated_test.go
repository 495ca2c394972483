package cuda

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/testdata/interpreter"
)

// A simulator is a machine that runs the kernels' PTX on the processor, with the race check on.
type simulator struct {
	gpu       *interpreter.Device
	kernels   []*interpreter.Kernel
	recording []func() error // nil: none is under way
	on        bool
	graphs    [][]func() error
	edit      func(text string) string // of each module before it is loaded; nil: none
}

// simulated opens a device on a simulator of its own.
func simulated(t *testing.T) *Device {
	t.Helper()
	d, err := open(&simulator{gpu: &interpreter.Device{Race: true}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var parsed sync.Map // of each module's text, its kernels

func (s *simulator) Name() string    { return "simulator" }
func (s *simulator) Bind() error     { return nil }
func (s *simulator) Close()          {}
func (s *simulator) MostShared() int { return 227 << 10 }

func (s *simulator) Load(text string, names []string) ([]function, error) {
	if s.edit != nil {
		text = s.edit(text)
	}
	all, ok := parsed.Load(text)
	if !ok {
		all, _ = parsed.LoadOrStore(text, interpreter.Parse(text))
	}
	var out []function
	for _, n := range names {
		kn := all.(map[string]*interpreter.Kernel)[n]
		if kn == nil {
			return nil, fmt.Errorf("there is no kernel %s", n)
		}
		out, s.kernels = append(out, function(len(s.kernels))), append(s.kernels, kn)
	}
	return out, nil
}

func (s *simulator) Alloc(n int) (uint64, error)           { return s.gpu.Alloc(n), nil }
func (s *simulator) Free(uint64) error                     { return nil }
func (s *simulator) MemInfo() (free, total int, err error) { return 0, 0, nil }
func (s *simulator) Clear(at uint64, n int) error          { clear(s.gpu.Mem(at)[:n]); return nil }
func (s *simulator) Pinned(n int) ([]byte, error)          { return make([]byte, n), nil }
func (s *simulator) Upload(to uint64, b []byte) error      { copy(s.gpu.Mem(to), b); return nil }
func (s *simulator) Download(b []byte, from uint64) error  { copy(b, s.gpu.Mem(from)); return nil }
func (s *simulator) Allow(function, int) error             { return nil }
func (s *simulator) Sync() error                           { return s.found() }

// found is what the checks have found.
func (s *simulator) found() error {
	if s.gpu.Nerr > 0 {
		return errors.New(strings.Join(s.gpu.Errs, "; "))
	}
	return nil
}

func (s *simulator) Launch(f function, g grid, threads, shared int, args []uint64) error {
	slots := make([]any, len(args))
	for i, v := range args {
		slots[i] = v
	}
	run := func() error {
		s.gpu.Launch(s.kernels[f], [3]int{g.x, g.y, g.z}, [3]int{threads, 1, 1}, shared, slots...)
		return s.found()
	}
	if s.on {
		s.recording = append(s.recording, run)
		return nil
	}
	return run()
}

func (s *simulator) Begin() error { s.on, s.recording = true, nil; return nil }

func (s *simulator) End() (recording, error) {
	s.on, s.graphs = false, append(s.graphs, s.recording)
	return recording(len(s.graphs) - 1), nil
}

func (s *simulator) Replay(r recording) error {
	for _, run := range s.graphs[r] {
		if err := run(); err != nil {
			return err
		}
	}
	return nil
}

func (s *simulator) Forget(recording) error { return nil }
