package grammar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Grammar is a compiled form. It is read-only.
type Grammar struct {
	nodes   []node
	start   int32
	ends    []bool     // of each node: whether its rule can be left from there
	class   [256]uint8 // bytes of one class are in the same sets
	classes int
}

func compile(p part) (*Grammar, error) {
	b := &builder{}
	end := b.node(node{kind: leave})
	g := &Grammar{start: p(b, end)}
	if b.err != nil {
		return nil, b.err
	}
	g.nodes = b.nodes
	g.findEnds()
	g.findClasses()
	m := newMachine(g)
	if m.err != nil {
		return nil, m.err
	}
	if first := m.state(0); len(first.configs) == 0 && !first.whole {
		return nil, errors.New("the form allows no answer at all")
	}
	return g, nil
}

// A config is a place in a grammar: a node that reads a byte, and what follows when its rule is left.
type config struct{ node, stack int32 }

// A state is all places a text may have led to.
type state struct {
	configs []config // of nodes that read, sorted
	whole   bool     // the text may end here
	next    []int32  // by class of byte
}

const (
	unknown = 0 // in state.next, whose other entries are one more than the state
	dead    = -1
)

// What one form may take. A form that would take more is an error, so that none holds up the others.
const (
	manyPlaces = 1 << 12
	manyBytes  = 64 << 20 // of states
	manySteps  = 1 << 21  // places looked at to work out what may follow once: some tenths of a second
)

// A machine runs a grammar over bytes, making states as they are met.
type machine struct {
	g      *Grammar
	states []state
	known  map[string]int32
	stacks []config         // of each stack but 0, the empty one: what it returns to, and the stack below
	deeper map[config]int32 // by those
	seen   map[config]bool
	key    []byte
	bytes  int // that the states take
	steps  int // since rest
	err    error
}

func newMachine(g *Grammar) *machine {
	m := &machine{g: g, known: map[string]int32{}, stacks: make([]config, 1), deeper: map[config]int32{}, seen: map[config]bool{}}
	m.begin()
	m.close(config{g.start, 0})
	m.intern()
	return m
}

func (m *machine) state(i int32) *state { return &m.states[i] }

// rest begins to count steps anew.
func (m *machine) rest() { m.steps = 0 }

// begin clears the place where a state is put together.
func (m *machine) begin() {
	clear(m.seen)
	m.states = append(m.states, state{})
}

// close adds a place to the last state, followed through forks, calls and ends of rules to nodes that
// read.
func (m *machine) close(c config) {
	if m.seen[c] || len(m.seen) > manyPlaces || !m.g.ends[c.node] {
		return
	}
	m.seen[c] = true
	m.steps++
	s := &m.states[len(m.states)-1]
	switch n := m.g.nodes[c.node]; n.kind {
	case read:
		s.configs = append(s.configs, c)
	case fork:
		m.close(config{n.next, c.stack})
		m.close(config{n.other, c.stack})
	case call:
		m.close(config{n.other, m.push(config{n.next, c.stack})})
	case leave:
		if c.stack == 0 {
			s.whole = true
			return
		}
		m.close(m.stacks[c.stack])
	}
}

func (m *machine) push(c config) int32 {
	if i, ok := m.deeper[c]; ok {
		return i
	}
	m.stacks = append(m.stacks, c)
	m.bytes += 40
	i := int32(len(m.stacks) - 1)
	m.deeper[c] = i
	return i
}

// intern finishes the last state and returns its number, or that of an equal one there was.
func (m *machine) intern() int32 {
	s := &m.states[len(m.states)-1]
	switch {
	case len(m.seen) > manyPlaces:
		m.err = fmt.Errorf("the form is too ambiguous: a text can be in more than %d places of it at once", manyPlaces)
	case m.bytes > manyBytes:
		m.err = fmt.Errorf("the form is too ambiguous: what can follow takes more than %d MiB to write down", manyBytes>>20)
	case m.steps > manySteps:
		m.err = fmt.Errorf("the form is too ambiguous: finding what can follow takes more than %d steps", manySteps)
	}
	slices.SortFunc(s.configs, func(a, b config) int { return int(a.node) - int(b.node) + (int(a.stack)-int(b.stack))<<24 })
	m.key = m.key[:0]
	for _, c := range s.configs {
		m.key = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(m.key, uint32(c.node)), uint32(c.stack))
	}
	if s.whole {
		m.key = append(m.key, 1)
	}
	if i, ok := m.known[string(m.key)]; ok {
		m.states = m.states[:len(m.states)-1]
		return i
	}
	i := int32(len(m.states) - 1)
	m.known[string(m.key)] = i
	m.bytes += 2*len(m.key) + 4*m.g.classes + 200
	return i
}

// step is the state after one more byte, or dead.
func (m *machine) step(i int32, b byte) int32 {
	s, class := &m.states[i], m.g.class[b]
	if s.next == nil {
		s.next = make([]int32, m.g.classes)
	}
	if to := s.next[class]; to != unknown {
		if to == dead {
			return dead
		}
		return to - 1
	}
	table, configs := s.next, s.configs
	m.begin()
	m.steps += len(configs)
	for _, c := range configs {
		if n := &m.g.nodes[c.node]; n.set.has(b) {
			m.close(config{n.next, c.stack})
		}
	}
	if last := &m.states[len(m.states)-1]; len(last.configs) == 0 && !last.whole || m.err != nil {
		m.states = m.states[:len(m.states)-1]
		table[class] = dead
		return dead
	}
	to := m.intern()
	table[class] = to + 1
	return to
}

// ends reports whether nothing can follow.
func (m *machine) ends(i int32) bool { return m.states[i].whole && len(m.states[i].configs) == 0 }
