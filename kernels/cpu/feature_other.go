//go:build !amd64 || purego

package cpu

// useAssembly says that the leaves run their AVX-512 form.
const useAssembly = false

func pause() {}
