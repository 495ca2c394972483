//go:build !amd64 || purego

package cpu

import "testing"

// eachPairForm runs f in Go, which is all there is.
func eachPairForm(t *testing.T, f func(t *testing.T)) { t.Run("go", f) }
