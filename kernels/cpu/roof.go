package cpu

import (
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// Roof measures what this processor can do with that many threads: float32 multiply-adds, counted as
// two operations each, and bytes read from memory, both a second and both the best of several short
// runs. Where there is no assembly it is what Go can do. It takes about a second and 256 MB.
func Roof(threads int) (flops, bytes float64) {
	d := New(threads)
	defer d.Close()
	t := roofTask{share: roofBytes / d.team.size &^ 511}
	var err error
	if t.mem, err = allocate(roofBytes + prefetchFar); err != nil {
		return 0, 0
	}
	defer t.mem.release()
	touch := unsafe.Slice((*float32)(t.mem.at), roofBytes/4)
	for i := range touch {
		touch[i] = 1
	}
	fastest := func(fma bool) float64 {
		best := time.Duration(1<<63 - 1)
		t.fma = fma
		for range 24 { // on a busy machine few of them have all processors to themselves
			start := time.Now()
			d.share(d.team.size, 1, &t)
			best = min(best, time.Since(start))
		}
		return float64(d.team.size) / best.Seconds()
	}
	rounds, perRound := multiplyAddRounds()
	t.rounds = rounds
	return fastest(true) * float64(rounds*perRound), fastest(false) * float64(t.share)
}

const roofBytes = 256 << 20

// roofTask is the spanTask of Roof: each index is one thread's share of work.
type roofTask struct {
	fma    bool
	rounds int // of multiply-adds
	share  int // bytes to read
	mem    block
}

func (t *roofTask) span(lo, hi, _ int) {
	for i := lo; i < hi; i++ {
		if t.fma {
			multiplyAdds(t.rounds)
		} else {
			readAll(unsafe.Add(t.mem.at, i*t.share), t.share)
		}
	}
}

// multiplyAddsGo does n rounds of the twin's multiply-add.
func multiplyAddsGo(n int) {
	var sum [16]float32
	for range n {
		for i := range sum {
			sum[i] = fma32(0.5, 0.5, sum[i])
		}
	}
	sink.Store(math.Float32bits(sum[3]))
}

// readAllGo reads n bytes.
func readAllGo(p unsafe.Pointer, n int) {
	var a, b, c, e uint64
	for s := unsafe.Slice((*uint64)(p), n/8); len(s) >= 8; s = s[8:] {
		a, b, c, e = a+s[0]+s[1], b+s[2]+s[3], c+s[4]+s[5], e+s[6]+s[7]
	}
	sink.Store(uint32(a + b + c + e))
}

// sink keeps the compiler from dropping what Roof times.
var sink atomic.Uint32
