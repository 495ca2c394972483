package ptxsim

import "math/bits"

// Order between threads is kept by vector clocks, as in FastTrack (Flanagan and Freund 2009). Each thread counts
// what it has let others know of; known[l][t] is what lane l knows of thread t. An access of thread t at its time c
// comes before all that a thread does which knows c of t. Known slices are shared and never changed.
//
// Threads are those of a cluster of blocks. Units that work by themselves are threads too, beyond those of their block: an agent for each mbarrier (of the copies that
// complete on it), and for each thread that stores tiles or multiplies by warpgroup. What the ordinary threads have written
// they see only through fence.proxy.async: fenced[l][t] is what lane l knows of thread t by way of one.

// knows reports whether a lane knows of what thread t did at time c.
func (w *warp) knows(lane, t int, c uint32) bool {
	return t == w.clock+lane || w.known[lane][t] >= c
}

// A signal gathers what threads let others know.
type signal struct {
	known  []uint32
	fenced []uint32
	heard  heard
	last   *uint32 // of the slice that was joined last
}

// give adds to s what the lanes know, and what they have done themselves; what they do from now on is later.
func (s *signal) give(w *warp, lanes uint32) {
	if w.block.survey {
		return
	}
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		k := w.known[l]
		switch {
		case s.known == nil:
			s.known = append([]uint32(nil), k...)
		case s.last != &k[0]:
			for i, c := range k {
				s.known[i] = max(s.known[i], c)
			}
		}
		s.last = &k[0]
		if w.fenced[l] != nil {
			s.fenced = joined(s.fenced, w.fenced[l])
		}
		if w.heard[l] != nil {
			s.heard = s.heard.and(w.heard[l])
		}
		s.known[w.clock+l] = max(s.known[w.clock+l], w.time[l])
		w.time[l]++
	}
}

// take lets the lanes know what s gathered. s must not change after it.
func (s *signal) take(w *warp, lanes uint32) {
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		if s.known != nil {
			w.known[l] = join(w.known[l], s.known)
		}
		if s.fenced != nil {
			w.fenced[l] = joined(w.fenced[l], s.fenced)
		}
		if s.heard != nil {
			w.heard[l] = w.heard[l].and(s.heard)
		}
	}
}

// joined is join where a may be nil, for nothing.
func joined(a, b []uint32) []uint32 {
	if a == nil {
		return b
	}
	return join(a, b)
}

// fence is fence.proxy.async: what a lane has done and knows may be seen by units that work by themselves, once they
// come after it.
func (w *warp) fence(lanes uint32) {
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		all := append([]uint32(nil), w.known[l]...)
		all[w.clock+l] = w.time[l]
		w.time[l]++
		w.fenced[l] = joined(w.fenced[l], all)
	}
}

// seen reports whether a unit that a lane starts sees what thread t wrote at time c.
func (w *warp) seen(lane, t int, c uint32) bool {
	return w.fenced[lane] != nil && w.fenced[lane][t] >= c
}

// learn lets lanes know what an agent has done up to time c.
func (w *warp) learn(lanes uint32, agent int, c uint32) {
	var s signal
	s.known = append([]uint32(nil), w.known[bits.TrailingZeros32(lanes)&31]...)
	s.known[agent] = max(s.known[agent], c)
	s.take(w, lanes)
}

// mostAgents is how many units of a block can work by themselves.
const mostAgents = 64

// agent is the thread number of the unit of a thing: an mbarrier's offset, or a thread's kind of work.
func (w *warp) agent(of any, lane int) (int, bool) {
	b := w.block
	i, ok := b.agentOf[of]
	if !ok {
		if i = len(b.agentOf); i == mostAgents {
			w.fault(codeLaunch, lane, "%d mbarriers, and threads that store tiles and warps that multiply by warpgroup, are simulated in a block", mostAgents)
			return 0, false
		}
		b.agentOf[of] = i
	}
	return b.rank*b.each + 32*len(b.warps) + i, true
}

// join is the larger of both, element by element: b itself where it is that.
func join(a, b []uint32) []uint32 {
	for i := range a {
		if a[i] > b[i] {
			c := append([]uint32(nil), b...)
			for i, v := range a {
				c[i] = max(c[i], v)
			}
			return c
		}
	}
	return b
}
