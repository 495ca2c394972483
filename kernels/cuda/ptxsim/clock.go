package ptxsim

import "math/bits"

// Order between threads is kept by vector clocks, as in FastTrack (Flanagan and Freund 2009). Each thread counts
// what it has let others know of; known[l][t] is what lane l knows of thread t. An access of thread t at its time c
// comes before all that a thread does which knows c of t. Known slices are shared and never changed.

// knows reports whether a lane knows of what thread t did at time c.
func (w *warp) knows(lane, t int, c uint32) bool {
	return t == w.first+lane || w.known[lane][t] >= c
}

// A signal gathers what threads let others know.
type signal struct {
	known []uint32
	last  *uint32 // of the slice that was joined last
}

// give adds to s what the lanes know, and what they have done themselves; what they do from now on is later.
func (s *signal) give(w *warp, lanes uint32) {
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
		s.known[w.first+l] = max(s.known[w.first+l], w.time[l])
		w.time[l]++
	}
}

// take lets the lanes know what s gathered. s must not change after it.
func (s *signal) take(w *warp, lanes uint32) {
	for m := lanes; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		w.known[l] = join(w.known[l], s.known)
	}
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
