// Package grammar says which tokens may follow where an answer's form is given: by a regular
// expression, a JSON schema, or as any JSON object. A form is compiled to a machine over bytes that may
// call itself (so that JSON nests without a limit), and the machine is run over the bytes of the
// vocabulary's tokens: what it allows after each state is a bit set, made when it is first asked for
// and kept.
package grammar

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// A set is a set of bytes.
type set [4]uint64

func (s *set) add(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		s[b/64] |= 1 << (b % 64)
	}
}

func (s *set) has(b byte) bool { return s[b/64]>>(b%64)&1 == 1 }

// A kind is what a node does.
type kind uint8

const (
	read  kind = iota // one byte of set, then next
	fork              // next or other
	call              // the rule that begins at other, then next
	leave             // the end of a rule
)

type node struct {
	kind        kind
	set         set
	next, other int32
}

// most is how many nodes a form may have.
const most = 1 << 17

// A builder makes nodes backwards: each part is built with the node that follows it and returns its
// first. The first failure is kept, and everything after it does nothing.
type builder struct {
	nodes []node
	err   error
}

func (b *builder) node(n node) int32 {
	if len(b.nodes) >= most && b.err == nil {
		b.err = fmt.Errorf("the form is too large: it has more than %d states", most)
	}
	if b.err != nil {
		return 0
	}
	b.nodes = append(b.nodes, n)
	return int32(len(b.nodes) - 1)
}

// A part builds itself before the node next.
type part func(b *builder, next int32) int32

func empty(_ *builder, next int32) int32 { return next }

func bytes(s set) part {
	return func(b *builder, next int32) int32 { return b.node(node{kind: read, set: s, next: next}) }
}

// text is a string of bytes.
func text(s string) part { return one(spell(s)) }

// sequence is its parts in order.
func sequence(parts ...part) part {
	return func(b *builder, next int32) int32 {
		for i := len(parts) - 1; i >= 0; i-- {
			next = parts[i](b, next)
		}
		return next
	}
}

// either is one of its parts, of which there is at least one.
func either(parts ...part) part {
	return func(b *builder, next int32) int32 {
		at := parts[len(parts)-1](b, next)
		for i := len(parts) - 2; i >= 0; i-- {
			at = b.node(node{kind: fork, next: parts[i](b, next), other: at})
		}
		return at
	}
}

func optional(p part) part { return either(p, empty) }

// repeat is p from min to max times; max -1 is without end. Where there are many copies, p is built once.
func repeat(p part, min, max int) part {
	if copies := 4; min > copies || max > copies {
		p = (&rule{body: p}).part()
	}
	return func(b *builder, next int32) int32 {
		at := next
		if max < 0 {
			loop := b.node(node{kind: fork, other: next})
			if first := p(b, loop); b.err == nil {
				b.nodes[loop].next = first
			}
			at = loop
		} else {
			for range max - min {
				if b.err != nil {
					return 0
				}
				at = b.node(node{kind: fork, next: p(b, at), other: next})
			}
		}
		for range min {
			if b.err != nil {
				return 0
			}
			at = p(b, at)
		}
		return at
	}
}

// A rule is a part that may stand inside itself: it is built once and called.
type rule struct {
	body  part
	start int32
	built bool
}

func (r *rule) part() part {
	return func(b *builder, next int32) int32 {
		at := b.node(node{kind: call, next: next})
		if !r.built {
			r.built = true
			// The start is known only when the body is built, and the body may call the rule: a fork to
			// one side stands for it.
			r.start = b.node(node{kind: fork})
			first := r.body(b, b.node(node{kind: leave}))
			if b.err == nil {
				b.nodes[r.start] = node{kind: fork, next: first, other: first}
			}
		}
		if b.err == nil {
			b.nodes[at].other = r.start
		}
		return at
	}
}

// A spelling is a set for each byte of a text.
type spelling []set

func spell(s string) spelling {
	out := make(spelling, len(s))
	for i := range len(s) {
		out[i].add(s[i], s[i])
	}
	return out
}

// one is a text of one spelling.
func one(s spelling) part {
	return func(b *builder, next int32) int32 {
		for i := len(s) - 1; i >= 0; i-- {
			next = b.node(node{kind: read, set: s[i], next: next})
		}
		return next
	}
}

// spelled is a text that has one of the spellings, of which there is at least one. What begins with the same
// set is built once, so that a text is in few places of a large class at once.
func spelled(all []spelling) part {
	if len(all) == 1 {
		return one(all[0])
	}
	type group struct {
		first set
		rest  []spelling
	}
	var groups []group
	var ones set // the last bytes
	for _, s := range all {
		if len(s) == 1 {
			for i := range ones {
				ones[i] |= s[0][i]
			}
			continue
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.first == s[0] })
		if at < 0 {
			at, groups = len(groups), append(groups, group{first: s[0]})
		}
		groups[at].rest = append(groups[at].rest, s[1:])
	}
	var parts []part
	if ones != (set{}) {
		parts = append(parts, bytes(ones))
	}
	for _, g := range groups {
		parts = append(parts, sequence(bytes(g.first), spelled(g.rest)))
	}
	return either(parts...)
}

// runes is one code point of lo … hi in UTF-8, surrogates left out.
func runes(lo, hi rune) []spelling {
	const surrogates, after = 0xd800, 0xe000
	if lo < surrogates && hi >= after {
		return append(runes(lo, surrogates-1), runes(after, hi)...)
	}
	if lo >= surrogates && lo < after {
		lo = after
	}
	if hi >= surrogates && hi < after {
		hi = surrogates - 1
	}
	if lo > hi {
		return nil
	}
	for _, top := range []rune{0x7f, 0x7ff, 0xffff} { // the last of each length
		if lo <= top && hi > top {
			return append(runes(lo, top), runes(top+1, hi)...)
		}
	}
	return sameLength(lo, hi)
}

// sameLength splits a range of code points of one length so that each byte is a range of its own.
func sameLength(lo, hi rune) []spelling {
	n := utf8.RuneLen(lo)
	for i := 1; i < n; i++ {
		m := rune(1)<<(6*i) - 1 // the last i bytes
		if lo&^m == hi&^m {
			continue
		}
		if lo&m != 0 {
			return append(sameLength(lo, lo|m), sameLength((lo|m)+1, hi)...)
		}
		if hi&m != m {
			return append(sameLength(lo, hi&^m-1), sameLength(hi&^m, hi)...)
		}
	}
	var a, z [4]byte
	utf8.EncodeRune(a[:], lo)
	utf8.EncodeRune(z[:], hi)
	s := make(spelling, n)
	for i := range s {
		s[i].add(a[i], z[i])
	}
	return []spelling{s}
}
