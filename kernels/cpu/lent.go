package cpu

// A lent task is work that is not the device's own, in pieces.
type lent struct{ f func(i int) }

// Share calls f once for each of 0 … n-1, several at the same time, on the threads that operations run on. It is not
// to be called beside one.
func (d *Device) Share(n int, f func(i int)) {
	d.lent.f = f
	d.share(n, 1, &d.lent)
	d.lent.f = nil
}

func (t *lent) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		t.f(i)
	}
}
