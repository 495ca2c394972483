//go:build amd64 && !purego

package cpu

import "golang.org/x/sys/cpu"

// useAssembly says that the leaves run their AVX-512 form. Tests clear it to compare the twins.
var useAssembly = haveAVX512

// haveAVX512 is true on Intel's servers from Skylake on and on AMD's from Zen 4 on. x/sys looks at the
// operating system's support too.
var haveAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VL && cpu.X86.HasFMA

// useNarrow says that the leaves run their AVX2 form where they do not run the AVX-512 one. Every processor with AVX2
// converts half floats too (F16C), which x/sys does not report.
var useNarrow = cpu.X86.HasAVX2 && cpu.X86.HasFMA

// useDotBF16 says that pairs of bf16 are multiplied by VDPBF16PS (Intel's Cooper Lake and Sapphire Rapids,
// AMD's Zen 4), and not by two multiply-adds.
var useDotBF16 = cpu.X86.HasAVX512BF16

// useVNNI says that blocks of int8 are multiplied by VPDPBUSD (Intel's Cascade Lake, AMD's Zen 4), and
// not as AVX2 does it.
var useVNNI = cpu.X86.HasAVX512VNNI

// pause tells the processor that this is a loop that waits.
//
//go:noescape
func pause()

// instructions says which form of the leaves runs.
func instructions() string {
	switch {
	case useAssembly:
		return "avx512"
	case useNarrow:
		return "avx2"
	}
	return "go"
}
