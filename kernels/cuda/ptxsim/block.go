package ptxsim

// A block is the threads that share memory and barriers.
type block struct {
	*Device
	*cluster
	kernel   *kernel
	launch   uint32 // that it is of
	rank     int    // in the cluster
	number   int    // in the launch
	ended    bool
	at       [3]int // in the grid
	size     [3]int // threads
	grid     [3]int
	threads  int
	dynamic  int // bytes of dynamic shared memory
	params   []byte
	shared   buffer
	warps    []*warp
	barriers [16]meeting
	early    bool   // the launch before may not have ended
	tally    *tally // nil: nothing is counted

	agentOf   map[any]int // see clock.go
	mbarriers map[uint64]*mbarrier
}

// prepare makes a block of a cluster, with its warps.
func (c *cluster) prepare(d *Device, k *kernel, grid, size [3]int, dynamic int, params []byte) *block {
	b := &block{Device: d, cluster: c, rank: len(c.blocks), kernel: k, grid: grid, size: size, dynamic: dynamic, params: params, threads: size[0] * size[1] * size[2]}
	b.shared.bytes = make([]byte, b.dynamicStart()+dynamic)
	c.blocks = append(c.blocks, b)
	for i := range (b.threads + 31) / 32 {
		w := &warp{block: b, id: i, first: 32 * i, clock: b.rank*c.each + 32*i, r32: make([][32]uint32, k.n32), r64: make([][32]uint64, k.n64), pred: make([]uint32, k.nPred)}
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
	c.warps = append(c.warps, b.warps...)
	return b
}

// dynamicStart is where dynamic shared memory begins.
func (b *block) dynamicStart() int { return (b.kernel.static + 127) / 128 * 128 }

// begin makes b another block of the same launch, at a place in the grid: everything is as if fresh. What its threads know
// before they know anything is in nothing.
func (b *block) begin(at [3]int, nothing []uint32) {
	b.at, b.launch, b.ended = at, b.launchCount, false
	b.number = at[0] + b.grid[0]*(at[1]+b.grid[1]*at[2])
	b.barriers = [16]meeting{}
	if !b.survey {
		poison(b.shared.bytes)
		b.shared.ready(len(b.shared.bytes), b.kernel.grainShared, b.stamp)
	}
	if b.kernel.agents {
		b.agentOf, b.mbarriers = map[any]int{}, map[uint64]*mbarrier{}
	}
	for _, w := range b.warps {
		w.alive, w.held, w.split, w.at, w.waiting, w.yield, w.idle, w.gate = allBits, 0, false, 0, nil, false, 0, away
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
	case "%cluster_ctarank":
		return uint32(b.rank)
	case "%cluster_nctarank":
		return uint32(len(b.blocks))
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
	case "%clusterid":
		return uint32(b.at[i] / b.of[i])
	case "%nclusterid":
		return uint32(b.grid[i] / b.of[i])
	case "%cluster_ctaid":
		return uint32(b.at[i] % b.of[i])
	case "%cluster_nctaid":
		return uint32(b.of[i])
	}
	return uint32(b.grid[i])
}

// An Order is which of the warps that can run does, of those of all blocks of a cluster.
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

// finish checks what must be so when a block ends, and ends what ends with it.
func (b *block) finish() {
	b.ended = true
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
