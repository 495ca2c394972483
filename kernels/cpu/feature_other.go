//go:build (!amd64 && !arm64) || purego

package cpu

// useAssembly says that the leaves run their AVX-512 form.
const useAssembly = false

// useNarrow says that the leaves run the form for narrow vectors.
const useNarrow = false

func pause() {}

// instructions says which form of the leaves runs.
func instructions() string { return "go" }
