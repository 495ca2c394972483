package grammar

import (
	"fmt"
	"regexp/syntax"
	"unicode"
)

// Regexp is the texts that match a regular expression (Go's syntax, RE2) from beginning to end.
func Regexp(pattern string) (*Grammar, error) {
	if len(pattern) > longestPattern {
		return nil, fmt.Errorf("regular expression: it has %d bytes, at most %d are taken", len(pattern), longestPattern)
	}
	p, err := expression(pattern, runes, false)
	if err != nil {
		return nil, err
	}
	return compile(p)
}

// longestPattern and longestSchema are the most bytes that are compiled.
const longestPattern, longestSchema = 64 << 10, 1 << 20

// A writer says how a range of code points is written.
type writer func(lo, hi rune) []spelling

// expression compiles a pattern. With search it may match anywhere in the text, as a JSON schema's
// does, unless it is anchored.
func expression(pattern string, w writer, search bool) (part, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	begin, end := false, false
	for len(parts) > 0 && (parts[0].Op == syntax.OpBeginText || parts[0].Op == syntax.OpBeginLine && parts[0].Flags&syntax.OneLine != 0) {
		begin, parts = true, parts[1:]
	}
	for n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText; n = len(parts) {
		end, parts = true, parts[:n-1]
	}
	anything := repeat(spelled(w(0, unicode.MaxRune)), 0, -1)
	var all []part
	if search && !begin {
		all = append(all, anything)
	}
	for _, sub := range parts {
		p, err := compileRegexp(sub, w)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if search && !end {
		all = append(all, anything)
	}
	return sequence(all...), nil
}

func compileRegexp(re *syntax.Regexp, w writer) (part, error) {
	var subs []part
	for _, s := range re.Sub {
		p, err := compileRegexp(s, w)
		if err != nil {
			return nil, err
		}
		subs = append(subs, p)
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		return empty, nil
	case syntax.OpLiteral:
		var all []part
		for _, r := range re.Rune {
			p, err := oneOf(literal(r, re.Flags&syntax.FoldCase != 0), w)
			if err != nil {
				return nil, err
			}
			all = append(all, p)
		}
		return sequence(all...), nil
	case syntax.OpCharClass:
		return oneOf(re.Rune, w)
	case syntax.OpAnyChar:
		return oneOf([]rune{0, unicode.MaxRune}, w)
	case syntax.OpAnyCharNotNL:
		return oneOf([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune}, w)
	case syntax.OpCapture, syntax.OpConcat:
		return sequence(subs...), nil
	case syntax.OpAlternate:
		return either(subs...), nil
	case syntax.OpStar:
		return repeat(subs[0], 0, -1), nil
	case syntax.OpPlus:
		return repeat(subs[0], 1, -1), nil
	case syntax.OpQuest:
		return optional(subs[0]), nil
	case syntax.OpRepeat:
		return repeat(subs[0], re.Min, re.Max), nil
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return nil, fmt.Errorf("regular expression: ^ and $ are taken at its ends only")
	}
	return nil, fmt.Errorf("regular expression: %s is not supported", re)
}

// literal is a code point as pairs of a class, with its other cases where case does not count.
func literal(r rune, fold bool) []rune {
	class := []rune{r, r}
	for f := unicode.SimpleFold(r); fold && f != r; f = unicode.SimpleFold(f) {
		class = append(class, f, f)
	}
	return class
}

// oneOf is one code point of a class, given in pairs of first and last.
func oneOf(class []rune, w writer) (part, error) {
	var all []spelling
	for i := 0; i < len(class); i += 2 {
		all = append(all, w(class[i], class[i+1])...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("regular expression: a class is empty, so nothing can match")
	}
	return spelled(all), nil
}
