package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// compose returns s in Unicode normalization form C (UAX 15). Bytes that are not
// UTF-8 stay as they are.
func compose(s string) string {
	switch {
	case ascii(s):
		return s
	case manyMarks(s):
		return composeAny(s)
	}
	return norm.NFC.String(s)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// manyMarks reports whether s has 10 combining marks in a row. After 30 of them,
// some counting double, norm inserts U+034F (its Stream-Safe Text Format), which
// form C itself does not.
func manyMarks(s string) bool {
	n := 0
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			n = 0
			i++
			continue
		}
		p := norm.NFD.PropertiesString(s[i:])
		if n++; p.LeadCCC() == 0 {
			n = 0
		}
		if n == 10 {
			return true
		}
		i += max(p.Size(), 1)
	}
	return false
}

// composeAny is compose for any number of marks: each stretch of UTF-8 is
// decomposed, its marks put in order and composed again, as UAX 15 says it.
func composeAny(s string) string {
	var out strings.Builder
	var runes []rune
	flush := func() {
		out.WriteString(string(recompose(runes)))
		runes = runes[:0]
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			flush()
			out.WriteByte(s[i])
		} else {
			runes = append(runes, []rune(norm.NFD.String(s[i:i+n]))...)
		}
		i += n
	}
	flush()
	return out.String()
}

// recompose puts the marks of decomposed runes in canonical order and composes
// them, in place.
func recompose(runes []rune) []rune {
	for i := 0; i < len(runes); {
		j := i
		for j < len(runes) && combining(runes[j]) > 0 {
			j++
		}
		slices.SortStableFunc(runes[i:j], func(a, b rune) int { return int(combining(a)) - int(combining(b)) })
		i = j + 1
	}
	out, starter, last := runes[:0], -1, uint8(0)
	for _, r := range runes {
		c := combining(r)
		if starter >= 0 && (starter == len(out)-1 || last < c) {
			if p, ok := pairOf(out[starter], r); ok {
				out[starter] = p
				continue
			}
		}
		if c == 0 {
			starter = len(out)
		}
		last = c
		out = append(out, r)
	}
	return out
}

func combining(r rune) uint8 {
	if r < utf8.RuneSelf {
		return 0
	}
	return norm.NFD.PropertiesString(string(r)).CCC()
}

// pairOf returns the rune two runes compose to, if they do.
func pairOf(a, b rune) (rune, bool) {
	if b < utf8.RuneSelf || norm.NFC.PropertiesString(string(b)).BoundaryBefore() {
		return 0, false
	}
	s := norm.NFC.String(string([]rune{a, b}))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s)
}
