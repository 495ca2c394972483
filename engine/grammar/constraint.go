package grammar

import (
	"slices"
	"sync"
)

// A Vocabulary is the bytes of every token as a tree, made once for a tokenizer. It is read-only.
type Vocabulary struct {
	size    int
	eos     []int32
	bytes   [][]byte
	tree    []branch // parents before children, and each whole subtree before the next
	ids     []int32  // the tokens' ids in the order of the tree
	longest int
}

// A branch is a byte after those of its parent. Its tokens are those that end with it.
type branch struct {
	b           byte
	depth       int32 // bytes before it
	first, last int32 // its tokens are ids[first:last]
	skip        int32 // the branch after its subtree
}

// NewVocabulary takes the bytes of each id; an id without bytes (a special token) is never allowed, but
// for the eos ids where an answer may end.
func NewVocabulary(tokens [][]byte, eos []int32) *Vocabulary {
	v := &Vocabulary{size: len(tokens), eos: slices.Clone(eos), bytes: tokens}
	for id, b := range tokens {
		if len(b) > 0 && !slices.Contains(eos, int32(id)) {
			v.ids = append(v.ids, int32(id))
		}
	}
	slices.SortFunc(v.ids, func(a, b int32) int { return slices.Compare(tokens[a], tokens[b]) })
	var path []int32 // the branches of the token before
	for i, id := range v.ids {
		b := tokens[id]
		same := 0
		for same < len(path) && same < len(b) && v.tree[path[same]].b == b[same] {
			same++
		}
		v.leave(path[same:])
		path = path[:same]
		for depth := same; depth < len(b); depth++ {
			path = append(path, int32(len(v.tree)))
			v.tree = append(v.tree, branch{b: b[depth], depth: int32(depth)})
		}
		end := &v.tree[path[len(b)-1]] // a token sorts before those it begins
		if end.first == end.last {
			end.first = int32(i)
		}
		end.last = int32(i + 1)
		v.longest = max(v.longest, len(b))
	}
	v.leave(path)
	return v
}

// leave ends the subtrees of branches.
func (v *Vocabulary) leave(path []int32) {
	for _, i := range path {
		v.tree[i].skip = int32(len(v.tree))
	}
}

// A Constraint is a grammar over a vocabulary. A completion's state is a number, 0 at its start. It
// keeps what it has worked out, for all completions of the same form, and is safe for concurrent use.
type Constraint struct {
	v *Vocabulary

	mu    sync.Mutex
	m     *machine
	path  []int32 // the states after the bytes above a branch
	masks map[int32][]uint32
}

// keptMasks is how many bytes of bit sets are kept.
const keptMasks = 4 << 20

// NewConstraint makes one.
func NewConstraint(g *Grammar, v *Vocabulary) *Constraint {
	return &Constraint{v: v, m: newMachine(g), path: make([]int32, v.longest+1), masks: map[int32][]uint32{}}
}

// Allow sets mask, ⌈vocabulary/32⌉ words, to the ids that may follow state.
func (c *Constraint) Allow(state int32, mask []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.masks[state]
	if !ok {
		kept = make([]uint32, (c.v.size+31)/32)
		c.m.rest()
		c.walk(state, kept)
		if c.m.state(state).whole {
			for _, id := range c.v.eos {
				kept[id/32] |= 1 << (id % 32)
			}
		}
		if len(c.masks) >= max(16, keptMasks/max(1, 4*len(kept))) {
			clear(c.masks)
		}
		if c.m.err == nil {
			c.masks[state] = kept
		}
	}
	copy(mask, kept)
}

// walk allows the tokens whose bytes the machine can read from state.
func (c *Constraint) walk(state int32, mask []uint32) {
	c.path[0] = state
	for i := int32(0); int(i) < len(c.v.tree); {
		n := &c.v.tree[i]
		to := c.m.step(c.path[n.depth], n.b)
		if to == dead {
			i = n.skip
			continue
		}
		for _, id := range c.v.ids[n.first:n.last] {
			mask[id/32] |= 1 << (id % 32)
		}
		c.path[n.depth+1] = to
		i++
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
	c.m.rest()
	for _, b := range c.v.bytes[id] {
		if next = c.m.step(next, b); next == dead {
			return state, false, false
		}
	}
	return next, c.m.ends(next), true
}

// Full reports whether so much has been worked out that a new form should take c's place: further completions
// might bring it to its bound.
func (c *Constraint) Full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.bytes > manyBytes/2 || c.m.err != nil
}

// Err says that a form has grown beyond what is kept, after which more is forbidden than it should be.
func (c *Constraint) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.err
}
