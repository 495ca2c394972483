//go:build !purego

package cpu

// inGo runs f with the Go twins.
func inGo(f func()) {
	useNarrow = false
	defer func() { useNarrow = true }()
	f()
}

// forms are the instruction sets whose leaves can run here.
func forms() []form { return []form{{"neon", func(f func()) { f() }}} }
