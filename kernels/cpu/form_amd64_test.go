//go:build !purego

package cpu

// inGo runs f with the Go twins.
func inGo(f func()) { inForm(false, false, f) }

func inForm(assembly, narrow bool, f func()) {
	wasAssembly, wasNarrow := useAssembly, useNarrow
	useAssembly, useNarrow = assembly, narrow
	defer func() { useAssembly, useNarrow = wasAssembly, wasNarrow }()
	f()
}

// forms are the instruction sets whose leaves can run here.
func forms() []form {
	var all []form
	if useAssembly {
		all = append(all, form{"avx512", func(f func()) { inForm(true, false, f) }})
	}
	if useNarrow {
		all = append(all, form{"avx2", func(f func()) { inForm(false, true, f) }})
	}
	return all
}
