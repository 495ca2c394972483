//go:build !purego

package cpu

import "testing"

// Processors with AVX-512 and without VNNI multiply blocks as AVX2 does.
func TestBlockLinearWithoutVNNI(t *testing.T) {
	was := useVNNI
	useVNNI = false
	defer func() { useVNNI = was }()
	blockLinearIsOneChain(t)
}
