package local

import (
	"strings"

	"github.com/r2-reasoner/r2/tokenizer"
)

// A Text is an answer as it is decoded: it ends before the first of its stop strings, and holds back
// what may be the beginning of one.
type Text struct {
	stream  *tokenizer.Stream
	stops   []string
	said    strings.Builder
	held    string
	stopped bool
}

// NewText begins an empty answer. Special tokens are not part of it.
func NewText(t *tokenizer.Tokenizer, stops []string) *Text {
	return &Text{stream: t.Stream(true), stops: stops}
}

// Push adds a token and returns the text that is certain now.
func (t *Text) Push(id int32) string { return t.add(t.stream.Push(id), false) }

// Flush ends the answer and returns what was held back.
func (t *Text) Flush() string { return t.add(t.stream.Flush(), true) }

// Stopped reports whether a stop string has ended the answer; what is pushed after it is ignored.
func (t *Text) Stopped() bool { return t.stopped }

// String is all the text returned so far.
func (t *Text) String() string { return t.said.String() }

func (t *Text) add(s string, last bool) string {
	if t.stopped {
		return ""
	}
	t.held += s
	out := t.held
	if at := firstStop(t.held, t.stops); at >= 0 {
		t.stopped = true
		out, t.held = t.held[:at], ""
	} else if last {
		t.held = ""
	} else {
		keep := beginning(t.held, t.stops)
		out, t.held = t.held[:len(t.held)-keep], t.held[len(t.held)-keep:]
	}
	t.said.WriteString(out)
	return out
}

// firstStop is where the first of the stop strings begins in s, or -1.
func firstStop(s string, stops []string) int {
	first := -1
	for _, stop := range stops {
		if at := strings.Index(s, stop); stop != "" && at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	return first
}

// beginning is the length of the longest end of s that a stop string begins with.
func beginning(s string, stops []string) (n int) {
	for _, stop := range stops {
		for k := min(len(stop)-1, len(s)); k > n; k-- {
			if strings.HasSuffix(s, stop[:k]) {
				n = k
			}
		}
	}
	return n
}
