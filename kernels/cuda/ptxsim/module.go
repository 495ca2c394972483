package ptxsim

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A function is a kernel of a device, and the dynamic shared memory that it has been allowed.
type function struct {
	*kernel
	allowed int
}

// Load parses a module and compiles all its kernels.
func (d *Device) Load(image []byte) (driver.Module, error) {
	const call = "cuModuleLoadDataEx"
	if bytes.HasPrefix(image, []byte("\x7fELF")) {
		return 0, refuse(call, codeNoBinary, "the simulator runs PTX, and this is a cubin")
	}
	all, target, err := parse(string(image))
	if err != nil {
		return 0, refuse(call, codePTX, "%v", err)
	}
	number := strings.TrimRight(strings.TrimPrefix(target, "sm_"), "a")
	if least, err := strconv.Atoi(number); err != nil || least > d.capability {
		return 0, refuse(call, codeNoBinary, "the kernels are for %s, and this is a simulated sm_%d", target, d.capability)
	}
	d.modules = append(d.modules, all)
	return driver.Module(len(d.modules)), nil
}

func (d *Device) module(call string, m driver.Module) (map[string]*kernel, error) {
	if m < 1 || int(m) > len(d.modules) || d.modules[m-1] == nil {
		return nil, refuse(call, codeInvalid, "there is no module %d", m)
	}
	return d.modules[m-1], nil
}

func (d *Device) Unload(m driver.Module) error {
	if _, err := d.module("cuModuleUnload", m); err != nil {
		return err
	}
	d.modules[m-1] = nil
	return nil
}

func (d *Device) Function(m driver.Module, name string) (driver.Function, error) {
	all, err := d.module("cuModuleGetFunction", m)
	if err != nil {
		return 0, err
	}
	k := all[name]
	if k == nil {
		return 0, refuse("cuModuleGetFunction", codeNotFound, "there is no kernel %s", name)
	}
	d.functions = append(d.functions, function{k, usualShared})
	return driver.Function(len(d.functions)), nil
}

func (d *Device) function(call string, f driver.Function) (*function, error) {
	if f < 1 || int(f) > len(d.functions) {
		return nil, refuse(call, codeInvalid, "there is no function %d", f)
	}
	return &d.functions[f-1], nil
}

func (d *Device) FunctionAttribute(f driver.Function, a driver.FunctionAttribute) (int, error) {
	const call = "cuFuncGetAttribute"
	fn, err := d.function(call, f)
	if err != nil {
		return 0, err
	}
	switch a {
	case driver.StaticShared:
		return fn.static, nil
	case driver.LocalBytes:
		return 0, nil // a kernel with any is refused
	case driver.MaxDynamicShared:
		return fn.allowed, nil
	}
	return 0, refuse(call, codeInvalid, "the simulator has no attribute %d of kernels", a)
}

func (d *Device) SetFunctionAttribute(f driver.Function, a driver.FunctionAttribute, value int) error {
	const call = "cuFuncSetAttribute"
	fn, err := d.function(call, f)
	if err != nil {
		return err
	}
	if a != driver.MaxDynamicShared {
		return refuse(call, codeInvalid, "attribute %d cannot be set", a)
	}
	if value < 0 || value+fn.static > d.mostShared() {
		return refuse(call, codeInvalid, "%d bytes of dynamic and %d of other shared memory: a block has %d", value, fn.static, d.mostShared())
	}
	fn.allowed = value
	return nil
}
