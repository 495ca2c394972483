package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// An addedToken is a token written into the vocabulary as a whole; it is
// recognised in text before anything else happens to it.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no word touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // and behind it
	Normalized bool   `json:"normalized"`  // looked for in the normalized text
	Special    bool   `json:"special"`
}

// A matcher finds added tokens in text: leftmost first, the longest of those
// that start at one place. It is a trie over bytes.
type matcher struct {
	tokens []addedToken
	nodes  []node
	first  [256]bool // bytes some token starts with
}

type node struct {
	next  map[byte]int32
	token int32 // index of the token that ends here, or -1
}

func newMatcher(tokens []addedToken) *matcher {
	m := &matcher{tokens: tokens, nodes: []node{{token: -1}}}
	for i, t := range tokens {
		at := int32(0)
		for j := range len(t.Content) {
			b := t.Content[j]
			to, ok := m.nodes[at].next[b]
			if !ok {
				to = int32(len(m.nodes))
				if m.nodes[at].next == nil {
					m.nodes[at].next = map[byte]int32{}
				}
				m.nodes[at].next[b] = to
				m.nodes = append(m.nodes, node{token: -1})
			}
			at = to
		}
		if at != 0 {
			m.nodes[at].token = int32(i)
			m.first[t.Content[0]] = true
		}
	}
	return m
}

// longest returns the index of the longest token s starts with, or -1.
func (m *matcher) longest(s string) int32 {
	best, at := int32(-1), int32(0)
	for i := range len(s) {
		to, ok := m.nodes[at].next[s[i]]
		if !ok {
			break
		}
		at = to
		if t := m.nodes[at].token; t >= 0 {
			best = t
		}
	}
	return best
}

// split calls f for each part of s in order: an added token's id, or the text
// between two of them with id -1. Parts are never empty text.
func (m *matcher) split(s string, f func(text string, id int32)) {
	done := 0
	for i := 0; i < len(s); {
		if !m.first[s[i]] {
			i++
			continue
		}
		k := m.longest(s[i:])
		if k < 0 {
			i++
			continue
		}
		t := &m.tokens[k]
		start, stop := i, i+len(t.Content)
		i = stop
		if t.SingleWord && (endsWithWord(s[:start]) || startsWithWord(s[stop:])) {
			continue
		}
		if t.LStrip {
			start = done + len(strings.TrimRightFunc(s[done:max(start, done)], isSpace))
		}
		if t.RStrip && stop < done {
			stop = done // inside the spaces the token before has taken
		} else if t.RStrip {
			stop = len(s) - len(strings.TrimLeftFunc(s[stop:], isSpace))
		}
		if done < start {
			f(s[done:start], -1)
		}
		f("", t.ID)
		done = stop
	}
	if done < len(s) {
		f(s[done:], -1)
	}
}

func isSpace(r rune) bool { return unicode.Is(unicode.White_Space, r) }

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode's UTS 18: alphabetic, mark, decimal number, connector
// punctuation and the two joiners.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control)
}
