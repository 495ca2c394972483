package cpu

import "testing"

// A form is an instruction set: run runs f with its leaves.
type form struct {
	name string
	run  func(f func())
}

// eachForm runs f with the leaves of every instruction set that this processor has.
func eachForm(t *testing.T, f func(t *testing.T)) {
	if len(forms()) == 0 {
		t.Skip("no assembly for this processor: the twin is all there is")
	}
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) { form.run(func() { f(t) }) })
	}
}
