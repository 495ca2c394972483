package jinja

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	data     kind = iota // text between tags
	outBegin             // {{
	outEnd
	tagBegin // {%
	tagEnd
	name
	str
	integer
	float
	op
	eof
)

type token struct {
	kind kind
	text string
	line int
}

// A lexer cuts a template into tokens as Jinja2's does, white space rules included.
type lexer struct {
	src    string
	pos    int
	line   int
	starts bool // the last tag ended with a line end: what comes is at a line's start
	tokens []token
}

func lex(src string) []token {
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	l := &lexer{src: strings.TrimSuffix(src, "\n"), line: 1, starts: true}
	for l.pos < len(l.src) {
		l.text()
	}
	l.add(eof, "")
	return l.tokens
}

func (l *lexer) fail(format string, args ...any) {
	defer func() {
		e := recover().(*failure)
		e.line = l.line
		panic(e)
	}()
	fail(format, args...)
}

func (l *lexer) add(k kind, text string) { l.tokens = append(l.tokens, token{k, text, l.line}) }

// skip moves on by n bytes.
func (l *lexer) skip(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

func (l *lexer) rest() string { return l.src[l.pos:] }

// text reads data up to the next tag and that tag.
func (l *lexer) text() {
	rest := l.rest()
	at := 0
	for {
		n := strings.IndexByte(rest[at:], '{')
		if n < 0 || at+n+1 >= len(rest) {
			l.add(data, rest)
			l.pos = len(l.src)
			return
		}
		if at += n; strings.IndexByte("%{#", rest[at+1]) >= 0 {
			break
		}
		at++
	}
	sign, open := signAt(rest, at+2), rest[at+1]
	if text := l.trimmed(rest[:at], sign, open != '{'); text != "" {
		l.add(data, text)
	}
	l.skip(at + 2)
	if sign != 0 {
		l.skip(1)
	}
	switch open {
	case '#':
		l.comment()
	case '{':
		l.add(outBegin, "{{")
		l.expression("}}", outEnd)
	case '%':
		if m := rawBegin.FindString(l.rest()); m != "" {
			l.skip(len(m))
			l.raw()
			return
		}
		l.add(tagBegin, "{%")
		l.expression("%}", tagEnd)
	}
}

func signAt(s string, i int) byte {
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		return s[i]
	}
	return 0
}

// trimmed is what of text stays before a tag: "-" takes all white space away,
// and a block at the start of a line the spaces before it.
func (l *lexer) trimmed(text string, sign byte, block bool) string {
	if sign == '-' {
		return strings.TrimRightFunc(text, unicode.IsSpace)
	}
	if sign == '+' || !block {
		return text
	}
	line := strings.LastIndexByte(text, '\n') + 1
	if (line > 0 || l.starts) && strings.TrimSpace(text[line:]) == "" {
		return text[:line]
	}
	return text
}

func (l *lexer) comment() {
	end := strings.Index(l.rest(), "#}")
	if end < 0 {
		l.fail("a comment does not end")
	}
	sign := byte(0)
	if end > 0 {
		sign = signAt(l.rest(), end-1)
	}
	l.skip(end)
	l.end("#}", sign, true)
}

// end passes over the end of a tag and the white space that goes with it.
func (l *lexer) end(mark string, sign byte, block bool) {
	n := len(mark)
	switch after := l.rest()[n:]; {
	case sign == '-':
		n += len(after) - len(strings.TrimLeftFunc(after, unicode.IsSpace))
	case sign == 0 && block && strings.HasPrefix(after, "\n"):
		n++
	}
	l.starts = l.src[l.pos+n-1] == '\n'
	l.skip(n)
}

var (
	rawBegin = regexp.MustCompile(`^\s*raw\s*(?:-%\}\s*|%\})`)
	rawEnd   = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*([-+]?)%\}`)
)

// raw reads text that is not a template up to its end tag.
func (l *lexer) raw() {
	m := rawEnd.FindStringSubmatchIndex(l.rest())
	if m == nil {
		l.fail("raw does not end")
	}
	rest := l.rest()
	l.starts = strings.HasSuffix(l.src[:l.pos], "\n")
	if text := l.trimmed(rest[:m[0]], signAt(rest, m[2]), true); text != "" {
		l.add(data, text)
	}
	sign := signAt(rest, m[4])
	l.skip(m[1] - len("%}"))
	l.end("%}", sign, true)
}

var closing = map[string]string{"(": ")", "[": "]", "{": "}"}

var operators = []string{"**", "//", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", "<", ">", "=", ".", ":", "|", ",", ";"}

// expression reads tokens up to mark, which does not count inside brackets.
func (l *lexer) expression(mark string, k kind) {
	var open []string
	for {
		rest := strings.TrimLeftFunc(l.rest(), unicode.IsSpace)
		l.skip(len(l.rest()) - len(rest))
		if rest == "" {
			l.fail("a tag does not end: %s is missing", mark)
		}
		if len(open) == 0 {
			sign := signAt(rest, 0)
			if sign == '+' && k == outEnd {
				sign = 0
			}
			if n := min(int(sign), 1); strings.HasPrefix(rest[n:], mark) {
				l.add(k, mark)
				l.skip(n)
				l.end(mark, sign, k == tagEnd)
				return
			}
		}
		if l.operand(rest) {
			continue
		}
		t := l.operator(rest)
		if c, ok := closing[t]; ok {
			open = append(open, c)
		} else if t == ")" || t == "]" || t == "}" {
			if len(open) == 0 || open[len(open)-1] != t {
				l.fail("unexpected %q", t)
			}
			open = open[:len(open)-1]
		}
	}
}

func (l *lexer) operator(rest string) string {
	for _, o := range operators {
		if strings.HasPrefix(rest, o) {
			l.add(op, o)
			l.skip(len(o))
			return o
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	l.fail("unexpected character %q", r)
	return ""
}

var (
	nameRE  = regexp.MustCompile(`^[\pL\p{Nl}_][\pL\pM\p{Nd}\p{Nl}\p{Pc}]*`)
	floatRE = regexp.MustCompile(`^(\d+_)*\d+((\.(\d+_)*\d+)?[eE][+\-]?(\d+_)*\d+|\.(\d+_)*\d+)`)
	intRE   = regexp.MustCompile(`^(0[bB](_?[01])+|0[oO](_?[0-7])+|0[xX](_?[0-9a-fA-F])+|[1-9](_?\d)*|0(_?0)*)`)
)

// operand reads a name, number or string, if rest starts with one.
func (l *lexer) operand(rest string) bool {
	if rest[0] == '\'' || rest[0] == '"' {
		l.str(rest)
		return true
	}
	if m := nameRE.FindString(rest); m != "" {
		l.add(name, m)
		l.skip(len(m))
		return true
	}
	attribute := len(l.tokens) > 0 && l.tokens[len(l.tokens)-1].text == "."
	if m := floatRE.FindString(rest); m != "" && !attribute {
		l.add(float, strings.ReplaceAll(m, "_", ""))
		l.skip(len(m))
		return true
	}
	if m := intRE.FindString(rest); m != "" {
		l.add(integer, strings.ReplaceAll(m, "_", ""))
		l.skip(len(m))
		return true
	}
	return false
}

func (l *lexer) str(rest string) {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case rest[0]:
			l.add(str, l.unescape(rest[1:i]))
			l.skip(i + 1)
			return
		}
	}
	l.fail("a string does not end")
}

var escapes = map[byte]string{'\n': "", '\\': `\`, '\'': "'", '"': `"`, 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v"}

var hexDigits = map[byte]int{'x': 2, 'u': 4, 'U': 8}

// unescape reads the escapes of a Python string; unknown ones stay as they are.
func (l *lexer) unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if e, ok := escapes[c]; ok {
			out.WriteString(e)
			continue
		}
		if n, ok := hexDigits[c]; ok {
			v, err := strconv.ParseUint(s[min(i+1, len(s)):min(i+1+n, len(s))], 16, 32)
			if i+n >= len(s) || err != nil || v > unicode.MaxRune {
				l.fail("the escape \\%c needs %d hexadecimal digits", c, n)
			}
			out.WriteRune(rune(v))
			i += n
			continue
		}
		if c == 'N' {
			l.fail("the escape \\N is not supported")
		}
		if c >= '0' && c <= '7' {
			n := 1
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				n++
			}
			v, _ := strconv.ParseUint(s[i:i+n], 8, 32)
			out.WriteRune(rune(v))
			i += n - 1
			continue
		}
		out.WriteByte('\\')
		out.WriteByte(c)
	}
	return out.String()
}
