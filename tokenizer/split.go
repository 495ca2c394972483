package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A stage is one pre-tokenizer. next returns the length in bytes of the piece a
// string starts with, from 1 to its length, looking only at that string; nil
// leaves it whole. prefix puts a space before a string that does not start with one.
type stage struct {
	next   func(s string) int
	prefix bool
}

// The regular expressions of known pre-tokenizers. Go's regexp has no
// look-ahead and backtracking engines take quadratic time on long runs of
// spaces, so each expression has a function of its own.
const (
	gpt2Pattern   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// A known expression: how it splits, and whether its matches cover any text, so
// that nothing is left between them.
type known struct {
	piece  func(string) int
	covers bool
}

var patterns = map[string]known{
	gpt2Pattern:   {gpt2Piece, true},
	qwen2Pattern:  {func(s string) int { return llamaPiece(s, 1) }, true},
	llama3Pattern: {func(s string) int { return llamaPiece(s, 3) }, true},
	`\p{N}`:       {digitPiece, false},
	`\p{N}{1,3}`:  {func(s string) int { return digitsPiece(s, 3) }, false},
}

// gpt2Piece matches gpt2Pattern at the start of s.
func gpt2Piece(s string) int {
	if n := contraction(s); n > 0 {
		return n
	}
	start := 0
	if s[0] == ' ' {
		start = 1
	}
	if start < len(s) {
		if c, n := classAt(s[start:]); c != space {
			return start + n + run(s[start+n:], c)
		}
	}
	return spaces(s, false)
}

// llamaPiece matches llama3Pattern at the start of s, with at most digits
// numbers in a piece: 3 for Llama 3, 1 for Qwen2.
func llamaPiece(s string, digits int) int {
	if n := contractionFold(s); n > 0 {
		return n
	}
	c, n := classAt(s)
	switch {
	case c == letter:
		return n + run(s[n:], letter)
	case c == number:
		return digitRun(s, digits)
	case s[0] != '\r' && s[0] != '\n':
		if m := run(s[n:], letter); m > 0 {
			return n + m
		}
	}
	start := 0
	if s[0] == ' ' {
		start = 1
	}
	if m := run(s[start:], other); m > 0 {
		end := start + m
		return end + len(s[end:]) - len(strings.TrimLeft(s[end:], "\r\n"))
	}
	return spaces(s, true)
}

// spaces matches \s+(?!\S)|\s+ at the start of s, which is a space: the whole
// run at the end of s, else all of it but the last, which goes with what
// follows. With lines, \s*[\r\n]+ comes first: up to the last line end of the run.
func spaces(s string, lines bool) int {
	end, last, line := 0, 0, 0
	for end < len(s) {
		c, n := classAt(s[end:])
		if c != space {
			break
		}
		last = end
		end += n
		if b := s[last]; b == '\r' || b == '\n' {
			line = end
		}
	}
	if lines && line > 0 {
		return line
	}
	if end == len(s) || last == 0 {
		return end
	}
	return last
}

// contraction matches 's|'t|'re|'ve|'m|'ll|'d at the start of s.
func contraction(s string) int {
	if s[0] != '\'' || len(s) < 2 {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) > 2 {
		switch s[1:3] {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// contractionFold is contraction for any case. Only ſ (U+017F) folds to one of
// these letters besides their capitals.
func contractionFold(s string) int {
	if s[0] != '\'' || len(s) < 2 {
		return 0
	}
	if strings.HasPrefix(s[1:], "ſ") {
		return 1 + len("ſ")
	}
	lower := [3]byte{'\''}
	n := 1 + copy(lower[1:], s[1:])
	for i := 1; i < n; i++ {
		if b := lower[i]; b >= 'A' && b <= 'Z' {
			lower[i] = b | 0x20
		}
	}
	return contraction(string(lower[:n]))
}

// digitPiece cuts every number rune out on its own; what lies between stays whole.
func digitPiece(s string) int { return digitsPiece(s, 1) }

// digitsPiece cuts numbers into runs of at most most runes.
func digitsPiece(s string, most int) int {
	if c, _ := classAt(s); c == number {
		return digitRun(s, most)
	}
	for i := 0; i < len(s); {
		c, n := classAt(s[i:])
		if c == number {
			return i
		}
		i += n
	}
	return len(s)
}

// digitRun returns the length of the numbers s starts with, at most most runes.
func digitRun(s string, most int) int {
	i := 0
	for k := 0; k < most && i < len(s); k++ {
		c, n := classAt(s[i:])
		if c != number {
			break
		}
		i += n
	}
	return i
}

// A class is what the expressions distinguish: \p{L}, \p{N}, \s and the rest.
type class uint8

const (
	other class = iota
	letter
	number
	space
)

// basic holds the class of each rune of the basic plane.
var basic [0x10000]class

func init() {
	for r := range rune(len(basic)) {
		basic[r] = classOf(r)
	}
}

func classOf(r rune) class {
	switch {
	case unicode.Is(unicode.L, r):
		return letter
	case unicode.Is(unicode.N, r):
		return number
	case unicode.Is(unicode.White_Space, r):
		return space
	}
	return other
}

// classAt returns the class and length of the rune s starts with. A byte that is
// not UTF-8 is a rune of class other.
func classAt(s string) (class, int) {
	if b := s[0]; b < utf8.RuneSelf {
		return basic[b], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	if int(r) < len(basic) {
		return basic[r], n
	}
	return classOf(r), n
}

// run returns the length of the runes of class c that s starts with.
func run(s string, c class) int {
	i := 0
	for i < len(s) {
		d, n := classAt(s[i:])
		if d != c {
			break
		}
		i += n
	}
	return i
}
