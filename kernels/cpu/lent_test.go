package cpu

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/kernels"
)

var _ kernels.Sharer = (*Device)(nil)

// What is shared is done once, and at the same time as far as there are threads.
func TestShareLends(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		d := New(threads)
		defer d.Close()
		for _, n := range []int{0, 1, threads, 3*threads + 1} {
			seen := make([]atomic.Int32, n)
			d.Share(n, func(i int) { seen[i].Add(1) })
			for i := range seen {
				if c := seen[i].Load(); c != 1 {
					t.Errorf("%d threads: %d of %d was done %d times", threads, i, n, c)
				}
			}
		}
		var all sync.WaitGroup
		all.Add(threads)
		done := make(chan struct{})
		go func() {
			d.Share(threads, func(int) { all.Done(); all.Wait() }) // each waits for all
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d threads do not work at the same time", threads)
		}
	}
}
