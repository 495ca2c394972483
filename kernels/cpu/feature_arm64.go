//go:build !purego

package cpu

// useAssembly says that the leaves run their AVX-512 form.
const useAssembly = false

// useNarrow says that the leaves run their NEON form, which every 64-bit Arm processor has. Tests clear it
// to compare the twins.
var useNarrow = true

func pause() {}

// instructions says which form of the leaves runs.
func instructions() string {
	if useNarrow {
		return "neon"
	}
	return "go"
}
