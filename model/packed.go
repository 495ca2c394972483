package model

import (
	"strings"

	"github.com/r2-reasoner/r2/kernels"
)

// mapped is a matrix that was packed before, if it was. The source is not read.
func (l *loader) mapped(rows, cols int, modules []string) (w kernels.Weight, ok bool) {
	if l.o.Packed == nil || l.o.Train || l.err != nil {
		return w, false
	}
	format, data, ok := l.o.Packed.Matrix(strings.Join(modules, " "))
	if !ok {
		return w, false
	}
	f, ok := formatOf(format)
	if !ok {
		return w, false
	}
	return l.mapper.Map(f, rows, cols, data)
}

// keep has a matrix packed for the next time.
func (l *loader) keep(w kernels.Weight, modules []string) {
	if l.o.Packed == nil || l.err != nil {
		return
	}
	if l.err = l.be.Sync(); l.err == nil { // what could not be loaded has no memory
		l.o.Packed.Add(strings.Join(modules, " "), w.Format.String(), l.mapper.Packed(w))
	}
}

// formatOf is the format whose String is s.
func formatOf(s string) (kernels.Format, bool) {
	for t := kernels.F32; t <= kernels.I8; t++ {
		for a := kernels.F32; a <= kernels.I8; a++ {
			if f := (kernels.Format{Type: t, Acts: a}); f.String() == s {
				return f, true
			}
		}
	}
	return kernels.Format{}, false
}
