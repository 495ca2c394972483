//go:build nvgpu

package gorgonia

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// device is a GPU through gorgonia.org/cu. Handles are places in its lists, from 1.
type device struct {
	id        cu.Device
	name      string
	context   cu.CUContext
	stream    cu.Stream
	modules   []cu.Module
	functions []cu.Function
	events    []cu.Event
	params    []unsafe.Pointer // of the launch under way
}

var _ driver.Device = (*device)(nil)

// usualShared is the shared memory that a kernel has without being allowed more.
const usualShared = 48 << 10

// Open opens a GPU by its number, from 0.
func Open(index int) (driver.Device, error) {
	n, err := cu.NumDevices()
	if err != nil {
		return nil, failed("cuDeviceGetCount", err)
	}
	if index < 0 || index >= n {
		return nil, fmt.Errorf("there is no such device: this machine has %d, numbered from 0", n)
	}
	d := &device{}
	if d.id, err = cu.GetDevice(index); err != nil {
		return nil, failed("cuDeviceGet", err)
	}
	if d.name, err = d.id.Name(); err != nil {
		return nil, failed("cuDeviceGetName", err)
	}
	if d.context, err = d.id.RetainPrimaryCtx(); err != nil {
		return nil, failed("cuDevicePrimaryCtxRetain", err)
	}
	if err := d.Bind(); err != nil {
		return nil, err
	}
	if d.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return nil, failed("cuStreamCreate", err)
	}
	return d, nil
}

// failed is an error of cu, whose type is not exported, as the driver's.
func failed(call string, err error) error {
	if err == nil {
		return nil
	}
	code := 0
	for e := err; e != nil; e = errors.Unwrap(e) {
		if v := reflect.ValueOf(e); v.Kind() == reflect.Int {
			code = int(v.Int())
		}
	}
	return &driver.Error{Call: call, Code: code, Name: err.Error(), Text: "failed"}
}

func lacks(what string) error {
	return fmt.Errorf("gorgonia.org/cu has no %s: %w", what, errors.ErrUnsupported)
}

func (d *device) Name() string { return d.name }

func (d *device) Attribute(a driver.Attribute) (int, error) {
	if a == driver.MaxSharedPerBlock {
		return usualShared, nil
	}
	v, err := d.id.Attribute(cu.DeviceAttribute(a))
	return v, failed("cuDeviceGetAttribute", err)
}

func (d *device) Bind() error { return failed("cuCtxSetCurrent", cu.SetCurrentContext(d.context)) }

func (d *device) Close() error {
	if d.name == "" {
		return nil
	}
	d.name = ""
	return failed("cuDevicePrimaryCtxRelease", d.id.ReleasePrimaryCtx())
}

func (d *device) Load(image []byte) (driver.Module, error) {
	if bytes.IndexByte(image, 0) >= 0 {
		return 0, lacks("modules of machine code") // it takes text that a 0 ends
	}
	m, err := cu.LoadData(string(image))
	if err != nil {
		return 0, fmt.Errorf("the driver does not take the kernels: %w", failed("cuModuleLoadData", err))
	}
	d.modules = append(d.modules, m)
	return driver.Module(len(d.modules)), nil
}

// Unload leaves the module until Close: cu cannot unload one.
func (d *device) Unload(driver.Module) error { return nil }

func (d *device) Function(m driver.Module, name string) (driver.Function, error) {
	f, err := d.modules[m-1].Function(name)
	if err != nil {
		return 0, fmt.Errorf("kernel %s: %w", name, failed("cuModuleGetFunction", err))
	}
	d.functions = append(d.functions, f)
	return driver.Function(len(d.functions)), nil
}

func (d *device) FunctionAttribute(f driver.Function, a driver.FunctionAttribute) (int, error) {
	v, err := d.functions[f-1].Attribute(cu.FunctionAttribute(a))
	return v, failed("cuFuncGetAttribute", err)
}

func (d *device) SetFunctionAttribute(driver.Function, driver.FunctionAttribute, int) error {
	return lacks("attribute of a kernel to be set")
}

func (d *device) Launch(f driver.Function, l driver.Launch, args *driver.Args) error {
	if l.Cluster != (driver.Dim{}) || l.Early {
		return lacks("launch with attributes")
	}
	if len(args.Words) != len(args.Starts) {
		return lacks("argument of more than eight bytes")
	}
	d.params = d.params[:0]
	for i := range args.Words {
		d.params = append(d.params, unsafe.Pointer(&args.Words[i]))
	}
	return failed("cuLaunchKernel", d.functions[f-1].Launch(l.Grid.X, l.Grid.Y, l.Grid.Z, l.Block.X, l.Block.Y, l.Block.Z, l.Shared, d.stream, d.params))
}

func (d *device) Clusters(driver.Function, driver.Launch) (int, error) { return 0, nil }

func (d *device) Encode(driver.Tile) (driver.TensorMap, error) {
	return driver.TensorMap{}, lacks("tensor maps")
}

func (d *device) Sync() error { return failed("cuStreamSynchronize", d.stream.Synchronize()) }

func (d *device) NewEvent() (driver.Event, error) {
	e, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return 0, failed("cuEventCreate", err)
	}
	d.events = append(d.events, e)
	return driver.Event(len(d.events)), nil
}

func (d *device) Record(e driver.Event) error {
	return failed("cuEventRecord", d.events[e-1].Record(d.stream))
}

func (d *device) Wait(e driver.Event) error {
	return failed("cuEventSynchronize", d.events[e-1].Synchronize())
}

func (d *device) Elapsed(from, to driver.Event) (time.Duration, error) {
	ms, err := d.events[from-1].Elapsed(d.events[to-1])
	return time.Duration(ms * float64(time.Millisecond)), failed("cuEventElapsedTime", err)
}

func (d *device) FreeEvent(e driver.Event) error {
	return failed("cuEventDestroy", cu.DestroyEvent(&d.events[e-1]))
}

func (d *device) Begin() error               { return lacks("recording of a stream") }
func (d *device) End() (driver.Graph, error) { return 0, lacks("recording of a stream") }
func (d *device) Instantiate(driver.Graph) (driver.Exec, error) {
	return 0, lacks("recording of a stream")
}
func (d *device) Update(driver.Exec, driver.Graph) error { return lacks("recording of a stream") }
func (d *device) Replay(driver.Exec) error               { return lacks("recording of a stream") }
func (d *device) FreeGraph(driver.Graph) error           { return lacks("recording of a stream") }
func (d *device) FreeExec(driver.Exec) error             { return lacks("recording of a stream") }
