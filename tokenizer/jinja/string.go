package jinja

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func every(s string, is func(rune) bool) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
}

// upper and lower map by Unicode's full rules, as Python does: ß becomes SS.
func upper(s string) string { return cases.Upper(language.Und).String(s) }
func lower(s string) string { return cases.Lower(language.Und).String(s) }
func fold(s string) string  { return cases.Fold().String(s) }

func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + lower(s[n:])
}

// title is str.title: a capital after everything that is not a letter.
func title(s string) string {
	inside := false
	return strings.Map(func(r rune) rune {
		was := inside
		inside = unicode.IsLetter(r)
		if was {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

func swapCase(r rune) rune {
	if unicode.IsUpper(r) {
		return unicode.ToLower(r)
	}
	return unicode.ToUpper(r)
}

// strip takes white space, or the characters given, off the ends of s.
func strip(s string, a args, left, right bool) string {
	cut := isSpace
	if set, ok := strArg(a, 0, "chars"); ok {
		cut = func(r rune) bool { return strings.ContainsRune(set, r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s
}

// isSpace is Python's str.isspace: Unicode's white space and four separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func split(s string, a args) []any {
	sep, given := strArg(a, 0, "sep")
	most := intArg(a, 1, "maxsplit", -1)
	if !given {
		return splitSpace(s, most)
	}
	if sep == "" {
		fail("empty separator")
	}
	if most >= 0 {
		most++
	}
	return anys(strings.SplitN(s, sep, most))
}

func splitSpace(s string, most int) []any {
	list := []any{}
	for s = strings.TrimLeftFunc(s, isSpace); s != ""; s = strings.TrimLeftFunc(s, isSpace) {
		end := strings.IndexFunc(s, isSpace)
		if end < 0 || len(list) == most {
			end = len(s)
		}
		list = append(list, s[:end])
		s = s[end:]
	}
	return list
}

func rsplit(s string, a args) []any {
	sep, given := strArg(a, 0, "sep")
	most := intArg(a, 1, "maxsplit", -1)
	if !given && most < 0 {
		return splitSpace(s, -1)
	}
	if !given || sep == "" {
		fail("rsplit needs a separator")
	}
	parts := strings.Split(s, sep)
	if most >= 0 && len(parts) > most+1 {
		head := len(parts) - most
		parts = append([]string{strings.Join(parts[:head], sep)}, parts[head:]...)
	}
	return anys(parts)
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func splitLines(s string, keep bool) []any {
	lines := []any{}
	for s != "" {
		end, next := len(s), len(s)
		if i := strings.IndexAny(s, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"); i >= 0 {
			_, n := utf8.DecodeRuneInString(s[i:])
			end, next = i, i+n
			if strings.HasPrefix(s[i:], "\r\n") {
				next = i + 2
			}
		}
		if keep {
			end = next
		}
		lines = append(lines, s[:end])
		s = s[next:]
	}
	return lines
}

func partition(s, sep string) Tuple {
	before, after, ok := strings.Cut(s, sep)
	if !ok {
		sep = ""
	}
	return Tuple{before, sep, after}
}

func rpartition(s, sep string) Tuple {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return Tuple{"", "", s}
	}
	return Tuple{s[:i], sep, s[i+len(sep):]}
}

func affixed(s string, a args, has func(s, part string) bool) bool {
	if len(a.pos) != 1 {
		fail("startswith and endswith take one argument here")
	}
	if list, ok := a.pos[0].(Tuple); ok {
		return slices.ContainsFunc(list, func(v any) bool {
			part, ok := v.(string)
			return ok && has(s, part)
		})
	}
	return has(s, needStr(a, 0, "prefix"))
}

func replace(s, old, new string, n int) string {
	if grow := len(new) - len(old); grow > 0 && strings.Count(s, old) > maxOutput/grow {
		fail("a string of more than %d bytes", maxOutput)
	}
	return strings.Replace(s, old, new, n)
}

// find returns an index in runes.
func find(s, part string, index func(s, part string) int) int {
	i := index(s, part)
	if i < 0 {
		return -1
	}
	return utf8.RuneCountInString(s[:i])
}

// join puts sep between items; strict takes strings only, as str.join does.
func join(sep string, items []any, strict bool) string {
	var out strings.Builder
	for i, v := range items {
		if _, ok := v.(string); !ok && strict {
			fail("sequence item %d: expected str instance, %s found", i, kindOf(v))
		}
		s := text(v)
		if i > 0 {
			s = sep + s
		}
		if out.Len()+len(s) > maxOutput {
			fail("a string of more than %d bytes", maxOutput)
		}
		out.WriteString(s)
	}
	return out.String()
}

func zfill(s string, width int) string {
	n := width - utf8.RuneCountInString(s)
	if n <= 0 {
		return s
	}
	sign := ""
	if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
		sign, s = s[:1], s[1:]
	}
	return sign + fill("0", n) + s
}

func fill(s string, n int) string {
	if n > maxOutput/max(len(s), 1) {
		fail("a string of more than %d bytes", maxOutput)
	}
	return strings.Repeat(s, max(n, 0))
}

// pad fills s up to a width, in the proportion left to right.
func pad(s string, a args, left, right int) string {
	width, filler := intArg(a, 0, "width", 0), " "
	if c, ok := strArg(a, 1, "fillchar"); ok {
		filler = c
	}
	n := width - utf8.RuneCountInString(s)
	if n <= 0 {
		return s
	}
	l := n * left / (left + right)
	if left == right {
		l = n/2 + n&width&1 // as CPython centers
	}
	return fill(filler, l) + s + fill(filler, n-l)
}
