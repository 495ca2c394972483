package ptxsim

import (
	"fmt"
	"strconv"
	"strings"
)

// A badText is what is wrong with PTX, and in which line.
type badText struct {
	line int
	why  string
}

func (b badText) Error() string { return fmt.Sprintf("line %d: %s", b.line, b.why) }

// A scanner cuts the text of a module into words and statements.
type scanner struct {
	text string
	at   int
	line int // of at, from 1
}

func (s *scanner) fail(format string, args ...any) error {
	return badText{s.line, fmt.Sprintf(format, args...)}
}

// skip passes blanks and comments.
func (s *scanner) skip() {
	for s.at < len(s.text) {
		switch rest := s.text[s.at:]; {
		case rest[0] == '\n':
			s.line++
			s.at++
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			s.at++
		case strings.HasPrefix(rest, "//"):
			s.restOfLine()
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest, "*/")
			if n < 0 {
				n = len(rest) - 2
			}
			s.line += strings.Count(rest[:n], "\n")
			s.at += n + 2
		default:
			return
		}
	}
}

// restOfLine takes what is left of a line.
func (s *scanner) restOfLine() string {
	rest := s.text[s.at:]
	if n := strings.IndexByte(rest, '\n'); n >= 0 {
		rest = rest[:n]
	}
	s.at += len(rest)
	return strings.TrimSpace(rest)
}

// word takes what stands before the next blank, bracket, comma or semicolon; "" at one of these or the end.
func (s *scanner) word() string {
	s.skip()
	from := s.at
	for s.at < len(s.text) && !strings.ContainsRune(" \t\r\n(){},;", rune(s.text[s.at])) {
		s.at++
	}
	return s.text[from:s.at]
}

// take passes the byte that must come next.
func (s *scanner) take(b byte) error {
	if s.peek() != b {
		return s.fail("%q is missing before %q", string(b), s.glimpse())
	}
	s.at++
	return nil
}

// peek is the next byte that is no blank, 0 at the end.
func (s *scanner) peek() byte {
	s.skip()
	if s.at == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// glimpse is a little of what comes, for messages.
func (s *scanner) glimpse() string {
	rest := s.text[s.at:]
	if n := strings.IndexByte(rest, '\n'); n >= 0 {
		rest = rest[:n]
	}
	return rest[:min(len(rest), 40)]
}

// until takes the text before the next stop, and passes that.
func (s *scanner) until(stop byte) (string, error) {
	n := strings.IndexByte(s.text[s.at:], stop)
	if n < 0 {
		return "", s.fail("%q is missing after %q", string(stop), s.glimpse())
	}
	part := s.text[s.at : s.at+n]
	s.line += strings.Count(part, "\n")
	s.at += n + 1
	return part, nil
}

// A section is one kernel's text, and what of the module it needs.
type section struct {
	text    string // from the name on to the closing brace
	line    int    // of its beginning
	dynamic string // the name of dynamic shared memory, "" where none is declared
}

// sections cuts a module into its kernels. target is what it was compiled for, such as sm_90a.
func sections(text string) (all []section, target string, err error) {
	s := &scanner{text: text, line: 1}
	if end := strings.IndexByte(text, 0); end >= 0 {
		s.text = text[:end]
	}
	dynamic := ""
	for s.peek() != 0 {
		switch w := s.word(); w {
		case ".version", ".address_size", ".file", ".loc":
			s.restOfLine()
		case ".target":
			target, _, _ = strings.Cut(s.restOfLine(), ",")
		case ".visible", ".weak", ".extern":
		case ".shared":
			decl, err := s.until(';')
			if err != nil {
				return nil, "", err
			}
			f := strings.Fields(decl)
			if len(f) == 0 || !strings.HasSuffix(f[len(f)-1], "[]") {
				return nil, "", s.fail("shared memory outside a kernel has its size at the launch: .extern .shared … name[]")
			}
			dynamic = strings.TrimSuffix(f[len(f)-1], "[]")
		case ".entry":
			s.skip()
			from, line := s.at, s.line
			if err := s.kernelEnd(); err != nil {
				return nil, "", err
			}
			all = append(all, section{s.text[from:s.at], line, dynamic})
		default:
			return nil, "", s.fail("%q is not known outside a kernel", w+s.glimpse())
		}
	}
	if target == "" {
		return nil, "", badText{1, "no .target: this is no PTX"}
	}
	return all, target, nil
}

// kernelEnd passes a kernel's header and its body in braces.
func (s *scanner) kernelEnd() error {
	for depth := 0; s.peek() != 0; {
		b := s.text[s.at]
		s.at++
		switch {
		case b == '{':
			depth++
		case b == '}' && depth == 1:
			return nil
		case b == '}':
			depth--
		case b == ';' && depth == 0:
			return s.fail("a kernel without a body")
		}
	}
	return s.fail("a kernel's closing brace is missing")
}

// statement takes what stands before a semicolon, a label with its colon, or one brace. It is "" at the end.
func (s *scanner) statement() (text string, line int, err error) {
	b := s.peek()
	line = s.line
	if b == 0 {
		return "", line, nil
	}
	if b == '{' || b == '}' {
		s.at++
		return string(b), line, nil
	}
	from := s.at
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case ';':
			s.at++
			return strings.TrimSpace(s.text[from : s.at-1]), line, nil
		case ':':
			if name := s.text[from:s.at]; !strings.ContainsAny(name, " \t\n.,[") {
				s.at++
				return name + ":", line, nil
			}
		case '\n':
			s.line++
			if strings.HasPrefix(s.text[from:], ".loc") || strings.HasPrefix(s.text[from:], ".file") {
				return ".loc", line, nil
			}
		case '/':
			if s.at+1 < len(s.text) && (s.text[s.at+1] == '/' || s.text[s.at+1] == '*') {
				return "", line, badText{line, "a comment within a statement"}
			}
		}
	}
	return "", line, badText{line, fmt.Sprintf("a semicolon is missing after %q", s.text[from:min(len(s.text), from+40)])}
}

// number reads an integer as PTX writes it.
func number(s string) (uint64, bool) {
	s = strings.TrimSuffix(s, "U")
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		return uint64(v), true
	}
	v, err := strconv.ParseUint(s, 0, 64)
	return v, err == nil
}
