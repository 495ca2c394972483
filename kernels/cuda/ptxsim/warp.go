package ptxsim

import "math/bits"

// A warp is 32 threads, some of which may not exist, with their registers.
type warp struct {
	block *block
	id    int // in the block
	first int // its first thread
	clock int // the number of that in the cluster: see clock.go

	r32  [][32]uint32
	r64  [][32]uint64
	pred []uint32

	alive   uint32 // lanes that have not ended
	held    uint32 // lanes that wait at a collective instruction for others
	split   bool   // lanes are at different places: pc is of each; else at is of all
	pc      [32]int32
	at      int      // the instruction under way
	until   int      // where lanes are that the ones under way would meet next
	waiting *meeting // the barrier it waits at
	yield   bool     // it found that it has to wait for others, and will look again
	idle    int      // the cluster's events when it did
	gate    uint8    // where it is at the cluster's barrier

	depends uint32 // lanes that have waited for the launch before

	time     [32]uint32 // see clock.go
	known    [32][]uint32
	fenced   [32][]uint32
	heard    [32]heard // see message.go
	mail     [32]mailbox
	copies   [32]copies
	tiles    [32]tileStores
	products products
}

// run goes on for so many instructions, or until the warp has to wait.
func (w *warp) run(steps int) {
	code, tally := w.block.kernel.code, w.block.tally
	for steps > 0 && w.alive != 0 {
		lanes, ok := w.pick()
		if !ok {
			w.stuck()
			return
		}
		for steps > 0 {
			steps--
			w.block.steps--
			in := &code[w.at]
			active := lanes
			if in.pred >= 0 {
				p := w.pred[in.pred]
				if in.not {
					p = ^p
				}
				active &= p
			}
			if in.kind == plain {
				if tally != nil {
					tally.issue(w, in, active)
				}
				if active != 0 {
					in.run(w, active)
				}
				w.at++
				if w.yield || steps == 0 || w.split && w.at == w.until || w.block.failed != nil {
					w.advance(lanes, w.at)
					break
				}
				continue
			}
			w.control(in, lanes, active)
			break
		}
		if w.block.failed != nil || w.waiting != nil {
			return
		}
		if w.yield {
			w.yield, w.idle = false, w.block.events
			return
		}
	}
}

// pick finds the lanes to run next: those that are furthest behind, so that they meet the others again.
func (w *warp) pick() (lanes uint32, ok bool) {
	if !w.split {
		return w.alive, true
	}
	least := int32(1<<31 - 1)
	for m := w.alive &^ w.held; m != 0; m &= m - 1 {
		least = min(least, w.pc[bits.TrailingZeros32(m)&31])
	}
	if least == 1<<31-1 {
		return 0, false
	}
	until := int32(1<<31 - 1)
	for m := w.alive; m != 0; m &= m - 1 {
		switch l := bits.TrailingZeros32(m) & 31; {
		case w.pc[l] == least:
			lanes |= 1 << l
		case w.pc[l] > least:
			until = min(until, w.pc[l])
		}
	}
	w.at, w.until = int(least), int(until)
	w.split = lanes != w.alive
	return lanes, true
}

// advance lets lanes go on from an instruction.
func (w *warp) advance(lanes uint32, to int) {
	w.at = to
	if !w.split {
		return
	}
	for m := lanes; m != 0; m &= m - 1 {
		w.pc[bits.TrailingZeros32(m)&31] = int32(to)
	}
}

// control runs an instruction that is not plain: lanes have come to it, and it holds for the active ones.
func (w *warp) control(in *instruction, lanes, active uint32) {
	next := w.at + 1
	if t := w.block.tally; t != nil && in.kind != collective {
		t.issue(w, in, active)
	}
	switch in.kind {
	case branching:
		switch active {
		case 0:
			w.advance(lanes, next)
		case lanes:
			w.advance(lanes, in.target)
		default:
			if !w.split {
				w.split = true
				w.advance(w.alive, next)
			}
			w.advance(active, in.target)
			w.advance(lanes&^active, next)
		}
	case leaving:
		if active != 0 && in.run != nil {
			in.run(w, active)
		}
		w.alive &^= active
		w.advance(lanes, next)
		if w.alive == 0 {
			w.block.left()
		}
	case collective:
		if active == 0 {
			w.held &^= lanes
			w.advance(lanes, next)
			return
		}
		want := in.want(w, bits.TrailingZeros32(active))
		if want&^w.alive != 0 {
			w.fault(codeLaunch, bits.TrailingZeros32(active), "waits for lanes %08x, and %08x are not there or have ended", want, want&^w.alive)
			return
		}
		if want&^active != 0 { // they are elsewhere, or the predicate leaves them out
			if want&^active&lanes != 0 || !w.split {
				w.fault(codeLaunch, bits.TrailingZeros32(active), "is for lanes %08x, and %08x pass it by", want, want&^active)
				return
			}
			w.held |= lanes
			return
		}
		w.held &^= lanes
		if t := w.block.tally; t != nil {
			t.issue(w, in, active)
		}
		in.run(w, active)
		w.advance(lanes, next)
	case atBarrier:
		if active == 0 {
			w.advance(lanes, next)
			return
		}
		if active != w.alive {
			w.fault(codeLaunch, bits.TrailingZeros32(active), "a barrier in divergent code: lanes %08x of %08x have come", active, w.alive)
			return
		}
		in.run(w, active)
		w.advance(lanes, next)
	}
}

// stuck tells of lanes that wait for others that do not come.
func (w *warp) stuck() {
	l := bits.TrailingZeros32(w.alive)
	w.at = int(w.pc[l])
	w.fault(codeLaunch, l, "lanes of the warp wait at different instructions, and none can go on")
}
