package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Decode returns the text of ids, without special tokens if skipSpecial is set.
// Ids without a token give nothing. Bytes that are not UTF-8 become U+FFFD, one
// for each maximal part of a rune, as Unicode recommends and the reference does;
// no spaces are cleaned up.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var raw []byte
	for _, id := range ids {
		raw = t.appendBytes(raw, id, skipSpecial)
	}
	var out strings.Builder
	out.Grow(len(raw))
	for len(raw) > 0 {
		n, ok := nextRune(raw)
		writeRune(&out, raw[:n], ok)
		raw = raw[n:]
	}
	return out.String()
}

func (t *Tokenizer) appendBytes(raw []byte, id int32, skipSpecial bool) []byte {
	if !t.has(id) || skipSpecial && t.tokens[id].kind == special {
		return raw
	}
	return append(raw, t.tokens[id].bytes...)
}

func writeRune(out *strings.Builder, b []byte, ok bool) {
	if ok {
		out.Write(b)
	} else {
		out.WriteRune(utf8.RuneError)
	}
}

// nextRune returns the length of the rune b starts with, or that of the longest
// start of one and false.
func nextRune(b []byte) (n int, ok bool) {
	if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
		return n, true
	}
	n, _ = partial(b)
	return n, false
}

// partial returns how many bytes of b, which does not start with a rune, are the
// start of one (at least 1), and whether bytes that may still come could complete it.
func partial(b []byte) (n int, open bool) {
	lo, hi, want := byte(0x80), byte(0xBF), 0
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		want = 1
	case c >= 0xE0 && c <= 0xEF:
		want = 2
	case c >= 0xF0 && c <= 0xF4:
		want = 3
	default:
		return 1, false
	}
	switch b[0] { // the second byte is narrower after these (Unicode, table 3-7)
	case 0xE0:
		lo = 0xA0
	case 0xED:
		hi = 0x9F
	case 0xF0:
		lo = 0x90
	case 0xF4:
		hi = 0x8F
	}
	for n = 1; n <= want; n++ {
		if n == len(b) {
			return n, true
		}
		if b[n] < lo || b[n] > hi {
			return n, false
		}
		lo, hi = 0x80, 0xBF
	}
	return n, false
}

// A Stream decodes ids one at a time. It holds back the bytes of a rune that is
// not complete yet, so what it returns is always whole runes and, put together,
// what Decode returns for all ids.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	held        []byte
}

// Stream returns a decoder of a sequence that is still being written.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial}
}

// Push adds an id and returns the text that is certain now.
func (s *Stream) Push(id int32) string {
	s.held = s.t.appendBytes(s.held, id, s.skipSpecial)
	var out strings.Builder
	b := s.held
	for len(b) > 0 {
		n, ok := nextRune(b)
		if !ok {
			if _, open := partial(b); open {
				break
			}
		}
		writeRune(&out, b[:n], ok)
		b = b[n:]
	}
	s.held = append(s.held[:0], b...)
	return out.String()
}

// Flush returns what was held back, as U+FFFD, and starts anew.
func (s *Stream) Flush() string {
	if len(s.held) == 0 {
		return ""
	}
	s.held = s.held[:0] // the start of one rune, so one mark
	return string(utf8.RuneError)
}
