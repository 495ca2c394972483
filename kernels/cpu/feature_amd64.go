//go:build amd64 && !purego

package cpu

import "golang.org/x/sys/cpu"

// useAssembly says that the leaves run their AVX-512 form. Tests clear it to compare the twins.
var useAssembly = haveAVX512

// haveAVX512 is true on Intel's servers from Skylake on and on AMD's from Zen 4 on. x/sys looks at the
// operating system's support too.
var haveAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VL && cpu.X86.HasFMA

// pause tells the processor that this is a loop that waits.
//
//go:noescape
func pause()
