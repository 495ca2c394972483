package cpu

import (
	"fmt"
	"testing"
)

// A cover counts how often each row of each panel is computed, and how much of it by each worker.
type cover struct {
	seen   []int // row·panels + panel
	panels int
	by     []int
}

func (c *cover) add(worker, lo, hi, first, last int) {
	for r := lo; r < hi; r++ {
		for p := first; p < last; p++ {
			c.seen[r*c.panels+p]++
		}
	}
	c.by[worker] += (hi - lo) * (last - first)
}

// check fails unless everything was done once, and reports how much more the busiest worker has than its part.
func (c *cover) check(t *testing.T, what string) (over float64) {
	t.Helper()
	most := 0
	for _, n := range c.by {
		most = max(most, n)
	}
	for i, n := range c.seen {
		if n != 1 {
			t.Fatalf("%s: row %d of panel %d is computed %d times", what, i/c.panels, i%c.panels, n)
		}
	}
	return float64(most*len(c.by))/float64(len(c.seen)) - 1
}

// claimed calls f for the pieces that are meant for each worker.
func claimed(pieces, workers int, f func(worker, i int)) {
	for w := range workers {
		for i := pieces * w / workers; i < pieces*(w+1)/workers; i++ {
			f(w, i)
		}
	}
}

// Pieces cover a product once, and of the shapes that a training batch of SmolLM2 has every worker has as much.
func TestPieces(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		for _, rows := range []int{1, 15, 64, 200, 1087} {
			odd := [][2]int{{1, 1}, {33, 5000}, {2000, 700}}
			for i, s := range append(odd, smolLM2[:5]...) {
				n, k := s[0], s[1]
				what := fmt.Sprintf("%d x %d x %d on %d threads", rows, n, k, threads)
				even := threads <= 2 && rows >= 64 && i >= len(odd)
				l := linearTask{w: &weight{rows: n, cols: k}, rows: rows, terms: k}
				l.plan(threads)
				c := cover{make([]int, rows*l.w.panels()), l.w.panels(), make([]int, threads)}
				claimed(l.splits*l.runs, threads, func(w, i int) {
					s := i % l.splits
					c.add(w, rows*s/l.splits, rows*(s+1)/l.splits, l.first(i), l.first(i+l.splits))
				})
				if over := c.check(t, "Linear "+what); even && over > 0.02 {
					t.Errorf("Linear %s: the busiest has %.1f %% more than its part", what, 100*over)
				}
				g := linearGradTask{w: l.w, rows: rows}
				g.plan(threads)
				panels := ceilDiv(k, lanes)
				c = cover{make([]int, rows*panels), panels, make([]int, threads)}
				claimed(g.blocks*g.runs, threads, func(w, i int) {
					b, run := i/g.runs, i%g.runs
					c.add(w, rows*b/g.blocks, rows*(b+1)/g.blocks, panels*run/g.runs, panels*(run+1)/g.runs)
				})
				if over := c.check(t, "LinearGrad "+what); even && over > 0.02 {
					t.Errorf("LinearGrad %s: the busiest has %.1f %% more than its part", what, 100*over)
				}
			}
		}
	}
}
