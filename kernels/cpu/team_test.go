package cpu

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/r2-reasoner/r2/kernels"
)

// counting counts how often each index is done.
type counting struct{ seen []atomic.Int32 }

func (c *counting) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		c.seen[i].Add(1)
	}
}

// Every index is done exactly once and before share returns, also after members have gone to sleep.
func TestShareDoesEverythingOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		d := New(threads)
		r := rand.New(rand.NewPCG(1, uint64(threads)))
		for round := range 3000 {
			c := counting{seen: make([]atomic.Int32, r.IntN(40))}
			d.share(len(c.seen), 1+r.IntN(5), &c)
			for i := range c.seen {
				if n := c.seen[i].Load(); n != 1 {
					t.Fatalf("%d threads: index %d of %d was done %d times", threads, i, len(c.seen), n)
				}
			}
			if round%500 == 0 {
				time.Sleep(2 * spinTime)
			}
		}
		d.Close()
	}
}

// A worker gets its own neighbours in order, and then what others have left.
func TestClaims(t *testing.T) {
	var c claims
	c.begin(7, 3) // 0 1, 2 3, 4 5 6
	for _, want := range []struct{ worker, i int }{{1, 2}, {0, 0}, {1, 3}, {1, 4}, {2, 5}, {0, 1}, {0, 6}} {
		if i, ok := c.claim(want.worker); i != want.i || !ok {
			t.Fatalf("worker %d gets %d (%v), want %d", want.worker, i, ok, want.i)
		}
	}
	for worker := range 3 {
		if i, ok := c.claim(worker); ok {
			t.Errorf("worker %d gets %d, and all is done", worker, i)
		}
	}
}

// meeting ends only when two workers are at it at the same time.
type meeting struct{ met sync.WaitGroup }

func (m *meeting) work(int) {
	m.met.Done()
	m.met.Wait()
}

// A parked member wakes up and joins.
func TestMembersCome(t *testing.T) {
	d := New(2)
	defer d.Close()
	for range 20 {
		time.Sleep(3 * spinTime)
		var m meeting
		m.met.Add(2)
		d.run(&m)
	}
}

// With one processor for many members nothing waits for ever.
func TestMoreMembersThanProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	d := New(4)
	defer d.Close()
	for range 200 {
		c := counting{seen: make([]atomic.Int32, 50)}
		d.share(len(c.seen), 1, &c)
		for i := range c.seen {
			if c.seen[i].Load() != 1 {
				t.Fatal("an index was not done")
			}
		}
	}
}

// A device that waits uses no processor time, and one that is closed has no goroutines left.
func TestIdleMembersPark(t *testing.T) {
	before := runtime.NumGoroutine()
	d := New(3)
	c := counting{seen: make([]atomic.Int32, 50)}
	d.share(len(c.seen), 1, &c)
	parked := func() bool { return d.team.members[1].parked.Load() && d.team.members[2].parked.Load() }
	for start := time.Now(); !parked(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("members spin while there is nothing to do")
		}
	}
	d.Close()
	for start := time.Now(); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	d.share(len(c.seen), 1, &c) // alone, and still right
	if n := c.seen[49].Load(); n != 2 {
		t.Errorf("after Close an index was done %d times", n-1)
	}
}

// A device that nobody holds any more loses its goroutines.
func TestForgottenDevice(t *testing.T) {
	before := runtime.NumGoroutine()
	New(3)
	for start := time.Now(); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// No product allocates, once its scratch is there.
func TestProductsDoNotAllocate(t *testing.T) {
	d := New(2)
	defer d.Close()
	r := rand.New(rand.NewPCG(2, 2))
	const m, n, k = 40, 300, 200
	x, dx, out := put(t, d, random(r, m, k), 0), put(t, d, random(r, m, k), 0), put(t, d, random(r, m, n), 0)
	a, low := put(t, d, random(r, 8, k), 0), put(t, d, random(r, m, 8), 0)
	ids := d.New(kernels.I32, m, 1)
	for _, typ := range weightTypes {
		w, _ := load(t, d, typ, random(r, n, k))
		step := func() {
			d.Embed(x, w, ids)
			d.Linear(out, x, w, kernels.Tensor{})
			d.MatMul(low, x, a, kernels.Gemm{TransB: true, Alpha: 2})
			d.MatMul(a, low, x, kernels.Gemm{TransA: true, Alpha: 1, Accumulate: true})
			d.LinearGrad(dx, out, w)
			d.Fill(low, 0)
			d.Copy(dx, x)
			tileOf(out.Buf.(*buffer).f, n, x.Buf.(*buffer).f, k, a.Buf.(*buffer).f, k, 8, 4, 32, false)
		}
		step()
		if got := testing.AllocsPerRun(20, step); got != 0 {
			t.Errorf("%s: %v allocations a step", typ, got)
		}
	}
}
