package kvcache

import "fmt"

// Check reports the first way in which the pool contradicts itself or its users. owners yields the
// pages of each sequence.
func (p *Pool) Check(owners func(yield func(pages []int32) bool)) error {
	refs := make([]int32, p.Pages())
	for pages := range owners {
		for _, i := range pages {
			if i < 0 || int(i) >= len(refs) {
				return fmt.Errorf("kvcache: a sequence holds page %d of %d", i, len(refs))
			}
			refs[i]++
		}
	}
	for i, n := range refs {
		if p.pages[i].refs != n {
			return fmt.Errorf("kvcache: page %d counts %d references, %d sequences hold it", i, p.pages[i].refs, n)
		}
	}
	if err := p.checkIdle(); err != nil {
		return err
	}
	return p.checkTable()
}

// checkIdle walks the ring of idle pages.
func (p *Pool) checkIdle() error {
	idle, findable := 0, false
	for i := p.pages[p.ring()].next; i != p.ring(); i = p.pages[i].next {
		e := p.pages[i]
		if e.refs != 0 || p.pages[e.next].prev != i || idle == p.Pages() {
			return fmt.Errorf("kvcache: page %d does not belong among the idle ones (%d references)", i, e.refs)
		}
		if findable && e.node == 0 {
			return fmt.Errorf("kvcache: page %d holds nothing and stands behind one that does", i)
		}
		findable = e.node != 0
		idle++
	}
	free := 0
	for _, e := range p.pages[:p.Pages()] {
		if e.refs == 0 {
			free++
		}
	}
	if idle != p.idle || idle != free {
		return fmt.Errorf("kvcache: %d idle pages counted, %d in the ring, %d without references", p.idle, idle, free)
	}
	return nil
}

// checkTable walks the buckets.
func (p *Pool) checkTable() error {
	found := 0
	for b, i := range p.table {
		for ; i != none; i = p.pages[i].chain {
			e := p.pages[i]
			if e.node == 0 || int(e.bucket) != b || p.bucket(e.parent, p.content(i)) != e.bucket {
				return fmt.Errorf("kvcache: page %d (node %d) does not belong in bucket %d", i, e.node, b)
			}
			found++
		}
	}
	findable := 0
	for _, e := range p.pages[:p.Pages()] {
		if e.node != 0 {
			findable++
		}
	}
	if found != findable || found != p.cached {
		return fmt.Errorf("kvcache: %d findable pages counted, %d in the table, %d with a node", p.cached, found, findable)
	}
	return nil
}
