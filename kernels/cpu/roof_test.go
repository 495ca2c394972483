package cpu

import "testing"

// What is measured is in the range of what exists: no core does less than 0.1 or more than 1000 a nanosecond.
func TestRoof(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	flops, bytes := Roof(1)
	if !(flops > 1e8 && flops < 1e12 && bytes > 1e8 && bytes < 1e12) {
		t.Errorf("Roof(1) = %g, %g", flops, bytes)
	}
}
