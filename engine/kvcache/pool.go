// Package kvcache keeps count of the pages of the key-value cache: which are in use and by how many
// sequences, which hold a prefix that can be found again, and which is given up next. It has no
// tensors: a page is a number.
package kvcache

import (
	"fmt"
	"maps"
	"slices"
)

// A Node stands for one prefix of tokens in one space: a root for none, otherwise the prefix that
// ends with a findable page. Nodes are never used twice, so one that was given up finds nothing.
type Node uint64

// A Pool hands out pages, shares those whose whole prefix is the same, and takes back the least
// recently used. It is used by one goroutine at a time.
type Pool struct {
	size   int
	pages  []page // and one more: the head of the ring of idle pages, oldest first
	tokens []int32
	scores []float32
	table  []int32 // first page of each bucket, or none
	idle   int
	cached int
	roots  map[string]Node
	last   Node
}

// A page is idle when it has no references. It is findable when it has a node.
type page struct {
	refs       int32
	scored     bool  // the log-probabilities of its tokens are known
	prev, next int32 // in the ring of idle pages
	chain      int32 // the next page of the same bucket, or none
	node       Node
	parent     Node
	bucket     uint32
}

const none = -1

// New returns a pool of pages, numbered from 0, that hold size tokens each.
func New(pages, size int) *Pool {
	if pages < 1 || size < 1 || pages > 1<<31-2 {
		panic(fmt.Sprintf("kvcache: %d pages of %d tokens", pages, size))
	}
	buckets := 1
	for buckets < pages {
		buckets *= 2
	}
	p := &Pool{
		size:   size,
		pages:  make([]page, pages+1),
		tokens: make([]int32, pages*size),
		scores: make([]float32, pages*size),
		table:  make([]int32, buckets),
		roots:  map[string]Node{},
	}
	for i := range p.table {
		p.table[i] = none
	}
	ring := int32(pages)
	p.pages[ring].prev, p.pages[ring].next = ring, ring
	for i := ring - 1; i >= 0; i-- {
		p.rest(i)
	}
	return p
}

// Size is the tokens in a page.
func (p *Pool) Size() int { return p.size }

// Pages is how many pages there are.
func (p *Pool) Pages() int { return len(p.pages) - 1 }

// Idle is how many pages Take can hand out, those that hold a findable prefix included.
func (p *Pool) Idle() int { return p.idle }

// Cached is how many pages hold a findable prefix.
func (p *Pool) Cached() int { return p.cached }

// Need is how many pages hold n tokens.
func (p *Pool) Need(n int) int { return (n + p.size - 1) / p.size }

// Take hands out a page with one reference: one that holds nothing findable, else the least
// recently used of the idle ones.
func (p *Pool) Take() (int32, bool) {
	if p.idle == 0 {
		return none, false
	}
	i := p.pages[p.ring()].next
	p.wake(i)
	if p.pages[i].node != 0 {
		p.forget(i)
	}
	p.pages[i].refs = 1
	return i, true
}

// Release gives back one reference of page i. Give a sequence's pages back last first, so that of a
// prefix its end is given up before its beginning.
func (p *Pool) Release(i int32) {
	if p.pages[i].refs <= 0 {
		panic(fmt.Sprintf("kvcache: release of page %d, which is idle", i))
	}
	if p.pages[i].refs--; p.pages[i].refs == 0 {
		p.rest(i)
	}
}

// Root is the empty prefix in a space: prefixes of different spaces, such as those of different adapters, are
// never found for one another.
func (p *Pool) Root(space string) Node {
	n, ok := p.roots[space]
	if !ok {
		if len(p.roots) > 2*len(p.pages) {
			p.prune()
		}
		p.last++
		n = p.last
		p.roots[space] = n
	}
	return n
}

// prune forgets the roots that lead to no page: spaces are named by whoever asks, and there may be any
// number of them.
func (p *Pool) prune() {
	parents := make(map[Node]bool, p.cached)
	for i := range p.ring() {
		parents[p.pages[i].parent] = true
	}
	maps.DeleteFunc(p.roots, func(_ string, n Node) bool { return !parents[n] })
}

// Find looks for the page that continues parent with tokens, a page of them, and takes a reference.
func (p *Pool) Find(parent Node, tokens []int32) (i int32, n Node, ok bool) {
	i, n, ok = p.Peek(parent, tokens)
	if !ok {
		return none, 0, false
	}
	if p.pages[i].refs == 0 {
		p.wake(i)
	}
	p.pages[i].refs++
	return i, n, true
}

// Keep makes page i, which continues parent with tokens, findable and returns its node. Where another
// page is already found by that prefix, it stays the one, and its node is returned.
func (p *Pool) Keep(i int32, parent Node, tokens []int32) Node {
	if len(tokens) != p.size || p.pages[i].refs == 0 || p.pages[i].node != 0 {
		panic(fmt.Sprintf("kvcache: keep page %d (%d references, node %d) with %d tokens",
			i, p.pages[i].refs, p.pages[i].node, len(tokens)))
	}
	b := p.bucket(parent, tokens)
	if j := p.lookup(b, parent, tokens); j != none {
		return p.pages[j].node
	}
	p.last++
	copy(p.content(i), tokens)
	e := &p.pages[i]
	e.node, e.parent, e.bucket, e.chain = p.last, parent, b, p.table[b]
	p.table[b] = i
	p.cached++
	return e.node
}

// Drop makes every page unfindable: what they hold was made by weights that have changed. Nodes from
// before find nothing and lead nowhere after.
func (p *Pool) Drop() {
	for i := range p.ring() {
		p.pages[i].node, p.pages[i].parent, p.pages[i].scored = 0, 0, false
	}
	for b := range p.table {
		p.table[b] = none
	}
	clear(p.roots)
	p.cached = 0
}

func (p *Pool) ring() int32 { return int32(len(p.pages) - 1) }

// content is the tokens of findable page i.
func (p *Pool) content(i int32) []int32 { return p.tokens[int(i)*p.size:][:p.size] }

// bucket hashes a prefix. Hashes only choose the bucket; lookup compares the tokens.
func (p *Pool) bucket(parent Node, tokens []int32) uint32 {
	h := uint64(parent) * 0x9E3779B97F4A7C15
	for _, t := range tokens {
		h = (h ^ uint64(uint32(t))) * 0xD6E8FEB86659FD93
		h ^= h >> 32
	}
	return uint32(h) & uint32(len(p.table)-1)
}

func (p *Pool) lookup(bucket uint32, parent Node, tokens []int32) int32 {
	i := p.table[bucket]
	for i != none && (p.pages[i].parent != parent || !slices.Equal(p.content(i), tokens)) {
		i = p.pages[i].chain
	}
	return i
}

// forget takes page i out of the table.
func (p *Pool) forget(i int32) {
	e := &p.pages[i]
	at := &p.table[e.bucket]
	for *at != i {
		at = &p.pages[*at].chain
	}
	*at = e.chain
	e.node, e.parent, e.scored = 0, 0, false
	p.cached--
}

// rest puts page i among the idle ones: newest if it can be found, else first to be taken.
func (p *Pool) rest(i int32) {
	after := p.ring()
	if p.pages[i].node != 0 {
		after = p.pages[p.ring()].prev
	}
	before := p.pages[after].next
	p.pages[i].prev, p.pages[i].next = after, before
	p.pages[after].next, p.pages[before].prev = i, i
	p.idle++
}

// wake takes page i out of the idle ones.
func (p *Pool) wake(i int32) {
	e := p.pages[i]
	p.pages[e.prev].next, p.pages[e.next].prev = e.next, e.prev
	p.idle--
}
