package kvcache

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// held is a sequence of the test: its pages, the tokens they hold and the node they end at.
type held struct {
	adapter int
	pages   []int32
	tokens  []int32
	node    Node
}

// machine plays sequences against a map of what each page holds.
type machine struct {
	pool    *Pool
	running []*held
	holds   map[int32]string // the whole prefix that was last written to a page
	scored  int              // pages found with their scores
}

func (m *machine) key(s *held, pages int) string {
	return fmt.Sprint(s.adapter, s.tokens[:pages*m.pool.Size()])
}

// start follows what can be found of a random prefix, and takes pages for the rest.
func (m *machine) start(t *rapid.T) {
	s := &held{adapter: rapid.IntRange(0, 1).Draw(t, "adapter")}
	n := rapid.IntRange(0, 4).Draw(t, "pages") * m.pool.Size()
	s.tokens = rapid.SliceOfN(rapid.Int32Range(0, 1), n, n).Draw(t, "tokens")
	s.node = m.pool.Root(fmt.Sprint(s.adapter))
	for len(s.pages)*m.pool.Size() < n {
		i, node, ok := m.pool.Find(s.node, s.tokens[len(s.pages)*m.pool.Size():][:m.pool.Size()])
		if !ok {
			break
		}
		s.pages, s.node = append(s.pages, i), node
		if got, want := m.holds[i], m.key(s, len(s.pages)); got != want {
			t.Fatalf("page %d was found for %s and holds %s", i, want, got)
		}
		if scores, ok := m.pool.Scores(i); ok && !slices.Equal(scores, m.scores(s, len(s.pages))) {
			t.Fatalf("page %d of %s has scores %v, want %v", i, m.holds[i], scores, m.scores(s, len(s.pages)))
		} else if ok {
			m.scored++
		}
	}
	m.running = append(m.running, s)
	for len(s.pages)*m.pool.Size() < n {
		idle := m.pool.Idle()
		i, ok := m.pool.Take()
		if ok != (idle > 0) {
			t.Fatalf("take with %d idle pages: %v", idle, ok)
		}
		if !ok {
			s.tokens = s.tokens[:len(s.pages)*m.pool.Size()]
			return
		}
		for _, other := range m.running {
			if slices.Contains(other.pages, i) {
				t.Fatalf("page %d was taken and is in use", i)
			}
		}
		s.pages = append(s.pages, i)
		m.holds[i] = m.key(s, len(s.pages))
		parent, tokens := s.node, s.tokens[(len(s.pages)-1)*m.pool.Size():][:m.pool.Size()]
		s.node = m.pool.Keep(i, parent, tokens)
		if j, _, ok := m.pool.Peek(parent, tokens); ok && rapid.Bool().Draw(t, "scored") {
			m.pool.SetScores(j, m.scores(s, len(s.pages)))
		}
	}
}

// scores are a function of the whole prefix.
func (m *machine) scores(s *held, pages int) []float32 {
	out := make([]float32, m.pool.Size())
	for i := range out {
		h := fnv.New32()
		fmt.Fprint(h, m.key(s, pages), i)
		out[i] = float32(h.Sum32())
	}
	return out
}

func (m *machine) finish(t *rapid.T) {
	if len(m.running) == 0 {
		t.Skip("nothing runs")
	}
	at := rapid.IntRange(0, len(m.running)-1).Draw(t, "which")
	for _, i := range slices.Backward(m.running[at].pages) {
		m.pool.Release(i)
	}
	m.running = slices.Delete(m.running, at, at+1)
}

// drop is what a change of weights does: nothing from before is found.
func (m *machine) drop(t *rapid.T) {
	m.pool.Drop()
	m.holds = map[int32]string{}
	if m.pool.Cached() != 0 {
		t.Fatalf("%d pages are findable after a drop", m.pool.Cached())
	}
}

func (m *machine) check(t *rapid.T) {
	err := m.pool.Check(func(yield func([]int32) bool) {
		for _, s := range m.running {
			if !yield(s.pages) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Pages are never in two hands unless both hold the same prefix, none is lost, and a page found holds
// what it is found for.
func TestPool(t *testing.T) {
	scored := 0
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			pool:  New(rapid.IntRange(1, 12).Draw(t, "pool"), rapid.IntRange(1, 3).Draw(t, "size")),
			holds: map[int32]string{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": m.start, "again": m.start, "finish": m.finish, "drop": m.drop, "": m.check,
		})
		scored += m.scored
	})
	if scored == 0 {
		t.Errorf("no page was found with its scores: that was not tried")
	}
}

// The least recently used prefix is given up first, its end before its beginning, and only when no
// empty page is left.
func TestEviction(t *testing.T) {
	p := New(5, 1)
	chain := func(tokens ...int32) (pages []int32) {
		at := p.Root("")
		for _, id := range tokens {
			i, n, ok := p.Find(at, []int32{id})
			if !ok {
				i, _ = p.Take()
				n = p.Keep(i, at, []int32{id})
			}
			pages, at = append(pages, i), n
		}
		for _, i := range slices.Backward(pages) {
			p.Release(i)
		}
		return pages
	}
	// found looks without using.
	found := func(tokens ...int32) (n int) {
		at := p.Root("")
		for ; n < len(tokens); n++ {
			i := p.lookup(p.bucket(at, tokens[n:n+1]), at, tokens[n:n+1])
			if i == none {
				break
			}
			at = p.pages[i].node
		}
		return n
	}
	a := chain(1, 2)
	chain(3, 4)
	if p.Cached() != 4 || p.Idle() != 5 {
		t.Fatalf("%d findable, %d idle", p.Cached(), p.Idle())
	}
	chain(1, 2) // used again
	var last int32
	for _, want := range [][2]int{{2, 2}, {2, 1}, {2, 0}, {1, 0}, {0, 0}} {
		i, ok := p.Take()
		if !ok {
			t.Fatal("no page")
		}
		last = i
		if got := [2]int{found(1, 2), found(3, 4)}; got != want {
			t.Errorf("found %v of the two prefixes, want %v", got, want)
		}
	}
	if _, ok := p.Take(); ok {
		t.Error("a sixth page of five")
	}
	if p.Cached() != 0 || last != a[0] {
		t.Errorf("page %d was given up last, want %d, the beginning of the prefix used last; %d findable", last, a[0], p.Cached())
	}
}

// Prefixes with equal hashes are told apart by their tokens.
func TestCollision(t *testing.T) {
	p := New(1, 1) // one bucket
	a, _ := p.Take()
	n := p.Keep(a, p.Root(""), []int32{5})
	if _, _, ok := p.Find(p.Root(""), []int32{6}); ok {
		t.Error("found by another token")
	}
	if _, _, ok := p.Find(p.Root("1"), []int32{5}); ok {
		t.Error("found under another adapter")
	}
	if _, _, ok := p.Find(n, []int32{5}); ok {
		t.Error("found after another prefix")
	}
	if i, m, ok := p.Find(p.Root(""), []int32{5}); !ok || i != a || m != n {
		t.Error("not found by its own")
	}
}

func TestCheckSees(t *testing.T) {
	none := func(func([]int32) bool) {}
	for name, c := range map[string]struct {
		spoil func(p *Pool)
		want  string
	}{
		"lost page":     {func(p *Pool) { p.Take() }, "counts 1 references, 0 sequences"},
		"lost idle":     {func(p *Pool) { p.wake(2) }, "idle pages counted"},
		"lost entry":    {func(p *Pool) { p.table[p.pages[0].bucket] = -1 }, "findable pages counted"},
		"changed token": {func(p *Pool) { p.tokens[0]++ }, "does not belong in bucket"},
	} {
		p := New(64, 1)
		i, _ := p.Take()
		p.Keep(i, p.Root(""), []int32{5})
		p.Release(i)
		if err := p.Check(none); i != 0 || err != nil {
			t.Fatalf("page %d: %v", i, err)
		}
		c.spoil(p)
		if err := p.Check(none); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Any number of spaces may be named: those that lead to no page are forgotten, the others are not.
func TestManySpaces(t *testing.T) {
	p := New(4, 1)
	for n := range 3 {
		i, _ := p.Take()
		p.Keep(i, p.Root(fmt.Sprint("kept ", n)), []int32{5})
		p.Release(i)
	}
	for n := range 1000 {
		p.Root(fmt.Sprint(n))
	}
	if len(p.roots) > 20 {
		t.Errorf("%d roots for 4 pages", len(p.roots))
	}
	for n := range 3 {
		if _, _, ok := p.Find(p.Root(fmt.Sprint("kept ", n)), []int32{5}); !ok {
			t.Errorf("page %d is lost", n)
		}
	}
}

func TestPoolAllocates(t *testing.T) {
	p := New(8, 2)
	tokens := []int32{0, 0}
	if n := testing.AllocsPerRun(200, func() {
		tokens[0]++
		i, _ := p.Take()
		p.Keep(i, p.Root("1"), tokens)
		p.Release(i)
		j, _, _ := p.Find(p.Root("1"), tokens)
		p.Release(j)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
