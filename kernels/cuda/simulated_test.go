package cuda

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
	"github.com/r2-reasoner/r2/kernels/cuda/testdata/interpreter"
)

// A simulator is a driver.Device that runs the kernels' PTX on the processor, with the race check on. What
// the backend does not call, it does not have.
type simulator struct {
	driver.Device
	gpu       *interpreter.Device
	modules   []map[string]*interpreter.Kernel
	kernels   []*interpreter.Kernel
	recording []func() error // nil: none is under way
	on        bool
	graphs    [][]func() error
	edit      func(text string) string // of each module before it is loaded; nil: none
}

func newSimulator() driver.Device { return &simulator{gpu: &interpreter.Device{Race: true}} }

// simulated opens a device on a simulator of its own.
func simulated(t *testing.T) *Device {
	t.Helper()
	d, err := On(newSimulator(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var parsed sync.Map // of each module's text, its kernels

func (s *simulator) Name() string                            { return "simulator" }
func (s *simulator) Bind() error                             { return nil }
func (s *simulator) Close() error                            { return nil }
func (s *simulator) Attribute(driver.Attribute) (int, error) { return 227 << 10, nil }

func (s *simulator) Load(image []byte) (driver.Module, error) {
	text := string(image)
	if s.edit != nil {
		text = s.edit(text)
	}
	all, ok := parsed.Load(text)
	if !ok {
		all, _ = parsed.LoadOrStore(text, interpreter.Parse(text))
	}
	s.modules = append(s.modules, all.(map[string]*interpreter.Kernel))
	return driver.Module(len(s.modules)), nil
}

func (s *simulator) Function(m driver.Module, name string) (driver.Function, error) {
	kn := s.modules[m-1][name]
	if kn == nil {
		return 0, fmt.Errorf("there is no kernel %s", name)
	}
	s.kernels = append(s.kernels, kn)
	return driver.Function(len(s.kernels)), nil
}

func (s *simulator) SetFunctionAttribute(driver.Function, driver.FunctionAttribute, int) error {
	return nil
}

func (s *simulator) Alloc(n int) (uint64, error)           { return s.gpu.Alloc(n), nil }
func (s *simulator) Free(uint64) error                     { return nil }
func (s *simulator) MemInfo() (free, total int, err error) { return 0, 0, nil }
func (s *simulator) Set(at uint64, v byte, n int) error {
	b := s.gpu.Mem(at)[:n]
	for i := range b {
		b[i] = v
	}
	return nil
}
func (s *simulator) Pin(n int) ([]byte, error)            { return make([]byte, n), nil }
func (s *simulator) Upload(to uint64, b []byte) error     { copy(s.gpu.Mem(to), b); return nil }
func (s *simulator) Download(b []byte, from uint64) error { copy(b, s.gpu.Mem(from)); return nil }
func (s *simulator) Sync() error                          { return s.found() }

// found is what the checks have found.
func (s *simulator) found() error {
	if s.gpu.Nerr > 0 {
		return errors.New(strings.Join(s.gpu.Errs, "; "))
	}
	return nil
}

func (s *simulator) Launch(f driver.Function, l driver.Launch, args *driver.Args) error {
	slots := make([]any, len(args.Words))
	for i, v := range args.Words {
		slots[i] = v
	}
	run := func() error {
		s.gpu.Launch(s.kernels[f-1], [3]int{l.Grid.X, l.Grid.Y, l.Grid.Z}, [3]int{l.Block.X, l.Block.Y, l.Block.Z}, l.Shared, slots...)
		return s.found()
	}
	if s.on {
		s.recording = append(s.recording, run)
		return nil
	}
	return run()
}

func (s *simulator) Begin() error { s.on, s.recording = true, nil; return nil }

func (s *simulator) End() (driver.Graph, error) {
	s.on, s.graphs = false, append(s.graphs, s.recording)
	return driver.Graph(len(s.graphs)), nil
}

func (s *simulator) Instantiate(g driver.Graph) (driver.Exec, error) { return driver.Exec(g), nil }

func (s *simulator) Replay(e driver.Exec) error {
	for _, run := range s.graphs[e-1] {
		if err := run(); err != nil {
			return err
		}
	}
	return nil
}

func (s *simulator) FreeGraph(driver.Graph) error { return nil }
func (s *simulator) FreeExec(driver.Exec) error   { return nil }
