//go:build (!amd64 && !arm64) || purego

package cpu

// inGo runs f with the Go twins, which are all there is.
func inGo(f func()) { f() }

func forms() []form { return nil }
