//go:build !purego

package cpu

import "testing"

// eachPairForm runs f with VDPBF16PS, with two multiply-adds and in Go, as far as this processor has them.
func eachPairForm(t *testing.T, f func(t *testing.T)) {
	if useAssembly && useDotBF16 {
		t.Run("dot", f)
	}
	if useAssembly {
		t.Run("multiply-add", func(t *testing.T) {
			was := useDotBF16
			useDotBF16 = false
			defer func() { useDotBF16 = was }()
			f(t)
		})
	}
	t.Run("go", func(t *testing.T) { inGo(func() { f(t) }) })
}
