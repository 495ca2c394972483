package ptxsim

import (
	"math/bits"
	"strings"

	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

// A tally counts a launch.
type tally struct {
	Counts
	issued, lanes []int // by instruction
	seen          map[*buffer]*[2][]uint64
	sectors       []sector // of the request under way
	operands      map[operandOf]Waves
}

// operandOf is rows of what a descriptor describes.
type operandOf struct {
	descriptor
	first, rows int
}

// A sector is 32 bytes of global memory, and those of them that are asked for.
type sector struct {
	at   uint64
	mask uint32
}

func newTally(k *kernel, l driver.Launch) *tally {
	return &tally{Counts: Counts{Kernel: k.name, Launch: l}, issued: make([]int, len(k.code)), lanes: make([]int, len(k.code)),
		seen: map[*buffer]*[2][]uint64{}}
}

// issue counts an instruction that a warp runs for lanes, before it does.
func (t *tally) issue(w *warp, in *instruction, lanes uint32) {
	t.issued[w.at]++
	t.lanes[w.at] += bits.OnesCount32(lanes)
	if in.meter != nil && lanes != 0 {
		in.meter(t, w, lanes)
	}
}

// sum adds up the instructions.
func (t *tally) sum(k *kernel) Counts {
	for i, n := range t.issued {
		c := classOf(k.code[i].op)
		t.Issued[c] += n
		t.Lanes[c] += t.lanes[i]
		t.Flops += t.lanes[i] * flopsOf(k.code[i].op)
		switch {
		case k.code[i].kind == atBarrier:
			t.Barriers += n
		case strings.HasPrefix(k.code[i].op, "mbarrier.arrive"):
			t.Barriers += t.lanes[i]
		}
	}
	return t.Counts
}

// access counts lanes that each access n bytes at an address.
func (t *tally) access(w *warp, lanes uint32, a address, n int, how access) {
	var at [32]uint64
	var inGlobal, inShared uint32
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		switch at[l] = a.of(w, l); {
		case a.space == shared:
			at[l] = uint64(uint32(at[l]))
			inShared |= 1 << l
		case at[l] >= sharedWindow && a.space == generic:
			at[l] -= sharedWindow
			inShared |= 1 << l
		default:
			inGlobal |= 1 << l
		}
	}
	if inShared != 0 {
		t.Shared.add(inShared, &at, n)
	}
	if inGlobal != 0 {
		for m := inGlobal; m != 0; m &= m - 1 {
			t.ask(at[bits.TrailingZeros32(m)&31], n)
		}
		t.request(w, how)
	}
}

// copies counts the reads of cp.async: register n, where there is one, has how many bytes of all.
func (t *tally) copies(w *warp, lanes uint32, from address, n, all int) {
	for m := lanes; m != 0; m &= m - 1 {
		l, size := bits.TrailingZeros32(m)&31, all
		if n >= 0 {
			size = min(all, int(w.r32[n][l]))
		}
		if size > 0 {
			t.ask(from.of(w, l), size)
		}
	}
	if len(t.sectors) > 0 {
		t.request(w, reading)
	}
}

// add counts an access of n bytes a lane: as many lanes at a time as ask for 128 bytes together.
func (v *Waves) add(lanes uint32, at *[32]uint64, n int) {
	each := min(32, 128/n)
	for first := 0; first < 32; first += each {
		group := lanes >> first & uint32(1<<each-1)
		if group == 0 {
			continue
		}
		var words [32][]uint64 // of each bank
		worst := 1
		for ; group != 0; group &= group - 1 {
			from := at[first+bits.TrailingZeros32(group)]
			for word := from / 4; word <= (from+uint64(n)-1)/4; word++ {
				bank := &words[word%32]
				if !contains(*bank, word) {
					*bank = append(*bank, word)
					worst = max(worst, len(*bank))
				}
			}
		}
		v.Least++
		v.Conflicts += worst - 1
	}
}

func contains(all []uint64, x uint64) bool {
	for _, y := range all {
		if x == y {
			return true
		}
	}
	return false
}

// ask adds n bytes of global memory to the request under way.
func (t *tally) ask(at uint64, n int) {
	for end := at + uint64(n); at < end; {
		base := at &^ 31
		stop := min(end, base+32)
		mask := uint32((uint64(1)<<(stop-base) - 1) &^ (uint64(1)<<(at-base) - 1))
		t.askSector(base, mask)
		at = stop
	}
}

func (t *tally) askSector(at uint64, mask uint32) {
	for i := len(t.sectors) - 1; i >= max(0, len(t.sectors)-64); i-- { // a warp's lanes ask for no more, and a tile is in order
		if t.sectors[i].at == at {
			t.sectors[i].mask |= mask
			return
		}
	}
	t.sectors = append(t.sectors, sector{at, mask})
}

// request ends a request and counts it.
func (t *tally) request(w *warp, how access) {
	to := &t.Read
	if how&writing != 0 {
		to = &t.Written
	}
	to.Requests++
	for _, s := range t.sectors {
		to.Bytes += 32
		to.Useful += bits.OnesCount32(s.mask)
		if t.first(w, s.at, how) {
			to.Distinct += 32
		}
	}
	t.sectors = t.sectors[:0]
}

// first reports whether the launch touches a sector for the first time so, and keeps that.
func (t *tally) first(w *warp, at uint64, how access) bool {
	id := at >> offsetBits
	if id < 1 || id > uint64(len(w.block.buffers)) || w.block.buffers[id-1] == nil {
		return false // the access will be refused
	}
	b := w.block.buffers[id-1]
	n, off := (len(b.bytes)+31)/32, at&(1<<offsetBits-1)/32
	if off >= uint64(n) {
		return false
	}
	both := t.seen[b]
	if both == nil {
		both = &[2][]uint64{}
		t.seen[b] = both
	}
	set := &both[0]
	if how&writing != 0 {
		set = &both[1]
	}
	if *set == nil {
		*set = make([]uint64, (n+63)/64)
	}
	was := (*set)[off/64]
	(*set)[off/64] |= 1 << (off % 64)
	return was>>(off%64)&1 == 0
}

// tile counts a box that is copied.
func (t *tally) tile(w *warp, m *moved, how access) {
	t.Tiles.Copies++
	t.Tiles.Bytes += m.bytes()
	m.pieces(func(_, at uint64, inside int) bool {
		if inside > 0 {
			t.ask(at, inside)
		}
		return true
	})
	t.request(w, how)
}

// operand counts what a matrix unit reads of shared memory: rows × 16 numbers.
func (t *tally) operand(d descriptor, first, rows int) {
	t.Products.Bytes += rows * 32
	sum, known := t.operands[operandOf{d, first, rows}]
	if !known {
		sum = waves(d, first, rows)
		if t.operands == nil {
			t.operands = map[operandOf]Waves{}
		}
		t.operands[operandOf{d, first, rows}] = sum
	}
	t.Products.Operands.Least += sum.Least
	t.Products.Operands.Conflicts += sum.Conflicts
}

// waves are those of reading an operand: eight pieces at a time.
func waves(d descriptor, first, rows int) (sum Waves) {
	row, step := func(r, k int) uint64 { return d.piece(first+r, k) }, [2]int{1, 8}
	if d.across {
		step = [2]int{8, 1}
	}
	var at [32]uint64
	i := 0
	for k8 := 0; k8 < 16; k8 += 8 {
		for r8 := 0; r8 < rows; r8 += 8 {
			for r := 0; r < 8; r += step[0] {
				for k := 0; k < 8; k += step[1] {
					at[i%8] = row(r8+r, k8+k)
					i++
				}
			}
			sum.add(0xff, &at, 16)
		}
	}
	return sum
}
