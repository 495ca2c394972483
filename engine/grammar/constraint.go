package grammar

import (
	"slices"
	"sync"
)

// A Vocabulary is the bytes of every token as a tree, made once for a tokenizer. It is read-only.
type Vocabulary struct {
	size  int
	eos   []int32
	bytes [][]byte
	tree  []branch
}

// A branch is a byte after those of its parent: its first child, its next sibling (0: none), and the
// first of the tokens that end with it, the others linked by Vocabulary.same.
type branch struct {
	b           byte
	child, next int32
	tokens      []int32
}

// NewVocabulary takes the bytes of each id; an id without bytes (a special token) is never allowed, but
// for the eos ids where an answer may end.
func NewVocabulary(tokens [][]byte, eos []int32) *Vocabulary {
	v := &Vocabulary{size: len(tokens), eos: slices.Clone(eos), bytes: tokens, tree: make([]branch, 1)}
	for id, b := range tokens {
		if len(b) > 0 && !slices.Contains(eos, int32(id)) {
			at := int32(0)
			for _, c := range b {
				at = v.grow(at, c)
			}
			v.tree[at].tokens = append(v.tree[at].tokens, int32(id))
		}
	}
	return v
}

func (v *Vocabulary) grow(at int32, b byte) int32 {
	for c := v.tree[at].child; c != 0; c = v.tree[c].next {
		if v.tree[c].b == b {
			return c
		}
	}
	c := int32(len(v.tree))
	v.tree = append(v.tree, branch{b: b, next: v.tree[at].child})
	v.tree[at].child = c
	return c
}

// A Constraint is a grammar over a vocabulary. A completion's state is a number, 0 at its start. It
// keeps what it has worked out, for all completions of the same form, and is safe for concurrent use.
type Constraint struct {
	v *Vocabulary

	mu    sync.Mutex
	m     *machine
	masks map[int32][]uint32
}

// keptMasks is how many states' bit sets are kept.
const keptMasks = 2048

// NewConstraint makes one.
func NewConstraint(g *Grammar, v *Vocabulary) *Constraint {
	return &Constraint{v: v, m: newMachine(g), masks: map[int32][]uint32{}}
}

// Allow sets mask, ⌈vocabulary/32⌉ words, to the ids that may follow state.
func (c *Constraint) Allow(state int32, mask []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.masks[state]
	if !ok {
		kept = make([]uint32, (c.v.size+31)/32)
		c.walk(0, state, kept)
		if c.m.state(state).whole {
			for _, id := range c.v.eos {
				kept[id/32] |= 1 << (id % 32)
			}
		}
		if len(c.masks) >= keptMasks {
			clear(c.masks)
		}
		c.masks[state] = kept
	}
	copy(mask, kept)
}

// walk allows the tokens below a branch whose bytes the machine can read from state.
func (c *Constraint) walk(at, state int32, mask []uint32) {
	for i := c.v.tree[at].child; i != 0; i = c.v.tree[i].next {
		to := c.m.step(state, c.v.tree[i].b)
		if to == dead {
			continue
		}
		for _, id := range c.v.tree[i].tokens {
			mask[id/32] |= 1 << (id % 32)
		}
		c.walk(i, to, mask)
	}
}

// Next returns the state after id and whether the completion is complete: at an eos id, or where nothing
// could follow. ok is false for an id that Allow does not allow.
func (c *Constraint) Next(state, id int32) (next int32, done, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.v.eos, id) {
		whole := c.m.state(state).whole
		return state, whole, whole
	}
	if id < 0 || int(id) >= c.v.size || len(c.v.bytes[id]) == 0 {
		return state, false, false
	}
	next = state
	for _, b := range c.v.bytes[id] {
		if next = c.m.step(next, b); next == dead {
			return state, false, false
		}
	}
	return next, c.m.ends(next), true
}

// Err says that a form has grown beyond what is kept, after which more is forbidden than it should be.
func (c *Constraint) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.err
}
