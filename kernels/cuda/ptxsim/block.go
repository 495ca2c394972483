package ptxsim

import (
	"fmt"
	"math/bits"
)

// A block is the threads that share memory and barriers.
type block struct {
	*Device
	kernel   *kernel
	launch   uint32 // that it is of
	stamp    uint32 // its own, of all blocks of the device
	number   int    // in the launch
	at       [3]int // in the grid
	size     [3]int // threads
	grid     [3]int
	threads  int
	dynamic  int // bytes of dynamic shared memory
	params   []byte
	shared   buffer
	warps    []*warp
	barriers [16]meeting
	turn     int    // the warp that ran last
	events   int    // what warps may wait for and has happened
	early    bool   // the launch before may not have ended
	tally    *tally // nil: nothing is counted

	agentsFrom int         // the first thread number that is an agent's
	agentOf    map[any]int // see clock.go
	mbarriers  map[uint64]*mbarrier
	arriving   []func() // copies of tiles under way

	steps  int // that are left until it is taken for one that does not end
	failed error
}

// prepare makes the block of a launch, with its warps.
func (d *Device) prepare(k *kernel, grid, size [3]int, dynamic int, params []byte) *block {
	b := &block{Device: d, kernel: k, grid: grid, size: size, dynamic: dynamic, params: params, threads: size[0] * size[1] * size[2]}
	b.shared.bytes = make([]byte, b.dynamicStart()+dynamic)
	for i := range (b.threads + 31) / 32 {
		w := &warp{block: b, id: i, first: 32 * i, r32: make([][32]uint32, k.n32), r64: make([][32]uint64, k.n64), pred: make([]uint32, k.nPred)}
		for _, c := range k.values32 {
			for l := range 32 {
				w.r32[c.reg][l] = c.v
			}
		}
		for _, c := range k.values64 {
			for l := range 32 {
				w.r64[c.reg][l] = c.v
			}
		}
		b.warps = append(b.warps, w)
	}
	return b
}

// dynamicStart is where dynamic shared memory begins.
func (b *block) dynamicStart() int { return (b.kernel.static + 127) / 128 * 128 }

// begin makes b another block of the same launch: everything is as if fresh.
func (b *block) begin(number int) {
	b.blockCount++
	b.number, b.stamp, b.launch = number, b.blockCount, b.launchCount
	b.at = [3]int{number % b.grid[0], number / b.grid[0] % b.grid[1], number / b.grid[0] / b.grid[1]}
	b.steps, b.failed, b.turn, b.events = b.mostSteps, nil, -1, 1
	b.barriers = [16]meeting{}
	if !b.survey {
		poison(b.shared.bytes)
		b.shared.ready(len(b.shared.bytes), b.kernel.grainShared, b.stamp)
	}
	b.agentsFrom = 32 * len(b.warps)
	nothing := make([]uint32, b.agentsFrom)
	if b.kernel.agents {
		b.agentOf, b.mbarriers, b.arriving = map[any]int{}, map[uint64]*mbarrier{}, b.arriving[:0]
		nothing = make([]uint32, b.agentsFrom+mostAgents)
	}
	for _, w := range b.warps {
		w.alive, w.held, w.split, w.at, w.waiting, w.yield, w.idle = allBits, 0, false, 0, nil, false, 0
		if rest := b.threads - w.first; rest < 32 {
			w.alive = 1<<rest - 1
		}
		for l := range 32 {
			w.time[l], w.known[l], w.fenced[l] = 1, nothing, nil
			w.heard[l], w.mail[l] = nil, mailbox{}
			w.copies[l].clear()
			w.tiles[l].clear()
		}
		w.products, w.depends = products{}, 0
		b.setSpecials(w)
	}
}

func (b *block) setSpecials(w *warp) {
	for _, s := range b.kernel.specials {
		for l := range 32 {
			w.r32[s.reg][l] = b.special(s.name, w, l)
		}
	}
	for l := range 32 {
		if r := b.kernel.dynamic32; r >= 0 {
			w.r32[r][l] = uint32(b.dynamicStart())
		}
		if r := b.kernel.dynamic64; r >= 0 {
			w.r64[r][l] = uint64(b.dynamicStart())
		}
	}
}

// special is what a special register holds.
func (b *block) special(name string, w *warp, lane int) uint32 {
	t := w.first + lane
	switch name {
	case "%laneid":
		return uint32(lane)
	case "%warpid":
		return uint32(w.id)
	case "%nwarpid":
		return uint32(len(b.warps))
	case "%smid":
		return 0
	case "%nsmid":
		return 1
	case "%dynamic_smem_size":
		return uint32(b.dynamic)
	case "%total_smem_size":
		return uint32(len(b.shared.bytes))
	case "%lanemask_eq":
		return 1 << lane
	case "%lanemask_lt":
		return 1<<lane - 1
	case "%lanemask_le":
		return 2<<lane - 1
	case "%lanemask_gt":
		return ^uint32(2<<lane - 1)
	case "%lanemask_ge":
		return ^uint32(1<<lane - 1)
	}
	i := int(name[len(name)-1] - 'x')
	switch name[:len(name)-2] {
	case "%tid":
		return uint32([3]int{t % b.size[0], t / b.size[0] % b.size[1], t / b.size[0] / b.size[1]}[i])
	case "%ntid":
		return uint32(b.size[i])
	case "%ctaid":
		return uint32(b.at[i])
	}
	return uint32(b.grid[i])
}

// An Order is which of the warps that can run does.
type Order uint8

const (
	// OneAhead lets one warp run as far as it can, and the others only while it cannot.
	OneAhead Order = iota
	// RoundRobin gives each warp one instruction in turn.
	RoundRobin
	// LastFirst does the same with the last warp, and runs the last block first.
	LastFirst
)

// Orders are all of them.
var Orders = []Order{OneAhead, RoundRobin, LastFirst}

func (o Order) String() string { return [...]string{"one ahead", "round robin", "last first"}[o] }

// run runs the block to its end.
func (b *block) run() error {
	turn := 1 << 20
	if b.order == RoundRobin {
		turn = 1
	}
	for looks := 0; ; {
		w, live, running := b.next()
		switch {
		case !live:
			b.finish()
			return b.failed
		case w != nil:
			before := b.events
			w.run(turn)
			if b.events != before {
				looks = 0
			}
		case len(b.arriving) > 0: // what is under way arrives as late as it can
			b.arrive()
		case !running || looks == mostLooks:
			return b.deadlock()
		default: // all look for what has not happened: once more
			looks++
			b.events++
		}
		if b.failed != nil {
			return b.failed
		}
		if b.steps <= 0 {
			b.warps[0].fault(codeTimeout, 0, "the block has not ended after %d instructions of warps", b.mostSteps)
			return b.failed
		}
	}
}

// mostLooks is how often warps may look for something, with nothing happening, until it is a deadlock.
const mostLooks = 1000

// next is the warp to run, by the device's order. live says whether there is one that has not ended, running
// whether one is at no barrier.
func (b *block) next() (w *warp, live, running bool) {
	n := len(b.warps)
	for i := range n {
		switch b.order {
		case RoundRobin:
			i = (b.turn + 1 + i) % n
		case LastFirst:
			i = n - 1 - i
		}
		x := b.warps[i]
		live = live || x.alive != 0
		if x.alive == 0 || x.waiting != nil {
			continue
		}
		running = true
		if x.idle != b.events {
			b.turn = i
			return x, true, true
		}
	}
	return nil, live, running
}

// finish checks what must be so when a block ends, and ends what ends with it.
func (b *block) finish() {
	for at, m := range b.mbarriers {
		if m.copied > m.awaited {
			b.warps[0].fault(codeLaunch, 0, "ends, and nobody has waited for a copy that completes on the mbarrier at %d", at)
		}
	}
	for i, w := range b.warps {
		if first := b.warps[i/4*4]; w.products.time != first.products.time {
			w.fault(codeLaunch, 0, "ends, and its warp has taken part in %d products of its warpgroup, warp %d in %d", w.products.time, first.id, first.products.time)
		}
	}
	b.finishStores()
}

// deadlock tells where the warps wait.
func (b *block) deadlock() error {
	text := ""
	for _, w := range b.warps {
		if w.alive != 0 {
			text += fmt.Sprintf("; warp %d waits in line %d (%s)", w.id, b.kernel.code[max(w.at-1, 0)].line, b.kernel.code[max(w.at-1, 0)].op)
		}
	}
	w := b.warps[0]
	w.fault(codeLaunch, bits.TrailingZeros32(w.alive|1<<31), "no warp can go on%s", text)
	return b.failed
}
