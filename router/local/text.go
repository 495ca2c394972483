package local

import (
	"strings"

	"github.com/r2-reasoner/r2/tokenizer"
)

// A Text is an answer as it is decoded: it ends before the first of its stop strings, and holds back
// what may be the beginning of one.
type Text struct {
	stream  *tokenizer.Stream
	ends    Ends
	said    strings.Builder
	held    string
	stopped string
}

// Ends say what an answer's text takes from its tokens, and where it ends.
type Ends struct {
	Stops       []string // it ends before the first of these
	Include     bool     // or behind it
	KeepSpecial bool     // special tokens are part of it
}

// NewText begins an empty answer.
func NewText(t *tokenizer.Tokenizer, e Ends) *Text {
	return &Text{stream: t.Stream(!e.KeepSpecial), ends: e}
}

// Push adds a token and returns the text that is certain now.
func (t *Text) Push(id int32) string { return t.add(t.stream.Push(id), false) }

// Pass adds a token in whose text, and in what came before it, no stop string is looked for.
func (t *Text) Pass(id int32) string {
	out := t.held + t.stream.Push(id)
	t.held = ""
	t.said.WriteString(out)
	return out
}

// Flush ends the answer and returns what was held back.
func (t *Text) Flush() string { return t.add(t.stream.Flush(), true) }

// Stopped reports whether a stop string has ended the answer; what is pushed after it is ignored.
func (t *Text) Stopped() bool { return t.stopped != "" }

// Stop is the stop string that has ended the answer, or "".
func (t *Text) Stop() string { return t.stopped }

// String is all the text returned so far.
func (t *Text) String() string { return t.said.String() }

func (t *Text) add(s string, last bool) string {
	if t.Stopped() {
		return ""
	}
	t.held += s
	out := t.held
	if at, stop := firstStop(t.held, t.ends.Stops); at >= 0 {
		if t.ends.Include {
			at += len(stop)
		}
		t.stopped = stop
		out, t.held = t.held[:at], ""
	} else if last {
		t.held = ""
	} else {
		keep := beginning(t.held, t.ends.Stops)
		out, t.held = t.held[:len(t.held)-keep], t.held[len(t.held)-keep:]
	}
	t.said.WriteString(out)
	return out
}

// firstStop is where the first of the stop strings begins in s, and which it is; -1 where there is none.
func firstStop(s string, stops []string) (first int, which string) {
	first = -1
	for _, stop := range stops {
		if at := strings.Index(s, stop); stop != "" && at >= 0 && (first < 0 || at < first) {
			first, which = at, stop
		}
	}
	return first, which
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
