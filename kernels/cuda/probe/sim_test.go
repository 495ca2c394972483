package probe

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels/cuda/ptxsim"
)

// The question is put right: a simulator, whose sums do not depend on an instruction's columns, answers that they do not.
func TestWidths(t *testing.T) {
	for _, order := range ptxsim.Orders {
		all, err := Widths(ptxsim.New(ptxsim.Options{Order: order}), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			if w.Other != 0 || !(w.Error < 1e-6) {
				t.Errorf("%v: %+v", order, w)
			}
		}
	}
}
