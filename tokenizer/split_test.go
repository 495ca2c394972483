package tokenizer

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The expressions again, in the plainest way: matchers that try every way to
// match, in the order a backtracking engine does. at matches s from i on and
// calls rest with each end it finds until rest says yes.
type at func(s string, i int, rest func(int) bool) bool

// times repeats a set of runes from least to most times, as often as it can first.
func times(is func(rune) bool, least, most int) at {
	return func(s string, i int, rest func(int) bool) bool {
		ends := []int{i}
		for j := i; j < len(s) && len(ends) <= most; {
			r, n := utf8.DecodeRuneInString(s[j:])
			if !is(r) {
				break
			}
			j += n
			ends = append(ends, j)
		}
		for k := len(ends) - 1; k >= least; k-- {
			if rest(ends[k]) {
				return true
			}
		}
		return false
	}
}

func then(parts ...at) at {
	if len(parts) == 1 {
		return parts[0]
	}
	return func(s string, i int, rest func(int) bool) bool {
		return parts[0](s, i, func(j int) bool { return then(parts[1:]...)(s, j, rest) })
	}
}

func notBefore(is func(rune) bool) at {
	return func(s string, i int, rest func(int) bool) bool {
		r, n := utf8.DecodeRuneInString(s[i:])
		return !(n > 0 && is(r)) && rest(i)
	}
}

func word(w string, fold bool) at {
	return func(s string, i int, rest func(int) bool) bool {
		for _, c := range w {
			r, n := utf8.DecodeRuneInString(s[i:])
			same := r == c || fold && strings.EqualFold(string(r), string(c))
			if n == 0 || !same {
				return false
			}
			i += n
		}
		return rest(i)
	}
}

const many = 1 << 30

var (
	isL    = func(r rune) bool { return unicode.Is(unicode.L, r) }
	isN    = func(r rune) bool { return unicode.Is(unicode.N, r) }
	isS    = func(r rune) bool { return unicode.Is(unicode.White_Space, r) }
	isNL   = func(r rune) bool { return r == '\r' || r == '\n' }
	isRest = func(r rune) bool { return !isL(r) && !isN(r) && !isS(r) }
	isSp   = func(r rune) bool { return r == ' ' }
	front  = func(r rune) bool { return !isNL(r) && !isL(r) && !isN(r) }
)

func contractions(fold bool) (list []at) {
	for _, w := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		list = append(list, word(w, fold))
	}
	return list
}

func blanks() []at {
	notS := func(r rune) bool { return !isS(r) }
	return []at{then(times(isS, 1, many), notBefore(notS)), times(isS, 1, many)}
}

func gpt2Slow() []at {
	space := times(isSp, 0, 1)
	return append(append(contractions(false),
		then(space, times(isL, 1, many)), then(space, times(isN, 1, many)), then(space, times(isRest, 1, many))), blanks()...)
}

func llamaSlow(digits int) []at {
	return append(append(contractions(true),
		then(times(front, 0, 1), times(isL, 1, many)), times(isN, 1, digits),
		then(times(isSp, 0, 1), times(isRest, 1, many), times(isNL, 0, many)),
		then(times(isS, 0, many), times(isNL, 1, many))), blanks()...)
}

func slowPiece(list []at, s string) int {
	for _, a := range list {
		end := -1
		if a(s, 0, func(i int) bool { end = i; return true }) {
			return end
		}
	}
	return -1
}

var slowSplitters = map[string][]at{gpt2Pattern: gpt2Slow(), qwen2Pattern: llamaSlow(1), llama3Pattern: llamaSlow(3)}

func checkSplit(t *testing.T, s string) {
	t.Helper()
	for pattern, slow := range slowSplitters {
		piece := patterns[pattern].piece
		for rest := s; rest != ""; {
			n := piece(rest)
			if want := slowPiece(slow, rest); n != want {
				t.Fatalf("%.30s…: the piece at the start of %q has %d bytes, want %d", pattern, rest, n, want)
			}
			rest = rest[n:]
		}
	}
}

func TestSplit(t *testing.T) {
	for _, s := range readTiny(t).Texts {
		checkSplit(t, s)
	}
}

// FuzzSplit: the splitters cut where the expressions match, on UTF-8 and on what is not.
func FuzzSplit(f *testing.F) {
	for _, s := range readTiny(f).Texts {
		f.Add(s)
	}
	f.Add("\xff' \xc3 's\xa9 \n\xf0")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 200 {
			return
		}
		checkSplit(t, s)
	})
}
