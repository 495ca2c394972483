package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A usage is what one kernel takes on one machine. A stack is local memory: spilled registers, or an array
// that is indexed at run time.
type usage struct {
	kernel                   string
	registers, shared, stack int
	instructions             int
	of                       map[string]int // the instructions by name: see mix
}

// Attributes of .nv.info, as they stand in machine code: a form (4: a size and so many bytes follow), a
// key, and for these two keys a symbol and a number.
const (
	formSized    = 4
	keyFrameSize = 0x11 // of a function's stack
	keyRegisters = 0x2f
)

// usages reads the kernels of a cubin, which is an ELF file.
func usages(bin []byte) ([]usage, error) {
	if len(bin) < 64 {
		return nil, fmt.Errorf("machine code of %d bytes", len(bin))
	}
	bin = slices.Clone(bin)
	binary.LittleEndian.PutUint32(bin[20:], uint32(elf.EV_CURRENT)) // e_version is the CUDA version there
	f, err := elf.NewFile(bytes.NewReader(bin))
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	by := map[string]*usage{}
	for _, s := range f.Sections {
		if name, ok := strings.CutPrefix(s.Name, ".text."); ok {
			code, err := s.Data()
			if err != nil {
				return nil, err
			}
			u := &usage{kernel: name, registers: int(s.Info >> 24)}
			u.instructions, u.of = mix(code)
			by[name] = u
		}
	}
	for _, s := range f.Sections {
		if name, ok := strings.CutPrefix(s.Name, ".nv.shared."); ok && by[name] != nil {
			by[name].shared = int(s.Size)
		}
	}
	info := f.Section(".nv.info")
	if info == nil {
		return nil, fmt.Errorf("no .nv.info in the machine code")
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for len(data) >= 4 {
		form, key, size := data[0], data[1], int(binary.LittleEndian.Uint16(data[2:]))
		data = data[4:]
		if form != formSized {
			continue
		}
		if size > len(data) {
			return nil, fmt.Errorf("an attribute of .nv.info is cut off")
		}
		if size == 8 && (key == keyFrameSize || key == keyRegisters) {
			at, n := int(binary.LittleEndian.Uint32(data)), int(binary.LittleEndian.Uint32(data[4:]))
			if at >= 1 && at <= len(symbols) && by[symbols[at-1].Name] != nil {
				if u := by[symbols[at-1].Name]; key == keyFrameSize {
					u.stack = n
				} else {
					u.registers = n
				}
			}
		}
		data = data[size:]
	}
	var all []usage
	for _, u := range by {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b usage) int { return strings.Compare(a.kernel, b.kernel) })
	return all, nil
}
