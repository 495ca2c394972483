package sample

import (
	"fmt"
	"slices"
)

// A Form says which ids may follow where the form of a completion is given. A completion's state is a
// number, 0 at its start. One that may fail has a method Err() error too, which is asked after each Allow.
type Form interface {
	// Allow sets mask, ⌈vocab/32⌉ words, to the ids that may follow state.
	Allow(state int32, mask []uint32)
	// Next returns the state after id and whether the completion is complete. ok is false for an id
	// that Allow does not allow.
	Next(state, id int32) (next int32, done, ok bool)
}

var _ Form = (*Choices)(nil)

// Choices is a set of completions of which one must be drawn, as a trie. A completion's state is a
// node, 0 at its start. Where a choice is complete and a longer one goes on, a stop id ends it.
type Choices struct {
	nodes []choice
	stop  []int32
	depth int
}

// choice is a node: its token, its first child, its next sibling (0: none).
type choice struct {
	id          int32
	child, next int32
	whole       bool // a choice ends here
}

// NewChoices reads the choices. It refuses none, an empty one, an id outside the vocabulary, and one that
// another continues unless there is a stop id to tell them apart.
func NewChoices(choices [][]int32, stop []int32, vocab int) (*Choices, error) {
	if len(choices) == 0 {
		return nil, fmt.Errorf("choices: there are none to choose from")
	}
	for _, id := range stop {
		if id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("choices: stop id %d, the vocabulary has %d", id, vocab)
		}
	}
	c := &Choices{nodes: make([]choice, 1), stop: slices.Clone(stop)}
	for i, tokens := range choices {
		if len(tokens) == 0 {
			return nil, fmt.Errorf("choices: choice %d is empty", i)
		}
		at := int32(0)
		for _, id := range tokens {
			if id < 0 || int(id) >= vocab {
				return nil, fmt.Errorf("choices: choice %d has token %d, the vocabulary has %d", i, id, vocab)
			}
			at = c.add(at, id)
		}
		c.nodes[at].whole = true
		c.depth = max(c.depth, len(tokens))
	}
	for i, tokens := range choices {
		end := c.walk(tokens)
		if c.nodes[end].child == 0 {
			continue
		}
		if len(stop) == 0 {
			return nil, fmt.Errorf("choices: another choice begins with choice %d: a stop id must tell where it ends", i)
		}
		for _, id := range stop {
			if c.step(end, id) != 0 {
				return nil, fmt.Errorf("choices: after choice %d the stop id %d also continues another choice", i, id)
			}
		}
	}
	return c, nil
}

// Longest is the most tokens a completion can have, its stop id included.
func (c *Choices) Longest() int { return c.depth }

// Allow sets mask, ⌈vocab/32⌉ words, to the ids that may follow node.
func (c *Choices) Allow(node int32, mask []uint32) {
	clear(mask)
	first := c.nodes[node].child
	for at := first; at != 0; at = c.nodes[at].next {
		mask[c.nodes[at].id/32] |= 1 << (c.nodes[at].id % 32)
	}
	if c.nodes[node].whole && first != 0 {
		for _, id := range c.stop {
			mask[id/32] |= 1 << (id % 32)
		}
	}
}

// Next returns the node after id and whether the completion is complete. ok is false for an id
// that Allow does not allow.
func (c *Choices) Next(node, id int32) (next int32, done, ok bool) {
	if next = c.step(node, id); next != 0 {
		return next, c.nodes[next].whole && c.nodes[next].child == 0, true
	}
	ok = c.nodes[node].whole && c.nodes[node].child != 0 && slices.Contains(c.stop, id)
	return node, ok, ok
}

// Masks appends to dst the masks under which the tokens of a completion were drawn, ⌈vocab/32⌉
// words each: what the trainer needs to score them as the sampler did.
func (c *Choices) Masks(dst []uint32, completion []int32, vocab int) ([]uint32, error) {
	words, node := (vocab+31)/32, int32(0)
	done, ok := false, false
	for i, id := range completion {
		n := len(dst)
		dst = slices.Grow(dst, words)[:n+words]
		c.Allow(node, dst[n:])
		over := done
		if node, done, ok = c.Next(node, id); over || !ok {
			return dst, fmt.Errorf("choices: token %d of the completion, id %d, is in none of them", i, id)
		}
	}
	return dst, nil
}

// step is the child of node with id, or 0.
func (c *Choices) step(node, id int32) int32 {
	at := c.nodes[node].child
	for at != 0 && c.nodes[at].id != id {
		at = c.nodes[at].next
	}
	return at
}

// add returns the child of node with id, made if need be.
func (c *Choices) add(node, id int32) int32 {
	if at := c.step(node, id); at != 0 {
		return at
	}
	at := int32(len(c.nodes))
	c.nodes = append(c.nodes, choice{id: id, next: c.nodes[node].child})
	c.nodes[node].child = at
	return at
}

// walk is the node that a choice ends at.
func (c *Choices) walk(tokens []int32) (node int32) {
	for _, id := range tokens {
		node = c.step(node, id)
	}
	return node
}
